"""The planner's words: which prompt calls which tools, and what is not its business."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.agent.ports import ModelError, ToolCallEnd, ToolCallStart, ToolSpec
from crush_trio.models.scout.commands import command
from crush_trio.models.scout.model import SAYS, Scout
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import ToolCallPart, ToolResultPart
from tests.models.kit import message, play, request, text_of, user

TOOLS = [ToolSpec(name, "", {}) for name in ("bash", "edit", "glob", "grep", "ls", "view")]


def first_call(prompt: str) -> tuple[str, dict[str, Any]]:
    call = next(command(prompt))[0]
    return call.tool, dict(call.input)


@pytest.mark.parametrize(
    "prompt",
    [
        "Survey this repository",
        "survey the repo.",
        "overview",
        "What is this?",
        "Please describe this project.",
        "could you summarise this codebase?",
        "what does this package do?",
        "tell me about this directory",
    ],
)
def test_many_words_ask_for_a_survey(prompt: str) -> None:
    calls = next(command(prompt))
    assert [call.tool for call in calls] == ["ls", "bash", "bash", "grep", "grep"]


@pytest.mark.parametrize(
    ("prompt", "tool", "some"),
    [
        ("find open_nursery", "grep", {"pattern": "open_nursery", "literal_text": True}),
        ("Where is the class Foo defined?", "grep", {"pattern": "Foo", "path": "."}),
        ("find all usages of foo in src", "grep", {"pattern": "foo", "path": "src"}),
        ("where are the tests?", "grep", {"pattern": "tests"}),
        ('search for "a b"', "grep", {"pattern": "a b"}),
        ("grep ^def .*\\? in src/x", "grep", {"pattern": "^def .*\\?", "path": "src/x"}),
        ("read README.md", "view", {"file_path": "README.md", "offset": 0}),
        ("show `src/a.py` lines 10-20", "view", {"offset": 9, "limit": 11}),
        ("cat a.py:7", "view", {"file_path": "a.py", "offset": 6, "limit": 1}),
        ("view a.py, lines 3 to 9", "view", {"file_path": "a.py", "offset": 2, "limit": 7}),
        ("outline a/b.py", "view", {"file_path": "a/b.py", "limit": 5_000}),
        ("list", "ls", {"path": "."}),
        ("list .", "ls", {"path": "."}),
        ("list the files in src", "ls", {"path": "src"}),
        ("TODOs", "grep", {"pattern": r"\b(TODO|FIXME|XXX|HACK)\b"}),
        ("show all open todos and fixmes", "grep", {"pattern": r"\b(TODO|FIXME|XXX|HACK)\b"}),
        ("what changed?", "bash", {"command": "git status --short --branch -- ."}),
        ("show me what has changed recently", "bash", {}),
        ("run `make test; true`", "bash", {"command": "make test; true"}),
        ("run pytest -k 'a?'", "bash", {"command": "pytest -k 'a?'"}),
        ("$ ls", "bash", {"command": "ls"}),
        ('replace "a\nb" with "" in x/y.py', "view", {"file_path": "x/y.py"}),
    ],
)
def test_a_command_begins_with_its_tool(prompt: str, tool: str, some: dict[str, Any]) -> None:
    found, arguments = first_call(prompt)
    assert found == tool
    assert {key: arguments[key] for key in some} == some


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Fix the bug",
        "Survey this repository and fix what is broken",
        "find a way to make all of the tests much faster",
        "find x\nand then rename it",
        "read",
    ],
)
async def test_what_it_cannot_do_fails_with_what_it_can(prompt: str) -> None:
    with pytest.raises(ModelError) as caught:
        await play(Scout(), request(user(prompt), tools=TOOLS))
    assert (caught.value.code, caught.value.retryable) == ("no_language_model", False)
    assert caught.value.title == "No language model"
    for words in (
        "Survey this repository",
        "grep PATTERN",
        "run `COMMAND`",
        'replace "A" with "B"',
    ):
        assert words in caught.value.message


async def test_help_lists_the_commands_and_says_what_it_is() -> None:
    events, end = await play(Scout(), request(user("help"), tools=TOOLS))
    assert "- outline FILE\n" in text_of(events)
    assert text_of(events).endswith(f"\n\n{SAYS}\n")
    assert end.reason == "end_turn"


async def test_it_keeps_nothing_between_requests_and_repeats_itself_exactly() -> None:
    asked = request(user("find foo"), tools=TOOLS)
    first, second = await play(Scout(), asked), await play(Scout(), asked)
    assert first == second
    ids = [event.id for event in first[0] if isinstance(event, ToolCallStart)]
    assert len(set(ids)) == 3
    again, _ = await play(
        Scout(), request(user("find foo", RunId("2")), run_id=RunId("2"), tools=TOOLS)
    )
    assert {event.id for event in again if isinstance(event, ToolCallStart)}.isdisjoint(ids)


async def test_a_tool_that_is_not_there_is_named_in_the_answer() -> None:
    only_glob = [tool for tool in TOOLS if tool.name == "glob"]
    events, _ = await play(Scout(), request(user("find foo"), tools=only_glob))
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["glob"]
    events, end = await play(Scout(), request(user("run ls"), tools=only_glob))
    assert "`ls` was not run: the tool bash is not available in this run" in text_of(events)
    assert end.reason == "end_turn"


@pytest.mark.parametrize("prompt", ["todos", "grep foo", "find foo"])
async def test_a_search_that_was_stopped_is_not_taken_for_one_that_found_nothing(
    prompt: str,
) -> None:
    asked = request(user(prompt), tools=TOOLS)
    calls = [event for event in (await play(Scout(), asked))[0] if isinstance(event, ToolCallEnd)]
    nothing, cut = "No matches found\n\n(The search was stopped after 5 s)", '{"truncated": true}'
    turn = (
        message("assistant", *(ToolCallPart(call.id, "grep", call.input, True) for call in calls)),
        message("tool", *(ToolResultPart(call.id, "grep", nothing, cut) for call in calls)),
    )
    events, _ = await play(Scout(), request(user(prompt), *turn, step=2, tools=TOOLS))
    assert text_of(events).startswith("The search was stopped by its time limit before")


async def test_a_call_without_a_result_counts_as_failed() -> None:
    call = message("assistant", ToolCallPart("c1", "grep", "{}", True))
    events, _ = await play(Scout(), request(user("todos"), call, step=2, tools=TOOLS))
    assert "The search failed: there is no result of grep" in text_of(events)


async def test_a_prompt_steered_into_the_turn_is_answered_after_the_first() -> None:
    call = message("assistant", ToolCallPart("c1", "grep", "{}", True))
    result = message("tool", ToolResultPart("c1", "grep", "No matches found"))
    steered = user("run ls", RunId("other"))
    before = (user("todos"), call, result, steered)
    events, end = await play(Scout(), request(*before, step=2, tools=TOOLS))
    assert end.reason == "tool_use"
    [asked] = [event for event in events if isinstance(event, ToolCallEnd)]
    second = message("assistant", ToolCallPart(asked.id, "bash", asked.input, True))
    done = message("tool", ToolResultPart(asked.id, "bash", "a.py\n\n<cwd>/w</cwd>"))
    events, _ = await play(Scout(), request(*before, second, done, step=3, tools=TOOLS))
    answer = text_of(events)
    assert answer.index("No TODO, FIXME") < answer.index("`ls` ended well\n\n```\na.py\n```")


async def test_earlier_turns_of_the_session_are_not_taken_for_its_own() -> None:
    old = RunId("old")
    earlier = (
        user("todos", old),
        message("assistant", ToolCallPart("c0", "grep", "{}", True), run_id=old),
        message("tool", ToolResultPart("c0", "grep", "No matches found"), run_id=old),
    )
    events, end = await play(Scout(), request(*earlier, user("todos"), tools=TOOLS))
    assert end.reason == "tool_use"
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["grep"]
