"""Glob patterns as regular expressions of linear time; the patterns come from models."""

from __future__ import annotations

from crush_trio.tools.search.linear import Linear, escaped


class Glob:
    """Matches whole relative paths: ``*`` and ``?`` within a component, ``**`` across them.

    ``[a-z]`` and ``{one,two}`` work as in a shell; an unbalanced bracket means itself.

    Raises:
        PatternError: It is too long or too large.
    """

    __slots__ = ("_linear",)

    def __init__(self, glob: str) -> None:
        self._linear = Linear(f"^(?:{_translate(glob.removeprefix('./'))})$")

    def matches(self, path: str) -> bool:
        """Whether the path matches; what is no UTF-8 in its name counts as ``?``."""
        return self._linear.covers(_searchable(path))

    def among(self, paths: list[str]) -> list[bool]:
        """The same for many paths at once, in their order."""
        lines = [_searchable(path) for path in paths]
        found = self._linear.lines(b"\n".join(lines))
        return [line in found for line in lines] if found else [False] * len(lines)


def _searchable(path: str) -> bytes:
    return path.encode("utf-8", "replace").replace(b"\n", b"\0")


def _translate(glob: str) -> str:
    out = []
    at = depth = 0
    last_brace = glob.rfind("}")
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*" and glob.startswith("*", at):
            at += 1
            if glob.startswith("/", at):
                at += 1
                out.append("(?:[^/]+/)*")
            else:
                out.append(".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := glob.find("]", at + 1)) > 0:
            out.append(_class(glob[at:end]))
            at = end + 1
        elif char == "{" and last_brace > at - 1:
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(escaped(char))
    return "".join(out) + ")" * depth


def _class(inside: str) -> str:
    negated = inside[:1] in ("!", "^")
    members = inside[negated:]
    escaped_members = "".join(f"\\{char}" if char in "\\[]^&~|:" else char for char in members)
    return f"[{'^/' if negated else ''}{escaped_members}]"
