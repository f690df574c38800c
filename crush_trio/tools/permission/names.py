"""Whether a pattern names a tool that there is: a slip in a rule that denies would deny nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from crush_trio.tools.permission.patterns import Pattern, parse_pattern

ACTIONS: Final[Mapping[str, str]] = {
    "agent": "use",
    "agentic_fetch": "fetch",
    "bash": "execute",
    "download": "download",
    "edit": "write",
    "fetch": "fetch",
    "glob": "read",
    "grep": "read",
    "job_kill": "use",
    "job_output": "use",
    "ls": "list",
    "multiedit": "write",
    "question": "use",
    "todos": "use",
    "view": "read",
    "web_fetch": "use",
    "write": "write",
}
"""Every built-in tool, with its action; ``use`` of those that a rule can only deny."""

_FOREIGN: Final = "mcp_"
"""What the names of tools begin with that no table can know."""


def unknown_name(pattern: Pattern) -> str | None:
    """A sentence if no tool has the pattern's name, or that tool not its action."""
    tool, action = pattern.tool, pattern.action
    if tool.startswith(_FOREIGN):
        return None
    if tool not in ACTIONS:
        near = difflib.get_close_matches(tool.lower(), ACTIONS, n=1)
        meant = f"; did you mean {near[0]}?" if near else f": {', '.join(ACTIONS)}"
        return f"permission pattern {pattern.text!r}: there is no tool {tool}{meant}"
    known = ACTIONS[tool]
    if action in (None, known):
        return None
    return f"permission pattern {pattern.text!r}: the action of {tool} is {known}"


def finding_of(text: str) -> tuple[str, str] | None:
    """What is to be said of a configured pattern: a level and a sentence, or nothing.

    An unknown name is a ``warning`` there, not an ``error``: the file may be another program's,
    too, which has other tools.
    """
    try:
        doubt = unknown_name(parse_pattern(text))
    except ValueError as exc:
        return "error", f"{exc}."
    return None if doubt is None else ("warning", doubt if doubt.endswith("?") else f"{doubt}.")
