"""What hooks come to together, and what that does to a tool call. Pure (CW 7.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from crush_trio.agent.ports import HookDecision, HookSays, ToolResult

METADATA_BEFORE, METADATA_AFTER = "hook", "post_hook"
"""Where a result's metadata says what the hooks before and after the call decided."""


@attrs.frozen
class Said:
    """What all hooks of one moment said together.

    ``updated_input`` is what all of them changed, later ones over earlier ones.
    """

    hooks: tuple[HookSays, ...] = ()
    decision: HookDecision = "none"
    halt: bool = False
    reason: str = ""
    context: str = ""
    updated_input: Mapping[str, Any] | None = None


def together(hooks: Sequence[HookSays]) -> Said:
    """In the order of configuration: deny beats allow, allow beats none, a halt stays."""
    decisions = {each.decision for each in hooks}
    changes = [each.updated_input for each in hooks if each.updated_input is not None]
    decision: HookDecision = "none"
    if "deny" in decisions:
        decision = "deny"
    elif "allow" in decisions:
        decision = "allow"
    return Said(
        tuple(hooks),
        decision,
        any(each.halt for each in hooks),
        _lines(each.reason for each in hooks if each.decision == "deny" or each.halt),
        _lines(each.context for each in hooks),
        {name: value for change in changes for name, value in change.items()} if changes else None,
    )


def refused(before: Said) -> ToolResult | None:
    """The result of a call that hooks keep from being made; ``None`` if it may be made."""
    if not before.halt and before.decision != "deny":
        return None
    verdict = "Turn halted by hook." if before.halt else "Tool call blocked by hook."
    result = ToolResult(
        f"{verdict} Reason: {before.reason or 'none was given'}",
        is_error=True,
        denied=True,
        stop_turn=before.halt,
    )
    return told(result, before, Said())


def told(result: ToolResult, before: Said, after: Said) -> ToolResult:
    """``result`` with what the hooks had to say; those after the call cannot undo it."""
    lines = [result.content, before.context, after.context]
    if after.halt:
        lines.append(f"Turn halted by hook. Reason: {after.reason or 'none was given'}")
    elif after.reason:
        lines.append(after.reason)
    metadata = dict(result.metadata or {})
    if before.hooks:
        metadata[METADATA_BEFORE] = described(before)
    if after.hooks:
        metadata[METADATA_AFTER] = described(after)
    return attrs.evolve(
        result,
        content=_lines(lines),
        metadata=metadata or result.metadata,
        stop_turn=result.stop_turn or after.halt,
    )


def described(said: Said) -> dict[str, Any]:
    """As it stands in a result's metadata."""
    return {
        "hook_count": len(said.hooks),
        "decision": said.decision,
        **_present(said.halt, said.reason, said.updated_input),
        "hooks": [
            {
                "name": each.name,
                **({"matcher": each.matcher} if each.matcher else {}),
                "decision": each.decision,
                **_present(each.halt, each.reason, each.updated_input),
                **({"error": each.problem} if each.problem else {}),
            }
            for each in said.hooks
        ],
    }


def _present(halt: bool, reason: str, updated_input: Mapping[str, Any] | None) -> dict[str, Any]:
    known = {"halt": halt, "reason": reason, "input_rewrite": updated_input is not None}
    return {name: value for name, value in known.items() if value}


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


class NoHooks:
    """Where there are none: an `agent.ports.Hooks` that says nothing."""

    hears_ends = False

    async def before_tool(
        self, tool_name: str, tool_input: Mapping[str, Any]
    ) -> tuple[HookSays, ...]:
        """Nothing."""
        return ()

    async def after_tool(
        self, tool_name: str, tool_input: Mapping[str, Any], content: str, *, is_error: bool
    ) -> tuple[HookSays, ...]:
        """Nothing."""
        return ()

    async def run_ended(self, outcome: str, text: str, error: str) -> None:
        """Nothing."""
