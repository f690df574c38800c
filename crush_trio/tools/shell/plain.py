"""Command lines that mean exactly what they show: literal words, joined in the plainest ways.

This is a small part of the shell's language, read so strictly that there is nothing to expand,
to match or to evaluate: what a word says is what a program gets. `grammar.agrees` reads the same
line with a real grammar; both must see the same.
"""

from __future__ import annotations

import re
import string
from typing import Final

import attrs


def words(text: str) -> frozenset[str]:
    """The words of a line, for tables."""
    return frozenset(text.split())


_BLANK: Final = " \t"
_BARE: Final = frozenset(string.ascii_letters + string.digits + "_@%+=:,./-^")
"""ASCII characters that mean themselves wherever they stand outside of quotes."""

_ESCAPED: Final = frozenset(string.punctuation + " ")
"""What a backslash outside of quotes may stand before: it then means itself."""

_ESCAPED_IN_DOUBLE: Final = frozenset('$`"\\')
_REDIRECT: Final = re.compile(r"(?P<fd>[0-9]?)(?P<operator>&>>|&>|>>|>\||>&|>|<)(?![<>&(|])[ \t]*")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_RESERVED: Final = words(
    "! [[ ]] { } case coproc do done elif else esac fi for function if in select then time until "
    "while"
)
JOINTS: Final = (";", "&&", "||", "|")
"""What may stand between two commands; the end of a line counts as ``;``."""


class NotPlain(Exception):
    """The line is not of this kind; the text names the first thing that is not."""


@attrs.frozen
class Redirect:
    """A redirection of ``fd`` with ``operator`` to the file, or for ``>&`` the descriptor."""

    fd: int
    operator: str
    target: str

    @property
    def path(self) -> str | None:
        """The file that is opened for writing, if one is."""
        if self.operator in {"<", ">&"} or self.target == "/dev/null":
            return None
        return self.target

    @property
    def harmless(self) -> bool:
        """Whether it opens nothing but ``/dev/null``, or repeats stdout or stderr."""
        if self.operator == ">&":
            return self.fd in {1, 2} and self.target in {"1", "2"}
        return self.target == "/dev/null" and self.fd in {0, 1, 2}


@attrs.frozen
class Step:
    """One simple command; ``joint`` is what stands before it, empty for the first."""

    joint: str
    argv: tuple[str, ...]
    redirects: tuple[Redirect, ...] = ()


def read_plain(text: str) -> tuple[Step, ...]:
    """The commands of a plain line, in order; at least one.

    Raises:
        NotPlain: The line has an expansion, a glob, an assignment, a here-document, a background
            job, a group, a keyword, a comment, a control character, white space a shell does not
            see as such, or anything else that is more than literal words and `JOINTS`.
    """
    return _Reader(text).steps()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def steps(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        joint = ""
        self._skip(_BLANK + "\n")
        while self._at < len(self._text):
            steps.append(self._step(joint))
            joint = self._joint()
            if joint != ";" and self._at >= len(self._text):
                raise NotPlain("an operator at its end")
        if not steps:
            raise NotPlain("a line without a command")
        return tuple(steps)

    def _joint(self) -> str:
        """Past what follows a command; at the end of the text it is ``;``."""
        rest = self._text[self._at : self._at + 2]
        if rest in {"&&", "||"}:
            found = rest
        elif rest[:1] in {"\n", ";"} and rest not in {";;", ";&"}:
            found = ";"
        elif rest[:1] == "|" and rest != "|&":
            found = "|"
        elif not rest:
            return ";"
        else:
            raise NotPlain(f"the operator {rest.strip()!r}")
        self._at += 1 if self._text[self._at] == "\n" else len(found)
        self._skip(_BLANK + "\n")
        return found

    def _step(self, joint: str) -> Step:
        words: list[str] = []
        redirects: list[Redirect] = []
        while self._at < len(self._text) and self._text[self._at] not in ";|\n":
            if self._text.startswith("&&", self._at):
                break
            match = _REDIRECT.match(self._text, self._at)
            if match is not None:
                if not words:
                    raise NotPlain("a redirection in front of a command")
                redirects.append(self._redirect(match))
            else:
                words.append(self._word(first=not words))
            self._skip(_BLANK)
        if not words:
            raise NotPlain("an operator without a command")
        if not words[0] or _ASSIGNMENT.match(words[0]):
            raise NotPlain("an assignment")
        if words[0].startswith("%"):  # in quotes too
            raise NotPlain("a job of the shell")
        return Step(joint, tuple(words), tuple(redirects))

    def _redirect(self, match: re.Match[str]) -> Redirect:
        self._at = match.end()
        operator = match["operator"]
        if operator.startswith("&") and match["fd"]:
            raise NotPlain(f"the redirection {match[0].strip()!r}")
        target = self._word(first=False)
        if operator == ">&" and not re.fullmatch("[0-9]", target):
            raise NotPlain("a redirection to a descriptor that is no digit")
        return Redirect(int(match["fd"] or (operator != "<")), operator, target)

    def _skip(self, chars: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in chars:
            self._at += 1

    def _word(self, *, first: bool) -> str:
        began = self._at
        word = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in " \t\n;|" or self._text.startswith("&&", self._at):
                break
            if char == "'":
                word += self._single()
            elif char == '"':
                word += self._double()
            elif char == "\\":
                word += self._escaped()
            elif (
                char in _BARE
                or (ord(char) > 127 and char.isalnum())
                or self._stands_for_itself(char, began)
            ):
                word += char
                self._at += 1
            else:
                raise NotPlain(f"the character {char!r}")
        raw = self._text[began : self._at]
        if not raw:
            raise NotPlain("a word is missing")
        if first and raw in _RESERVED:
            raise NotPlain(f"the word {raw!r}")
        return word

    def _stands_for_itself(self, char: str, began: int) -> bool:
        """Whether a character that may be special is not, where it stands."""
        before = self._text[self._at - 1] if self._at > began else ""
        after = self._text[self._at + 1 : self._at + 2]
        if char == "~":
            return before not in {"", "=", ":"}
        if char == "#":
            return before != ""
        if char in "[]":  # as the program's name and its last word; else it may be a glob
            return before == "" and (after == "" or after in " \t\n;|&")
        return char == "!"

    def _single(self) -> str:
        return self._quoted("'", frozenset())

    def _double(self) -> str:
        return self._quoted('"', _ESCAPED_IN_DOUBLE)

    def _quoted(self, quote: str, escaped: frozenset[str]) -> str:
        inside = ""
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == quote:
                return inside
            if not (char.isprintable() or char == "\t"):
                raise NotPlain(f"the character {char!r}")
            if escaped and char in "$`":
                raise NotPlain("an expansion in quotes")
            if escaped and char == "\\" and self._text[self._at : self._at + 1] in escaped:
                char = self._text[self._at : self._at + 1]
                self._at += 1
            inside += char
        raise NotPlain("quotes that do not end")

    def _escaped(self) -> str:
        char = self._text[self._at + 1 : self._at + 2]
        if char not in _ESCAPED:
            raise NotPlain("a backslash")
        self._at += 2
        return char
