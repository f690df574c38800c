"""What hooks do to a call: refuse it, halt the turn, allow it, change it, add to it (CW 7.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.agent import hooks
from crush_trio.agent.hooks import together
from crush_trio.agent.ports import (
    HookDecision,
    HookSays,
    PermissionAsk,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.turn import Turn, TurnEnd
from crush_trio.protocol.messages import ToolResultPart
from crush_trio.protocol.runs import Outcome
from tests.agent.turn_kit import SmallTool, answering, turn_of
from tests.models.kit import script_of

ASKED = {"actions": [{"tool": "look", "input": {"a": 1, "b": 2}}]}
SCHEMA = {"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}


@attrs.define(eq=False)
class SayingHooks:
    """Hooks that say what they are told to, and note what they are asked."""

    before: tuple[HookSays, ...] = ()
    after: tuple[HookSays, ...] = ()
    error: Exception | None = None
    hears_ends: bool = False
    asked: list[Any] = attrs.field(factory=list)

    async def before_tool(
        self, tool_name: str, tool_input: Mapping[str, Any]
    ) -> tuple[HookSays, ...]:
        """Say it."""
        self.asked.append((tool_name, dict(tool_input)))
        if self.error is not None:
            raise self.error
        return self.before

    async def after_tool(
        self, tool_name: str, tool_input: Mapping[str, Any], content: str, *, is_error: bool
    ) -> tuple[HookSays, ...]:
        """Say it."""
        self.asked.append((tool_name, dict(tool_input), content, is_error))
        return self.after

    async def run_ended(self, outcome: str, text: str, error: str) -> None:
        """A turn does not ask them."""
        raise NotImplementedError


def looking(text: str = "seen", **result: Any) -> SmallTool:
    """A tool with a required argument."""
    return attrs.evolve(answering("look", text, **result), schema=SCHEMA)


async def taken(
    said: SayingHooks, tool: SmallTool | None = None, *steps: dict[str, Any]
) -> tuple[TurnEnd, Turn, ToolResultPart, dict[str, Any]]:
    """A turn with one call: how it ended, its result, and what its metadata says of the hooks."""
    model = script_of(*(steps or (ASKED,)), {"actions": [{"text": "done"}]})
    turn, journal = turn_of(model, [tool or looking()], hooks=said)
    end = await turn.take()
    (part,) = [part for message in journal.messages() for part in message.tool_results()]
    return end, turn, part, json.loads(part.metadata) if part.metadata else {}


async def test_a_call_that_a_hook_denies_is_not_made_and_the_turn_goes_on() -> None:
    tool = looking()
    said = SayingHooks(
        (
            HookSays("one", decision="allow", reason="fine", context="look elsewhere"),
            HookSays("two", matcher="look", decision="deny", reason="not here"),
            HookSays("three", problem="exit code 1"),
        )
    )
    end, turn, part, metadata = await taken(said, tool)
    assert part.content == "Tool call blocked by hook. Reason: not here\nlook elsewhere"
    assert part.is_error
    assert tool.calls == []
    assert said.asked == [("look", {"a": 1, "b": 2})]  # none is told that it was made
    assert (end.outcome, turn.progress.denied, turn.progress.steps) == (Outcome.DENIED, 1, 2)
    assert metadata == {
        "hook": {
            "hook_count": 3,
            "decision": "deny",
            "reason": "not here",
            "hooks": [
                {"name": "one", "decision": "allow", "reason": "fine"},
                {"name": "two", "matcher": "look", "decision": "deny", "reason": "not here"},
                {"name": "three", "decision": "none", "error": "exit code 1"},
            ],
        }
    }


async def test_a_hook_that_halts_ends_the_turn_without_the_call() -> None:
    tool = looking()
    said = SayingHooks((HookSays("one", halt=True, reason="enough"), HookSays("two")))
    end, turn, part, metadata = await taken(said, tool)
    assert part.content == "Turn halted by hook. Reason: enough"
    assert (tool.calls, turn.progress.steps, end.outcome) == ([], 1, Outcome.DENIED)
    assert (metadata["hook"]["halt"], metadata["hook"]["decision"]) == (True, "none")


async def test_what_a_hook_allows_is_asked_for_in_its_name_and_only_that_call() -> None:
    """R67: the third step, for this very call."""
    asked: list[PermissionAsk] = []

    async def ask(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        asked.append(PermissionAsk("look", "x", "", "", None, ""))
        decision = await context.permission(asked[-1])
        return ToolResult("yes" if decision.allowed else "no")

    table: tuple[tuple[HookDecision, str], ...] = (("allow", "yes"), ("none", "no"))
    for decision, content in table:
        said = SayingHooks((HookSays("one", decision=decision),))
        *_, part, metadata = await taken(said, SmallTool("look", ask, SCHEMA))
        assert (part.content, metadata["hook"]["decision"]) == (content, decision)


async def test_changed_arguments_are_what_the_tool_gets_and_is_checked_for() -> None:
    """Later hooks over earlier ones, name by name; what hooks after the call see, too."""
    tool = looking()
    said = SayingHooks(
        (
            HookSays("one", updated_input={"a": 5, "c": "new"}),
            HookSays("two", updated_input={"a": 6}),
        ),
        (HookSays("after"),),
    )
    *_, metadata = await taken(said, tool)
    changed = {"a": 6, "b": 2, "c": "new"}
    assert tool.calls == [changed]
    assert said.asked == [("look", {"a": 1, "b": 2}), ("look", changed, "seen", False)]
    assert metadata["hook"]["input_rewrite"] is True
    assert [each.get("input_rewrite") for each in metadata["hook"]["hooks"]] == [True, True]
    assert metadata["post_hook"] == {
        "hook_count": 1,
        "decision": "none",
        "hooks": [{"name": "after", "decision": "none"}],
    }
    wrong = SayingHooks((HookSays("one", decision="allow", updated_input={"a": "x"}),))
    end, _, part, metadata = await taken(wrong, tool)
    assert part.content == (
        "A hook changed the arguments: Wrong parameter type: a must be integer (tool look)"
    )
    assert (part.is_error, len(tool.calls), end.outcome) == (True, 1, Outcome.COMPLETED)
    assert metadata["hook"]["input_rewrite"] is True


async def test_hooks_add_to_a_result_and_cannot_take_it_back() -> None:
    said = SayingHooks(
        (HookSays("a", context="before"),),
        (HookSays("b", context="after"), HookSays("c", decision="deny", reason="lint failed")),
    )
    tool = looking(metadata={"lines": 3})
    end, turn, part, metadata = await taken(said, tool)
    assert (part.content, part.is_error) == ("seen\nbefore\nafter\nlint failed", False)
    assert (end.outcome, turn.progress.steps, len(tool.calls)) == (Outcome.COMPLETED, 2, 1)
    assert metadata["lines"] == 3
    halting = SayingHooks(after=(HookSays("b", halt=True, reason="wrong branch"),))
    end, turn, part, metadata = await taken(halting, tool)
    assert part.content == "seen\nTurn halted by hook. Reason: wrong branch"
    assert (end.outcome, turn.progress.steps) == (Outcome.COMPLETED, 1)
    assert ("hook" in metadata, metadata["post_hook"]["halt"]) == (False, True)


async def test_hooks_are_told_of_failures_but_not_of_calls_that_were_never_made() -> None:
    def bug(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        raise KeyError("oops")

    said = SayingHooks()
    *_, part, _ = await taken(said, SmallTool("look", bug, SCHEMA))
    assert said.asked[1:] == [("look", {"a": 1, "b": 2}, part.content, True)]
    said = SayingHooks()
    await taken(said, looking("no", is_error=True, denied=True))
    assert len(said.asked) == 1
    said = SayingHooks()
    for action in ({"tool": "unknown"}, {"tool": "look"}, {"tool": "look", "raw_input": "{"}):
        *_, part, metadata = await taken(said, None, {"actions": [action]})
        assert (part.is_error, metadata) == (True, {})
    assert said.asked == []


async def test_a_call_whose_hooks_break_is_not_made() -> None:
    tool = looking()
    *_, part, _ = await taken(SayingHooks(error=KeyError("oops")), tool)
    assert (part.content, part.is_error) == ("look failed: KeyError: 'oops'", True)
    assert tool.calls == []


SAYS = st.builds(
    HookSays,
    st.just("h"),
    decision=st.sampled_from(["none", "allow", "deny"]),
    halt=st.booleans(),
    reason=st.sampled_from(["", "r1", "r2"]),
    context=st.sampled_from(["", "c1", "c2"]),
    updated_input=st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
)


@given(st.lists(SAYS, max_size=5), st.lists(SAYS, max_size=5))
def test_deny_beats_allow_beats_none_wherever_they_stand(
    first: list[HookSays], second: list[HookSays]
) -> None:
    """What hooks come to does not depend on how they are split; only texts keep their order."""
    whole = together([*first, *second])
    rank = ("none", "allow", "deny").index
    assert rank(whole.decision) == max((rank(each.decision) for each in whole.hooks), default=0)
    assert whole.halt == any(each.halt for each in whole.hooks)
    one, two = together(first), together(second)
    assert whole.context == "\n".join(text for text in (one.context, two.context) if text)
    assert whole.reason == "\n".join(text for text in (one.reason, two.reason) if text)
    changes = [said.updated_input for said in (one, two) if said.updated_input is not None]
    assert whole.updated_input == (
        {k: v for c in changes for k, v in c.items()} if changes else None
    )
    refusal = hooks.refused(whole)
    assert (refusal is not None) == (whole.halt or whole.decision == "deny")
    assert refusal is None or (refusal.is_error and refusal.stop_turn == whole.halt)


@pytest.mark.parametrize("reason", ["", "because"])
def test_a_refusal_always_gives_a_reason(reason: str) -> None:
    refusal = hooks.refused(together([HookSays("h", decision="deny", reason=reason)]))
    assert refusal is not None
    assert refusal.content == f"Tool call blocked by hook. Reason: {reason or 'none was given'}"
