"""Replacing text in text: exactly, else forgiving about white space."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

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
TOLERANT_NOTE = "Note: old_string matched only after ignoring differences in whitespace."


@attrs.frozen
class Edited:
    """Text after an edit, and whether the match had to ignore white space."""

    text: str
    tolerant: bool = False


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
    lines, wanted = text.split("\n"), old.strip("\n").split("\n")
    whole = not lines[-1] and bool(lines.pop() == "")  # the last line is ended, too
    if not any(line.strip() for line in wanted):
        raise ToolProblem(NOT_FOUND)
    for strip in (str.rstrip, str.strip):
        first = _only_place(map(strip, lines), map(strip, wanted))
        if first is not None:
            behind = first + len(wanted)
            here = lines[first:behind]
            ended = whole or behind < len(lines)
            begin = sum(map(len, lines[:first])) + first
            end = begin + sum(map(len, here)) + len(here) - (not ended)
            body = _indented_like(new.strip("\n"), wanted, here)
            body += "\n" if ended and body else ""
            if here[0].endswith("\r"):  # of a file with mixed line ends: those of the place count
                body = body.replace("\n", "\r\n")
            return Edited(text[:begin] + body + text[end:], tolerant=True)
    raise ToolProblem(NOT_FOUND)


def _only_place(lines: Iterable[str], wanted: Iterable[str]) -> int | None:
    """The number of the line at which ``wanted`` stands in ``lines``; ``None`` if it does not.

    As a search in text, which takes time in proportion to it, however alike the lines are.

    Raises:
        ToolProblem: It stands there more than once.
    """
    text, goal = ("\n".join(["", *some, ""]) for some in (lines, wanted))
    at = text.find(goal)
    if at < 0:
        return None
    if text.find(goal, at + 1) >= 0:
        raise ToolProblem(AMBIGUOUS)
    return text.count("\n", 0, at)


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
