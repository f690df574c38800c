"""Replacing text in text: exactly, else forgiving about white space; and what that changed."""

from __future__ import annotations

import difflib
import re

import attrs

from crush_trio.limits import DIFF_LINES
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.files.text_file import TextFile

NOT_FOUND = (
    "old_string not found in file. Make sure it matches exactly, including whitespace and line "
    "breaks"
)
AMBIGUOUS = (
    "old_string appears multiple times in the file. Give more context to make it unique, or set "
    "replace_all to true"
)
NO_CHANGE = "the new content is the same as the old content; nothing was changed"
_CONTEXT = 3  # lines shown around a change
TOLERANT_NOTE = "Note: old_string matched only after ignoring differences in whitespace."


@attrs.frozen
class Edited:
    """Text after an edit, and whether the match had to ignore white space."""

    text: str
    tolerant: bool = False


@attrs.frozen
class Difference:
    """Lines added and removed between two texts, and a unified diff unless it is too large."""

    additions: int
    removals: int
    diff: str


def replace_once(text: str, old: str, new: str, *, everywhere: bool = False) -> Edited:
    """Replace the one place where ``old`` stands, or all of them.

    Raises:
        ToolProblem: ``old`` is not there, or more than once; or nothing would change.
    """
    if not old:
        raise ToolProblem("old_string is empty: that only creates a file which does not exist")
    count = text.count(old)
    if count > 1 and not everywhere:
        raise ToolProblem(AMBIGUOUS)
    edited = Edited(text.replace(old, new)) if count else _replace_tolerant(text, old, new)
    if edited.text == text:
        raise ToolProblem(NO_CHANGE)
    return edited


def edit_file(file: TextFile, old: str, new: str, *, everywhere: bool = False) -> Edited:
    """`replace_once` in a file's text, keeping its kind of line ends.

    Raises:
        ToolProblem: As `replace_once`.
    """
    if file.crlf:
        plain = file.text.replace("\r\n", "\n")
        old, new = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
        edited = replace_once(plain, old, new, everywhere=everywhere)
        return attrs.evolve(edited, text=edited.text.replace("\n", "\r\n"))
    if "\r\n" in file.text and old not in file.text:  # mixed line ends: those of the place count
        with_cr = old.replace("\r\n", "\n").replace("\n", "\r\n")
        if with_cr in file.text:
            old, new = with_cr, new.replace("\r\n", "\n").replace("\n", "\r\n")
    return replace_once(file.text, old, new, everywhere=everywhere)


def _replace_tolerant(text: str, old: str, new: str) -> Edited:
    """Replace the only run of whole lines that equals ``old`` but for white space at line ends.

    First trailing white space is ignored, then the indentation, too, if all lines differ by the
    same one; the new lines are then indented like the place.
    """
    lines = split_lines(text)
    wanted = old.strip("\n").split("\n")
    if not any(line.strip() for line in wanted):
        raise ToolProblem(NOT_FOUND)
    for strip in (str.rstrip, str.strip):
        keys = [strip(line) for line in lines]
        goal = [strip(line) for line in wanted]
        places = [
            at for at in range(len(keys) - len(goal) + 1) if keys[at : at + len(goal)] == goal
        ]
        if len(places) > 1:
            raise ToolProblem(AMBIGUOUS)
        if places:
            end = places[0] + len(goal)
            here = lines[places[0] : end]
            body = _indented_like(new.strip("\n"), wanted, here)
            tail = "\n" if here[-1].endswith("\n") and body else ""
            return Edited("".join([*lines[: places[0]], body, tail, *lines[end:]]), tolerant=True)
    raise ToolProblem(NOT_FOUND)


def _indented_like(new: str, wanted: list[str], here: list[str]) -> str:
    """``new`` with the indentation that ``here`` has and ``wanted`` has not, or the reverse."""
    pairs = [(w, h) for w, h in zip(wanted, here, strict=True) if w.strip()]
    ours, theirs = _indent(pairs[0][0]), _indent(pairs[0][1])
    if ours == theirs:
        return new
    out = []
    for line in new.split("\n"):
        changed = theirs + line.removeprefix(ours) if line.startswith(ours) else line
        out.append(changed if line.strip() else line)
    return "\n".join(out)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def difference(path: str, before: str, after: str) -> Difference:
    """What changed between two texts. May take a second: call it in a worker thread."""
    old, new = split_lines(before), split_lines(after)
    shortest = min(len(old), len(new))
    head = next((i for i in range(shortest) if old[i] != new[i]), shortest)
    rest = shortest - head
    tail = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    removals, additions = len(old) - head - tail, len(new) - head - tail
    if removals + additions > DIFF_LINES:
        return Difference(additions, removals, f"(over {DIFF_LINES} lines: no diff was made)\n")
    # Only the part that differs is compared, with the context a hunk shows around it.
    skipped, end = max(0, head - _CONTEXT), max(0, tail - _CONTEXT)
    lines = list(
        difflib.unified_diff(
            old[skipped : len(old) - end], new[skipped : len(new) - end], f"a/{path}", f"b/{path}"
        )
    )
    body = [_moved(line, skipped) for line in lines[2:]]
    return Difference(
        sum(line.startswith("+") for line in body),
        sum(line.startswith("-") for line in body),
        "".join(map(_ended, lines[:2] + body)),
    )


def _moved(line: str, by: int) -> str:
    """A hunk's header with both its line numbers moved; other lines as they are."""
    if not line.startswith("@@"):
        return line
    return re.sub(r"([-+])(\d+)", lambda m: f"{m[1]}{int(m[2]) + by}", line)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def split_lines(text: str) -> list[str]:
    """Lines with their ends; only a newline ends one, as in editors and git."""
    *lines, last = text.split("\n")
    ended = [f"{line}\n" for line in lines]
    return [*ended, last] if last else ended
