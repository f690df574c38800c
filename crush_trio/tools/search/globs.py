"""Glob patterns as regular expressions.

The patterns come from models. A regular expression made from one may take exponential time, so
the result is only to be used in a process that can be killed (`tools.search.program`).
"""

from __future__ import annotations

import re


def glob_regex(glob: str) -> re.Pattern[str]:
    """Matches whole relative paths: ``*`` and ``?`` within a component, ``**`` across them.

    ``[a-z]`` and ``{one,two}`` work as in a shell; an unbalanced bracket means itself.
    """
    return re.compile(_translate(glob.removeprefix("./")), re.DOTALL)


def _translate(glob: str) -> str:
    out = []
    at = depth = 0
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
            negated = glob[at] in "!^"
            inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", glob[at + negated : end])
            out.append(f"[{'^/' if negated else ''}{inside}]")
            at = end + 1
        elif char == "{" and "}" in glob[at:]:
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(char))
    return "".join(out)
