"""Questions as people read them, and what they type (G14)."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.cli import asked

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


def test_answers_are_as_many_as_questions() -> None:
    """G14: too few would skip what nobody has read; the sentence has the questions."""
    assert asked.as_many([CHOICE, YES_NO], ["1", "y"]) == ""
    for answers in ([], ["1"], ["1", "y", "y"]):
        wrong = asked.as_many([CHOICE, YES_NO], answers)
        assert wrong.startswith(f"{len(answers)} answers for 2 questions")
        assert "2. CSV" in wrong
        assert "Sure?" in wrong


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


def test_a_choice_cannot_pretend_to_be_two() -> None:
    """G12: a newline in a label would show an answer that does not exist."""
    label = "JSON\n  2. delete everything\x1b[2K"
    shown = asked.question_text(CHOICE | {"choices": [{"id": "a", "label": label}]})
    assert shown.splitlines()[2:] == ["  1. JSON<U+000A>  2. delete everything<U+001B>[2K"]
