"""Requests and questions as people read them, and what they type (G14)."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.cli import asked

BASH: dict[str, Any] = {
    "id": "p",
    "tool_name": "bash",
    "action": "execute",
    "path": "/w",
    "description": "Execute command: make",
    "params": {"command": "make\nls"},
}
CHOICE: dict[str, Any] = {
    "id": "q",
    "type": "single_choice",
    "question": "Which?",
    "description": "Of two.",
    "choices": [{"id": "json", "label": "JSON"}, {"id": "csv", "label": "CSV", "description": "x"}],
}
MANY = CHOICE | {"type": "multi_choice"}
YES_NO: dict[str, Any] = {"id": "q", "type": "yes_no", "question": "Sure?"}
FREE: dict[str, Any] = {"id": "q", "type": "free_text", "question": "What?"}


def test_a_command_is_shown_whole() -> None:
    assert asked.permission_text(BASH) == (
        "bash (execute) in /w: Execute command: make\n    make\n    ls"
    )


def test_what_is_left_out_of_a_long_line_is_told() -> None:
    """G12: nobody allows the end of a command without knowing that there is one."""
    hidden = BASH | {"params": {"command": "make" + " " * 600 + "; rm -rf ."}}
    shown = asked.permission_text(hidden).splitlines()[1]
    assert "rm -rf" not in shown
    assert shown.endswith(" … 114 more characters")


def test_answers_are_as_many_as_questions() -> None:
    """G14: too few would skip what nobody has read; the sentence has the questions."""
    assert asked.as_many([CHOICE, YES_NO], ["1", "y"]) == ""
    for answers in ([], ["1"], ["1", "y", "y"]):
        wrong = asked.as_many([CHOICE, YES_NO], answers)
        assert wrong.startswith(f"{len(answers)} answers for 2 questions")
        assert "2. CSV" in wrong
        assert "Sure?" in wrong


def test_a_change_is_shown_as_a_short_diff() -> None:
    params = {"file_path": "/w/a", "old_content": "a\nb\n", "new_content": "a\nc\n"}
    write = BASH | {"tool_name": "write", "action": "write", "params": params}
    assert asked.permission_text(write).splitlines()[1:] == [
        "    @@ -1,2 +1,2 @@",
        "     a",
        "    -b",
        "    +c",
    ]
    long = write | {"params": {"new_content": "\n".join(map(str, range(1000)))}}
    lines = asked.permission_text(long).splitlines()
    assert len(lines) == asked.DIFF_LINES + 2
    assert lines[-1] == "    … 961 more lines"


def test_nothing_a_model_wrote_reaches_the_terminal_as_a_command() -> None:
    """G12: control sequences and marks that turn text around are gone."""
    evil = "make \x1b[2K\x1b]0;x\x07\u202e tset"
    request = BASH | {
        "description": evil,
        "path": evil,
        "tool_name": evil,
        "params": {"command": evil},
    }
    question = CHOICE | {"question": evil, "description": evil, "choices": [{"label": evil}]}
    for text in (asked.permission_text(request), asked.question_text(question)):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
    row = asked.pending_row("permission", {"request": request, "age_s": 1.0, "deadline_s": 2})
    assert not set("".join(row)) & {"\x1b", "\x07", "\u202e", "\n"}


@pytest.mark.parametrize(
    ("question", "said", "expected"),
    [
        (YES_NO, "y", {"yes": True}),
        (YES_NO, "No", {"yes": False}),
        (YES_NO, "perhaps", None),
        (YES_NO, "", {}),
        (CHOICE, "2", {"selected_ids": ["csv"]}),
        (CHOICE, "json", {"selected_ids": ["json"]}),
        (CHOICE, "1,2", None),
        (CHOICE, "3", None),
        (CHOICE, "XML please", {"fill_in_text": "XML please"}),
        (CHOICE, "-", {}),
        (MANY, "2, 1, 2", {"selected_ids": ["csv", "json"]}),
        (MANY, "0", None),
        (FREE, "42", {"fill_in_text": "42"}),
    ],
)
def test_what_is_typed_becomes_a_response(
    question: dict[str, Any], said: str, expected: dict[str, Any] | None
) -> None:
    found = asked.response(question, said)
    assert found == (None if expected is None else {"request_id": "q"} | expected)


def test_choices_are_numbered() -> None:
    assert asked.question_text(CHOICE) == "Which?\n  Of two.\n  1. JSON\n  2. CSV: x"
