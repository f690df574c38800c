"""Questions as text for people, and their answers from words (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crush_trio.cli.escaped import escaped, lines_of
from crush_trio.client.shapes import JsonObject, children, text

_SKIPPED = frozenset({"", "-"})


def question_text(question: JsonObject) -> str:
    """A question with its choices, numbered from 1."""
    first, *others = lines_of(text(question, "question"))
    lines = [first, *(f"  {line}" for line in others)]
    if text(question, "description"):
        lines += [f"  {line}" for line in lines_of(text(question, "description"))]
    for number, choice in enumerate(children(question, "choices"), 1):
        label, more = (escaped(text(choice, key)) for key in ("label", "description"))
        lines.append(f"  {number}. {label}" + (f": {more}" if more else ""))
    return "\n".join(lines)


def hint(question: JsonObject) -> str:
    """What may be typed."""
    match text(question, "type"):
        case "yes_no":
            return "y or n; empty skips"
        case "single_choice":
            return "a number, or your own words; empty skips"
        case "multi_choice":
            return "numbers with commas, or your own words; empty skips"
    return "your words; empty skips"


def response(question: JsonObject, said: str) -> dict[str, Any] | None:
    """A ``QuestionResponse`` from what was typed; ``None`` if it cannot be one."""
    found: dict[str, Any] = {"request_id": text(question, "id")}
    said = said.strip()
    kind = text(question, "type")
    if said in _SKIPPED:
        return found
    if kind == "yes_no":
        word = said.casefold()
        if word not in ("y", "yes", "n", "no"):
            return None
        return found | {"yes": word in ("y", "yes")}
    choices = [text(choice, "id") for choice in children(question, "choices")]
    picked = _picked(said, choices)
    if kind in ("single_choice", "multi_choice") and picked is not None:
        if not picked or (kind == "single_choice" and len(picked) > 1):
            return None
        return found | {"selected_ids": picked}
    return found | {"fill_in_text": said}


def _picked(said: str, choices: Sequence[str]) -> list[str] | None:
    """The choices with these numbers or ids; empty if one does not exist, ``None`` if no list."""
    words = [word.strip() for word in said.split(",")]
    if all(word in choices for word in words):
        return list(dict.fromkeys(words))
    if not all(word.isascii() and word.isdigit() for word in words):
        return None
    numbers = [int(word[:3]) for word in words]
    if not all(1 <= number <= len(choices) for number in numbers):
        return []
    return [choices[number - 1] for number in dict.fromkeys(numbers)]


def as_many(questions: Sequence[JsonObject], answers: Sequence[str]) -> str:
    """What is wrong with the number of ``answers``, with the questions themselves; else nothing."""
    if len(answers) == len(questions):
        return ""
    lines = [f"{len(answers)} answers for {len(questions)} questions; - skips one"]
    for question in questions:
        lines += [question_text(question), f"  ({hint(question)})"]
    return "\n".join(lines)
