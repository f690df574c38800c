"""Shell commands that mean exactly their words: one program, nothing expanded, nothing joined."""

from __future__ import annotations

import re
from typing import Final

_NEVER: Final = re.compile(r"[\x00-\x08\n-\x1f\x7f]")
"""Not even inside quotes: control characters, among them a second line, and white space a shell
does not see as such."""

_SPECIAL: Final = frozenset(";&|<>()$`\\{}[]*?#!'\"")
_SPECIAL_IN_DOUBLE: Final = frozenset("$`\\!")
_ENDS_A_RUN: Final = re.compile(r"[ \t~;&|<>()$`\\{}\[\]*?#!'\"]")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


def literal_argv(command: str) -> tuple[str, ...] | None:
    """The words of a command a shell would run as one program with exactly these arguments.

    ``None`` for everything else: operators, redirections, expansions, globs, comments, history,
    escapes, variable assignments, several lines, unbalanced quotes, control characters. It is
    stricter than a shell on purpose: a ``None`` only costs a question.
    """
    if _NEVER.search(command):
        return None
    words: list[str] = []
    word: list[str] | None = None  # joined at its end: a long one takes linear time
    at = 0
    while at < len(command):
        char = command[at]
        if char in " \t":
            if word is not None:
                words.append("".join(word))
            word = None
            at += 1
        elif char in "'\"":
            end = command.find(char, at + 1)
            inside = command[at + 1 : end]
            if end < 0 or (char == '"' and _SPECIAL_IN_DOUBLE & set(inside)):
                return None
            word = _added(word, inside)
            at = end + 1
        elif char in _SPECIAL or (char == "~" and _expands_tilde(word)):
            return None
        else:
            found = _ENDS_A_RUN.search(command, at + 1)
            end = found.start() if found is not None else len(command)
            word = _added(word, command[at:end])
            at = end
    if word is not None:
        words.append("".join(word))
    if not words or not words[0] or _ASSIGNMENT.match(words[0]):
        return None
    return tuple(words)


def _added(word: list[str] | None, piece: str) -> list[str]:
    """A word with one more piece; empty pieces count for nothing but that there is a word."""
    word = [] if word is None else word
    if piece:
        word.append(piece)
    return word


def _expands_tilde(word: list[str] | None) -> bool:
    """Whether a ``~`` after this much of a word may mean a home directory."""
    return not word or word[-1][-1] in "=:"
