"""Text that a person decides about, shown as it is: nothing acts, hides or reorders (pure).

`sanitize` takes what is dangerous out of text that is read; here it is made visible instead, so
that what is shown can only be one thing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_MARK: Final = "<U+"
_LITERAL_MARK: Final = "<U+003C>U+"
_NAMED: Final = 5  # letters that are named; further ones of a text tell nobody more
# Letters and marks that have no picture: Hangul fillers, the blank of Braille, the joiner and the
# selectors that change what stands before them.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def escaped(text: str, *, tabs: bool = False) -> str:
    """``text`` on one line with every character visible: others become ``<U+202E>``.

    Those are controls (newlines among them), marks of direction, characters of no width, spaces
    other than the usual one, and what Unicode has not assigned. ``<U+`` itself becomes
    ``<U+003C>U+``, so that no two texts look alike. With ``tabs`` a tab stays.
    """
    text = text.replace(_MARK, _LITERAL_MARK)
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(
        char if _is_seen(char) or (tabs and char == "\t") else f"<U+{ord(char):04X}>"
        for char in text
    )


def _is_seen(char: str) -> bool:
    return char.isprintable() and not _UNSEEN.match(char)


def lines_of(text: str) -> list[str]:
    """``text`` as lines, each `escaped` with its tabs; only a newline begins one."""
    return [escaped(line, tabs=True) for line in text.split("\n")]


def shortened(text: str, width: int, more: str) -> str:
    """``text`` escaped, on a line of at most ``width`` characters; if cut, it ends in ``more``."""
    line = escaped(text[: width + 1])
    return line if len(line) <= width else line[: max(0, width - len(more))] + more


def lookalikes(text: str) -> str:
    """The letters of other scripts that stand in words with Latin ones; empty if there are none.

    A Cyrillic letter in a command looks like a Latin one and names another program.
    """
    found: dict[str, None] = {}
    for word in re.findall(r"\w+", text):
        if re.search("[A-Za-z]", word):
            found |= dict.fromkeys(c for c in word if c.isalpha() and not _is_latin(c))
    named = [f"{c} (U+{ord(c):04X} {unicodedata.name(c, '?')})" for c in list(found)[:_NAMED]]
    return ", ".join(named)


def _is_latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(char, "").startswith("LATIN ")


def folded(lines: Iterable[str], columns: int) -> list[str]:
    """``lines`` cut into rows of at most ``columns`` cells; what goes on is marked with ``↳``."""
    rows: list[str] = []
    for line in lines:
        if len(line) <= columns and line.isascii() and "\t" not in line:
            rows.append(line)
            continue
        row, used = "", 0
        for char in line:
            cells = _cells(char, used)
            if used + cells > columns and row:
                rows.append(row)
                row, used = "    ↳ ", 6
                cells = _cells(char, used)
            row += char
            used += cells
        rows.append(row)
    return rows


def _cells(char: str, at: int) -> int:
    if char == "\t":
        return 8 - at % 8
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
