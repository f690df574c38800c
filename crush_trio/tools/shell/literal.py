"""Shell commands that mean exactly their words: one program, nothing expanded, nothing joined."""

from __future__ import annotations

import re
from typing import Final

_NEVER: Final = frozenset("\0\n\r\v\f")
"""Not even inside quotes: a second line, or white space a shell does not see as such."""

_SPECIAL: Final = frozenset(";&|<>()$`\\{}[]*?#!'\"")
_SPECIAL_IN_DOUBLE: Final = frozenset("$`\\!")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


def literal_argv(command: str) -> tuple[str, ...] | None:
    """The words of a command a shell would run as one program with exactly these arguments.

    ``None`` for everything else: operators, redirections, expansions, globs, comments, history,
    escapes, variable assignments, several lines, unbalanced quotes, control characters. It is
    stricter than a shell on purpose: a ``None`` only costs a question.
    """
    if any(char in _NEVER or (char < " " and char != "\t") or char == "\x7f" for char in command):
        return None
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(command):
        char = command[at]
        if char in " \t":
            if word is not None:
                words.append(word)
            word = None
            at += 1
        elif char in "'\"":
            end = command.find(char, at + 1)
            inside = command[at + 1 : end]
            if end < 0 or (char == '"' and _SPECIAL_IN_DOUBLE & set(inside)):
                return None
            word = (word or "") + inside
            at = end + 1
        elif char in _SPECIAL or (char == "~" and _expands_tilde(word)):
            return None
        else:
            word = (word or "") + char
            at += 1
    if word is not None:
        words.append(word)
    if not words or not words[0] or _ASSIGNMENT.match(words[0]):
        return None
    return tuple(words)


def _expands_tilde(word: str | None) -> bool:
    """Whether a ``~`` after this much of a word may mean a home directory."""
    return not word or word[-1] in "=:"
