"""Regular expressions that take time in proportion to the text, whatever the pattern.

The patterns come from models, clients and repositories. Python's `re` may take hours for thirty
characters, and nothing can stop it; RE2 makes an automaton instead. It has no look-around, no
back-references and no possessive quantifiers. ``.``, ``(?i)`` and classes such as ``\\p{L}`` know
Unicode; ``\\w``, ``\\d``, ``\\s`` and ``\\b`` know ASCII only.
"""

from __future__ import annotations

import re

import re2  # type: ignore[import-untyped]  # it comes without types

from crush_trio.limits import PATTERN_CHARS, PATTERN_MEMORY_BYTES

_ADVICE = (
    (b"(?=", "look-ahead is not supported; search for a simpler pattern and look at its lines"),
    (b"(?!", "look-ahead is not supported; search for a simpler pattern and look at its lines"),
    (b"(?<=", "look-behind is not supported; search for a simpler pattern and look at its lines"),
    (b"(?<!", "look-behind is not supported; search for a simpler pattern and look at its lines"),
    (b"(?>", "atomic groups are not supported; a plain group (?:...) finds the same lines or more"),
    (b"(?x", "the flag x is not supported; write the pattern without blanks and comments"),
)


_OF_THE_WHOLE = re.compile(r"\\[Az]|\(\?[a-zA-Z]*-")  # ``\A``, ``\z``, a flag switched off


class PatternError(ValueError):
    """No regular expression of this kind; the text is a sentence that says what to do."""


def escaped(text: str) -> str:
    """A pattern for exactly this text."""
    return str(re2.escape(text))


class Linear:
    """A compiled pattern for bytes; lines are searched one by one, and never more than one.

    Args:
        pattern: What to look for. ``^`` and ``$`` are the ends of a line, and nothing in it matches
            a line feed.
        utf8: Whether text and pattern are UTF-8, or each byte a character (as for git). A byte
            that is no UTF-8 is matched by nothing.

    Raises:
        PatternError: The pattern is malformed, too long or too large.
    """

    __slots__ = ("_regex", "by_line")

    def __init__(self, pattern: str, *, utf8: bool = True) -> None:
        if len(pattern) > PATTERN_CHARS:
            raise PatternError(f"the pattern is longer than {PATTERN_CHARS} characters; shorten it")
        self.by_line = _OF_THE_WHOLE.search(pattern) is None
        """Whether a line is found or not whatever text it stands in."""
        options = re2.Options()
        options.max_mem = PATTERN_MEMORY_BYTES
        options.never_nl = True
        options.never_capture = True
        options.log_errors = False
        if not utf8:
            options.encoding = re2.Options.Encoding.LATIN1
        data = f"(?m){pattern}".encode("utf-8" if utf8 else "latin-1", "replace")
        try:
            self._regex = re2.compile(data, options)
        except re2.error as problem:
            raise PatternError(_sentence(problem)) from problem

    def find(self, data: bytes, at: int = 0) -> tuple[int, int]:
        """Begin and end of the first match at or after ``at``; ``(-1, -1)`` if there is none."""
        match = self._regex.search(data, at)
        return (-1, -1) if match is None else match.span()

    def covers(self, data: bytes) -> bool:
        """Whether it matches the whole of ``data``, which is one line."""
        return self._regex.fullmatch(data) is not None

    def lines(self, data: bytes) -> set[bytes]:
        """The lines in ``data`` that match, for a pattern from ``^`` to ``$``."""
        spans = (match.span() for match in self._regex.finditer(data))
        return {data[begin:end] for begin, end in spans}


def _sentence(problem: Exception) -> str:
    said = problem.args[0] if problem.args else b""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    for sign, advice in _ADVICE:
        if text.encode().endswith(sign):
            return f"the pattern cannot be used: {advice}"
    if text.startswith("invalid escape sequence: \\") and text[-1:].isdigit():
        return (
            "the pattern cannot be used: back-references are not supported; write out what they "
            "stand for"
        )
    if "too large" in text or "repetition size" in text:
        return f"the pattern cannot be used: it is too large ({text}); repeat less"
    return f"the pattern is not a regular expression: {text}"
