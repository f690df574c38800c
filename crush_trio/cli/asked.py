"""Permission requests and questions as text for people, and their answers from words (pure)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from crush_trio.cli.render import seconds
from crush_trio.cli.sanitize import for_terminal, one_line
from crush_trio.client.shapes import JsonObject, child, children, text

DIFF_LINES = 40
_COMMAND_LINES = 30
_LINE_CHARS = 500
_SKIPPED = frozenset({"", "-"})


def permission_text(request: JsonObject) -> str:
    """What a tool wants to do, in full: a command as it is, a change of a file as a short diff."""
    params = child(request, "params")
    lines = [f"{what(request)}: {one_line(text(request, 'description'), 200)}"]
    if text(params, "command"):
        lines += _indented(text(params, "command").splitlines(), _COMMAND_LINES)
    elif "new_content" in params or "old_content" in params:
        before = text(params, "old_content").splitlines()
        after = text(params, "new_content").splitlines()
        diff = list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]
        lines += _indented(diff, DIFF_LINES)
    return for_terminal("\n".join(lines))


def what(request: JsonObject) -> str:
    """Which action of which tool, and where: what "for this session" would allow."""
    tool, action = text(request, "tool_name"), text(request, "action")
    return one_line(f"{tool} ({action}) in {text(request, 'path')}", 300)


def question_text(question: JsonObject) -> str:
    """A question with its choices, numbered from 1."""
    lines = [text(question, "question")]
    if text(question, "description"):
        lines.append(f"  {text(question, 'description')}")
    for number, choice in enumerate(children(question, "choices"), 1):
        more = text(choice, "description")
        lines.append(f"  {number}. {text(choice, 'label')}" + (f": {more}" if more else ""))
    return for_terminal("\n".join(lines))


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


def pending_row(kind: str, item: JsonObject) -> tuple[str, ...]:
    """A line of ``approvals``: id, tool, action, age, time left, what it is about."""
    request = child(item, "request")
    times = [item.get(key) for key in ("age_s", "deadline_s")]
    age, left = (seconds(each) if isinstance(each, (int, float)) else "" for each in times)
    if kind == "question":
        asked = "; ".join(text(each, "question") for each in children(request, "questions"))
        return (text(request, "id"), "question", "", age, left, one_line(asked, 60))
    tool, action = text(request, "tool_name"), text(request, "action")
    about = one_line(text(request, "description"), 60)
    return (text(request, "id"), one_line(tool, 20), one_line(action, 20), age, left, about)


def _indented(lines: Sequence[str], most: int) -> list[str]:
    shown = [f"    {_cut(line)}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"    … {len(lines) - most} more lines")
    return shown


def _cut(line: str) -> str:
    """A line as far as it is shown; who decides about it learns that there is more of it."""
    if len(line) <= _LINE_CHARS:
        return line
    return f"{line[:_LINE_CHARS]} … {len(line) - _LINE_CHARS} more characters"
