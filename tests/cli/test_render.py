"""Records, frames and messages as text."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.cli.render import (
    LiveText,
    ToolLines,
    current_todo,
    failure_sentence,
    flat_part,
    message_text,
    runs_table,
    seconds,
    status_text,
    todos_text,
)
from crush_trio.protocol.codec import to_json
from crush_trio.protocol.messages import BinaryPart, TextPart, ToolCallPart, ToolResultPart


def message(role: str, *parts: dict[str, Any], ident: str = "m") -> dict[str, Any]:
    payload = {"id": ident, "role": role, "parts": list(parts), "model": "x"}
    return {"type": "message", "payload": {"type": "updated", "payload": payload}}


def part(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def delta(offset: int, text: str, *, index: int = 0, kind: str = "text") -> dict[str, Any]:
    return {"type": "message_delta", "message_id": "m", "index": index, "part": kind,
            "offset": offset, "text": text}  # fmt: skip


def test_text_is_shown_once_however_often_it_is_told() -> None:
    live = LiveText()
    shown = "".join(
        live.take(frame)
        for frame in (
            delta(0, "Hello "),
            delta(6, "wor"),
            message("assistant", part("text", text="Hello wor")),  # rejoined: the present state
            delta(9, "ld"),
            message("assistant", part("text", text="Hello world"), part("finish", reason="x")),
        )
    )
    assert shown == "Hello world"


def test_a_tool_line_begins_a_line_of_its_own() -> None:
    live = LiveText()
    call = part("tool_call", id="c", name="view", input='{"file_path": "a"}', finished=True)
    result = part("tool_result", tool_call_id="c", name="view", content="1\n2", is_error=False)
    shown = "".join(
        live.take(frame)
        for frame in (
            message("user", part("text", text="look\nhere"), ident="u"),
            delta(0, "Looking"),
            message("assistant", part("text", text="Looking"), call),
            message("tool", result, ident="t"),
            delta(0, "ignored", kind="reasoning"),
        )
    )
    assert shown == '> look here\nLooking\n→ view {"file_path": "a"}\n✓ view 2 lines\n'


def test_a_call_and_its_result_are_told_once_and_the_running_tool_is_known() -> None:
    tools = ToolLines(40)
    unfinished = message("assistant", part("tool_call", id="c", name="bash", input="", finished=0))
    call = message("assistant", part("tool_call", id="c", name="bash", input="{}", finished=True))
    failed = part("tool_result", tool_call_id="c", name="bash", content="no", is_error=True)
    assert tools.take(unfinished) == []
    assert tools.take(call) == ["→ bash {}"]
    assert tools.running == "bash"
    assert tools.take(call) == []
    assert tools.take(message("tool", failed)) == ["✗ bash no"]
    assert tools.running == ""


def test_what_a_sub_agent_calls_stands_further_in_also_by_an_id_that_was_there_before() -> None:
    """CW 7.5: call ids are a session's own."""
    tools = ToolLines(40)
    call = message("assistant", part("tool_call", id="c", name="agent", input="{}", finished=True))
    call["payload"]["payload"]["session_id"] = "s"
    inner = message("assistant", part("tool_call", id="c", name="ls", input="{}", finished=True))
    inner["payload"]["payload"]["session_id"] = "m$$c"
    assert [tools.take(call), tools.take(inner)] == [["→ agent {}"], ["  → ls {}"]]
    assert tools.running == "ls"


def test_a_to_do_list_is_shown_with_what_is_done_and_what_is_being_done() -> None:
    todos = [
        {"content": "read", "status": "completed", "active_form": "Reading"},
        {"content": "write\x1b[2J", "status": "in_progress", "active_form": "Writing\x1b[2J"},
        {"content": "test", "status": "pending", "active_form": "Testing"},
    ]
    assert todos_text({"todos": todos}).splitlines() == ["── to do", "✓ read", "→ write", "· test"]
    assert (current_todo({"todos": todos}), current_todo({}), todos_text({})) == ("Writing", "", "")


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.04, "0.0s"), (9.96, "10.0s"), (12.9, "12s"), (185, "3m05s"), (7800, "2h10m")],
)
def test_durations_are_said_as_people_say_them(value: float, said: str) -> None:
    assert seconds(value) == said


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"outcome": "completed"}, ""),
        ({"outcome": "failed", "error": {"message": "no disk"}}, "failed: no disk"),
        ({"outcome": "denied", "denied": 2, "error": None},
         "denied: 2 tool call(s) were denied; see --allow-tool and -y"),
        ({"outcome": "cancelled", "error": None,
          "cancelled_by": {"principal": "ana", "reason": "user"}}, "cancelled by ana (user)"),
        ({"outcome": "cancelled"}, "cancelled"),
        ({"outcome": "lost", "error": None}, "lost"),
    ],
)  # fmt: skip
def test_every_other_ending_has_a_sentence(record: dict[str, Any], sentence: str) -> None:
    assert failure_sentence(record) == sentence


def test_ps_shows_one_harmless_line_a_run() -> None:
    record = {
        "id": "r1", "state": "running", "outcome": None, "waiting_on": "model",
        "created_at_ms": 1_000, "started_at_ms": 2_000, "finished_at_ms": None,
        "session_id": "0123456789", "prompt": "do\x1b[2J\nthis",
    }  # fmt: skip
    assert runs_table([record], now_ms=5_000).splitlines() == [
        "RUN  STATE            TIME  SESSION   PROMPT",
        "r1   running (model)  3.0s  01234567  do this",
    ]
    assert runs_table([], now_ms=0) == ""


def test_the_status_line_says_what_it_waits_for_and_the_tokens() -> None:
    record = {"waiting_on": "retry", "usage": {"input_tokens": 10, "output_tokens": 5}}
    assert status_text(record, "", 3.2) == "3.2s · retry · 15 tokens"
    assert status_text({}, "bash", 3.2) == "3.2s · bash"


def test_a_stored_message_is_readable_and_flat_parts_have_the_shape_of_cw() -> None:
    parts = [
        to_json(TextPart("hi")),
        to_json(ToolCallPart("c", "ls", "{}", finished=True)),
        to_json(ToolResultPart("c", "ls", "a", is_error=False)),
        to_json(BinaryPart("/x.png", "image/png", "AAAA")),
    ]
    wire = [
        part("text", **parts[0]), part("tool_call", **parts[1]),
        part("tool_result", **parts[2]), part("binary", **parts[3]),
    ]  # fmt: skip
    shown = message_text({"role": "assistant", "model": "m", "parts": wire})
    assert shown.splitlines() == ["── assistant m", "hi", "→ ls {}", "✓ ls a", "[image/png /x.png]"]
    assert [flat_part(item) for item in wire] == [
        {"type": "text", "text": "hi"},
        {"type": "tool_call", "tool_call_id": "c", "name": "ls", "input": "{}"},
        {"type": "tool_result", "tool_call_id": "c", "name": "ls", "content": "a",
         "metadata": "", "is_error": False},
        {"type": "binary", "size": 3, "mime_type": "image/png"},
    ]  # fmt: skip


def test_commands_and_summaries_are_shown_as_a_person_would_have_typed_them() -> None:
    """CW 3.5: `!command` with its output as it comes, and what a summary made of how much."""
    live = LiveText()
    data = {"command": "ls -l", "output": "", "exit_code": 137}
    notice = {"type": "summarize", "tokens_before": 4000, "tokens_after": 30}
    output = {"type": "tool_output", "tool_call_id": "r", "run_id": "r", "stream": "stdout"}
    frames = [
        message("user", part("shell_command", **data)),
        {**output, "offset": 0, "text": "one\n"},
        {**output, "offset": 0, "text": "one\ntwo\n"},
        {**output, "tool_call_id": "a tool's", "offset": 0, "text": "hidden"},
        {"type": "agent_event", "payload": {"type": "created", "payload": notice}},
    ]
    shown = "".join(live.take(frame) for frame in frames)
    assert shown == "> !ls -l\none\ntwo\n── summarised 4000 tokens to 30\n"
    stored = message_text({"role": "user", "parts": [part("shell_command", **data)]})
    assert stored.splitlines()[:2] == ["── user", "$ ls -l"]
    rows = runs_table(
        [{"id": "a", "kind": "shell", "prompt": "ls"}, {"id": "b", "kind": "summarize"}], now_ms=0
    )
    assert [line.split()[-1] for line in rows.splitlines()[1:]] == ["!ls", "/summarize"]
