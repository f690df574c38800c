"""The lines of a .gitignore file, as git reads them, applied to the names of a directory at once.

They are foreign, so they become expressions of linear time (`Linear`). As in git a byte is a
character, and a line that is no pattern is none: it ignores nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence

from crush_trio.tools.search.linear import Linear, PatternError, escaped

TOGETHER = 200  # patterns in one expression; if they are too large for that, each has its own
_POSIX: dict[bytes, Callable[[bytes], bool]] = {
    b"alnum": bytes.isalnum,
    b"alpha": bytes.isalpha,
    b"blank": lambda one: one in b" \t",
    b"cntrl": lambda one: one < b" " or one == b"\x7f",
    b"digit": bytes.isdigit,
    b"graph": lambda one: b"!" <= one <= b"~",
    b"lower": bytes.islower,
    b"print": lambda one: b" " <= one <= b"~",
    b"punct": lambda one: b"!" <= one <= b"~" and not one.isalnum(),
    b"space": bytes.isspace,
    b"upper": bytes.isupper,
    b"xdigit": lambda one: one in b"0123456789abcdefABCDEF",
}
_PART = re.compile(rb"\\.|\*+|\?|\[|[^\\*?\[]+|\\", re.DOTALL)


class IgnoreLines:
    """What one .gitignore says about paths relative to its directory."""

    __slots__ = ("_runs",)

    def __init__(self, data: bytes) -> None:
        rules = [_rule(line) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        good = [rule for rule in reversed(rules) if rule is not None]
        # Neighbours that say the same are asked together; the last line decides.
        self._runs = [
            (ignores, regex)
            for ignores, several in itertools.groupby(good, key=lambda rule: rule[0])
            for regex in _regexes([pattern for _, pattern in several])
        ]

    def __bool__(self) -> bool:
        """Whether any of its lines is a pattern."""
        return bool(self._runs)

    def decide(self, above: str, names: Sequence[str], decided: dict[str, bool]) -> None:
        """Note in ``decided`` which of ``names`` it ignores or keeps, unless that is decided.

        Args:
            above: What stands before each name in its path: empty, or with ``/`` at the end.
            names: Those in one directory; directories end with ``/``. A NUL stands for a line
                feed.
        """
        above = above.replace("\n", "\0")
        text = os.fsencode(above + f"\n{above}".join(names))
        for ignores, regex in self._runs:
            if found := regex.lines(text):
                lines = {os.fsdecode(line) for line in found}
                for name in names:
                    if above + name in lines:
                        decided.setdefault(name, ignores)

    def ignores(self, path: str) -> bool:
        """Whether it ignores this path, or a directory above it; ``/`` ends a directory's path."""
        parts = path.replace("\n", "\0").split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth]) + ("/" if depth < len(parts) else "")
            decided: dict[str, bool] = {}
            self.decide("", [name], decided)
            if True in decided.values():
                return True
        return False


@functools.lru_cache(maxsize=256)
def ignore_line(line: str) -> IgnoreLines:
    """One line, kept: permission patterns are such lines, and are asked about at every call."""
    return IgnoreLines(os.fsencode(line))


def _regexes(patterns: list[str]) -> Iterable[Linear]:
    for at in range(0, len(patterns), TOGETHER):
        several = patterns[at : at + TOGETHER]
        try:
            yield _joined(several)
        except PatternError:
            for pattern in several:
                try:
                    yield _joined([pattern])
                except PatternError:
                    continue  # too large to be meant


def _joined(patterns: Iterable[str]) -> Linear:
    return Linear(f"^(?:{'|'.join(patterns)})$", utf8=False)


def _rule(line: bytes) -> tuple[bool, str] | None:
    """Whether a line ignores, and an expression for the paths; ``None`` if it is no pattern."""
    line = _without_blanks(line.removesuffix(b"\r"))
    if not line or line.startswith(b"#"):
        return None
    ignores = not line.startswith(b"!")
    line = line if ignores else line[1:]
    end = "/" if line.endswith(b"/") else "/?"
    line = line.removesuffix(b"/")
    anywhere = "" if b"/" in line else "(?:.*/)?"
    body = _body(line.removeprefix(b"/"))
    return None if not body else (ignores, f"{anywhere}{body}{end}")


def _without_blanks(line: bytes) -> bytes:
    """The line without blanks at its end, unless a backslash keeps them."""
    stripped = line.rstrip(b" ")
    kept = len(stripped) - len(stripped.rstrip(b"\\"))
    return stripped + b" " if kept % 2 and stripped != line else stripped


def _body(line: bytes) -> str | None:
    out: list[str] = []
    at = 0
    first_special = next((n for n, byte in enumerate(line) if byte in b"*?[\\"), len(line))
    while at < len(line):
        match = _PART.match(line, at)
        assert match is not None  # it matches any byte
        # Git compares what stands before the first special sign by itself: behind it ``**`` counts
        # as at the beginning.
        begins = at == first_special or line[at - 1 : at] == b"/"
        part, at = match[0], match.end()
        if part == b"\\":
            return None  # nothing follows it
        if part == b"[":
            found = _class(line, at)
            if found is None:
                return None
            one, at = found
            out.append(one)
        elif part == b"?":
            out.append("[^/]")
        elif part.startswith(b"*"):
            if len(part) == 1 or not begins or line[at : at + 1] not in (b"", b"/"):
                out.append("[^/]*")
            elif at == len(line):  # everything inside, not the directory itself
                out.append("[^/].*" if line[: at - len(part)].endswith(b"/") else ".*")
            else:
                out.append("(?:.*/)?")
                at += 1
        else:
            out.append(escaped((part[1:] if part.startswith(b"\\") else part).decode("latin-1")))
    return "".join(out)


def _class(line: bytes, at: int) -> tuple[str, int] | None:
    """The bytes between brackets, and where the pattern goes on; ``None`` if they never end."""
    negated = line[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    previous = -1
    first = True
    while first or line[at : at + 1] != b"]":
        first = False
        if at >= len(line):
            return None
        here = line[at]
        name = re.compile(rb"\[:([^\]]*):\]").match(line, at)
        if here == 0x2D and previous >= 0 and line[at + 1 : at + 2] not in (b"", b"]"):
            at += 1 + (line[at + 1] == 0x5C)
            if at >= len(line):
                return None
            members |= set(range(previous, line[at] + 1))
            previous = -1
        elif name is not None:
            if name[1] not in _POSIX:
                return None
            members |= {one for one in range(128) if _POSIX[name[1]](bytes([one]))}
            at, previous = name.end() - 1, -1
        else:
            at += here == 0x5C
            if at >= len(line):
                return None
            members.add(line[at])
            previous = line[at]
        at += 1
    chosen = sorted((set(range(256)) - members if negated else members) - {0x0A, 0x2F})
    inside = "".join(f"\\x{one:02x}" for one in chosen)
    return (f"[{inside}]" if inside else "[^\\x00-\\xff]"), at + 1
