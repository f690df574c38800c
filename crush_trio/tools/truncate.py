"""Text cut to a number of display columns: its first and its last half."""

from __future__ import annotations

import unicodedata


def columns_of(char: str) -> int:
    """How many columns a terminal gives this character; a newline takes one."""
    if char < "\x7f":
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def truncate(text: str, columns: int, *, more_lines: int = 0) -> str:
    """``text``, or its first and last ``columns / 2`` with the lines between counted (CW 7.3).

    Args:
        more_lines: Lines that had been dropped from the middle before.
    """
    if len(text) * 2 <= columns or (len(text) <= columns and text.isascii()):
        return text
    if sum(map(columns_of, text)) <= columns:
        return text
    head = _prefix(text, columns // 2)
    tail = _prefix(text[::-1], columns // 2)[::-1]
    middle = text[len(head) : len(text) - len(tail)]
    lines = middle.count("\n") + more_lines
    return f"{head}\n\n... [{lines} lines truncated] ...\n\n{tail}"


def _prefix(text: str, columns: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += columns_of(char)
        if used > columns:
            return text[:at]
    return text
