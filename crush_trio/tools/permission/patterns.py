"""What the mode and the patterns of a run say to a tool call: pure (contract 7).

Patterns:

* ``TOOL`` and ``TOOL:ACTION``: every call of the tool, or those that ask for the action.
* ``bash(PREFIX)``: commands whose first words are PREFIX's; ``…``, ``...`` or ``*`` may end it.
* ``write(GLOB)``: files written by any tool; ``TOOL(GLOB)``: files of that tool alone. A GLOB is
  a .gitignore line relative to the workspace, or an absolute one from ``/``.

Deny beats allow. To allow, a pattern has to match for certain: a prefix matches one literal
command only, run inside the workspace. To deny, it matches on suspicion: wherever its words occur
in a command that is more than one literal program. Patterns are no sandbox: a command can spell
a program's name in ways no pattern foresees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import pathspec

from crush_trio.agent.ports import Decision, PermissionAsk
from crush_trio.tools.shell.literal import literal_argv

MODES: Final = ("ask", "deny", "allow")
_PATTERN: Final = re.compile(
    r"(?P<tool>[A-Za-z0-9_-]+)(?::(?P<action>[A-Za-z0-9_-]+)|\((?P<inside>.*)\))?", re.DOTALL
)
_FILE_TOOLS: Final = frozenset({"write", "edit", "multiedit", "view", "ls", "glob", "grep"})
_WRAPPERS: Final = frozenset(
    {
        "bash",
        "busybox",
        "command",
        "dash",
        "doas",
        "env",
        "eval",
        "exec",
        "find",
        "ionice",
        "ksh",
        "nice",
        "nohup",
        "parallel",
        "python",
        "python3",
        "setsid",
        "sh",
        "stdbuf",
        "strace",
        "sudo",
        "taskset",
        "time",
        "timeout",
        "watch",
        "xargs",
        "zsh",
    }
)
"""Programs that start other programs: behind them a denied word counts wherever it stands."""


@attrs.frozen
class Pattern:
    """One parsed pattern; see the module. ``prefix`` and ``glob`` are set for the kinds in ()."""

    text: str
    tool: str
    action: str | None = None
    prefix: tuple[str, ...] | None = None
    glob: str | None = None


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``text`` spells.

    Raises:
        ValueError: It spells none; the text says what it should look like.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"permission pattern {text!r} is not TOOL, TOOL:ACTION, bash(PREFIX) or write(GLOB)"
        )
    tool, inside = match["tool"], match["inside"]
    if inside is None:
        return Pattern(text, tool, action=match["action"])
    inside = inside.strip()
    if tool == "bash":
        prefix = literal_argv(re.sub(r"\s*:?(…|\.\.\.|\*)$", "", inside))
        if prefix is None:
            raise ValueError(
                f"permission pattern {text!r}: between the brackets must stand the first words of "
                "one command, without operators or expansions, as in bash(git log)"
            )
        return Pattern(text, tool, prefix=prefix)
    if tool not in _FILE_TOOLS:
        raise ValueError(
            f"permission pattern {text!r}: only bash and {', '.join(sorted(_FILE_TOOLS))} "
            "take brackets"
        )
    if not inside or inside.startswith("!") or "\n" in inside:
        raise ValueError(
            f"permission pattern {text!r}: between the brackets must stand one path pattern, "
            "as in write(src/**)"
        )
    return Pattern(text, tool, glob=inside)


def decide(
    ask: PermissionAsk,
    mode: str,
    allow: Iterable[str],
    deny: Iterable[str],
    *,
    workspace: Path | None = None,
) -> Decision | None:
    """The decision on ``ask``; ``None`` if a person has to make it.

    Args:
        mode: ``ask``, ``deny`` or ``allow``: what holds when no pattern matches.
        workspace: What relative globs are relative to. Without it they allow nothing, and deny
            whatever they match at any depth.

    Raises:
        ValueError: Another mode, or a malformed pattern; the text is a sentence.
    """
    if mode not in MODES:
        raise ValueError(f"permission mode {mode!r} is none of {', '.join(MODES)}")
    denying = [pattern for pattern in map(parse_pattern, deny) if denies(pattern, ask, workspace)]
    allowing = [p for p in map(parse_pattern, allow) if allows(p, ask, workspace)]
    what = f"{ask.tool_name} ({ask.action}) on {_shortened(ask.target)}"
    if denying:
        return Decision(
            False,
            f"Permission denied: {what} is forbidden by the rule {denying[0].text!r}. "
            "Do not repeat the call; go on without it and say in your answer what is missing.",
        )
    if mode == "allow" or allowing:
        return Decision(True)
    if mode == "ask":
        return None
    return Decision(
        False,
        f"Permission denied: this run may not do {what}, and nobody is there to allow it. "
        "Do not repeat the call; go on without it and say in your answer what is missing.",
    )


def allows(pattern: Pattern, ask: PermissionAsk, workspace: Path | None = None) -> bool:
    """Whether an allowing pattern covers ``ask`` for certain."""
    if pattern.prefix is not None:
        argv = literal_argv(ask.target) if ask.tool_name == "bash" and ask.inside else None
        return argv is not None and argv[: len(pattern.prefix)] == pattern.prefix
    if pattern.glob is not None:
        return _glob_tool(pattern, ask) and _glob_matches(pattern.glob, ask, workspace)
    return pattern.tool == ask.tool_name and pattern.action in (None, ask.action)


def denies(pattern: Pattern, ask: PermissionAsk, workspace: Path | None = None) -> bool:
    """Whether a denying pattern may be meant for ``ask``."""
    if pattern.prefix is not None:
        return ask.tool_name == "bash" and _may_run(pattern.prefix, ask.target)
    if pattern.glob is not None and workspace is None and not pattern.glob.startswith("/"):
        return _glob_tool(pattern, ask) and _ignores(f"**/{pattern.glob}", ask.target)
    return allows(pattern, ask, workspace)


def _may_run(prefix: tuple[str, ...], command: str) -> bool:
    argv = literal_argv(command)
    if argv is not None and argv[0].rpartition("/")[2] not in _WRAPPERS:
        return _named(argv, 0, prefix)
    # Quotes and escapes are taken out, so that r''m or \rm does not hide a name.
    words = re.split(r"[\s;&|<>()$`{}=]+", re.sub(r"[\"'\\]", "", command))
    return any(_named(tuple(words), at, prefix) for at in range(len(words)))


def _named(words: tuple[str, ...], at: int, prefix: tuple[str, ...]) -> bool:
    """Whether the words from ``at`` on begin with ``prefix``; ``/bin/rm`` counts as ``rm``."""
    here = words[at : at + len(prefix)]
    if not here:
        return False
    name = here[0] if "/" in prefix[0] else here[0].rpartition("/")[2]
    return (name, *here[1:]) == prefix


def _glob_tool(pattern: Pattern, ask: PermissionAsk) -> bool:
    return ask.tool_name == pattern.tool or (pattern.tool == "write" and ask.action == "write")


def _glob_matches(glob: str, ask: PermissionAsk, workspace: Path | None) -> bool:
    if glob.startswith("/"):
        return _ignores(glob, ask.target)
    if workspace is None or not ask.inside:
        return False
    target = Path(ask.target)
    return target.is_relative_to(workspace) and _ignores(glob, str(target.relative_to(workspace)))


def _ignores(line: str, path: str) -> bool:
    return pathspec.GitIgnoreSpec.from_lines([line]).match_file(path.lstrip("/"))


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"
