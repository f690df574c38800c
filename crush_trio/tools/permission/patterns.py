"""What the mode and the patterns of a run say to a tool call (contract 7).

Patterns:

* ``TOOL`` and ``TOOL:ACTION``: every call of the tool, or those that ask for the action.
* ``bash(PREFIX)``: commands whose first words are PREFIX's; ``…``, ``...`` or ``*`` may end it.
* ``write(GLOB)``: files written by any tool; ``TOOL(GLOB)``: files of that tool alone. A GLOB is
  a .gitignore line relative to the workspace, or an absolute one from ``/``.
* ``fetch(HOST)``: URLs of one host; ``fetch(*.HOST)``: of every host below it. To deny, also those
  of ``download`` and ``agentic_fetch``.

Deny beats allow. To allow, patterns have to match for certain: a command line, run inside the
workspace, is allowed if every simple command in it is literal and either begins with the PREFIX of
some allowing pattern or is harmless by itself (`tools.shell.judge`), if at least one does begin so,
and if ``write(GLOB)`` patterns allow every file that it writes by redirection. To deny, a pattern
matches on suspicion: for its words in a command line anywhere, behind programs that start others,
in text that a shell inside the line would run, and for a line that cannot be read; ``write(GLOB)``
denies a line that writes such a file by redirection. Patterns are no sandbox: a program can do
what no pattern foresees.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from crush_trio.agent.ports import Decision, PermissionAsk
from crush_trio.http.hosts import read_host
from crush_trio.tools.permission.command_lines import covered, may_run, written_targets
from crush_trio.tools.shell.literal import literal_argv

MODES: Final = ("ask", "deny", "allow")
_PATTERN: Final = re.compile(
    r"(?P<tool>[A-Za-z0-9_-]+)(?::(?P<action>[A-Za-z0-9_-]+)|\((?P<inside>.*)\))?", re.DOTALL
)
_FILE_TOOLS: Final = frozenset(
    {"write", "edit", "multiedit", "download", "view", "ls", "glob", "grep"}
)
_HOST_TOOLS: Final = frozenset({"fetch", "agentic_fetch"})
_ASKS_HOSTS: Final = frozenset({"agentic_fetch", "download"})
_HOST: Final = "one host, as in fetch(example.com), or fetch(*.example.com) for all below it"


@attrs.frozen
class Pattern:
    """One parsed pattern; see the module. Of the last three one is set for the kinds in ()."""

    text: str
    tool: str
    action: str | None = None
    prefix: tuple[str, ...] | None = None
    glob: str | None = None
    host: str | None = None


def parse_pattern(text: str) -> Pattern:
    """The pattern that ``text`` spells.

    Raises:
        ValueError: It spells none; the text says what it should look like.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"permission pattern {text!r} is not TOOL, TOOL:ACTION, bash(PREFIX), write(GLOB) or "
            "fetch(HOST)"
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
    if tool in _HOST_TOOLS:
        try:
            return Pattern(text, tool, host=_host_pattern(inside))
        except ValueError as problem:
            raise ValueError(
                f"permission pattern {text!r}: between the brackets must stand {_HOST}: {problem}"
            ) from None
    if tool not in _FILE_TOOLS:
        others = ", ".join(sorted(_FILE_TOOLS | _HOST_TOOLS))
        raise ValueError(f"permission pattern {text!r}: only bash and {others} take brackets")
    if not inside or inside.startswith("!") or "\n" in inside:
        raise ValueError(
            f"permission pattern {text!r}: between the brackets must stand one path pattern, "
            "as in write(src/**)"
        )
    if not _is_pattern(inside):
        raise ValueError(
            f"permission pattern {text!r}: {inside!r} matches no path: look at its brackets and "
            "backslashes"
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
    allowing = [parse_pattern(text) for text in allow]
    allowed = mode == "allow" or _allowed(allowing, ask, workspace)
    what = f"{ask.tool_name} ({ask.action}) on {_shortened(ask.target)}"
    if denying:
        return Decision(
            False,
            f"Permission denied: {what} is forbidden by the rule {denying[0].text!r}. "
            "Do not repeat the call; go on without it and say in your answer what is missing.",
        )
    if allowed:
        return Decision(True)
    if mode == "ask":
        return None
    why = f"What needs permission in it is {_shortened(ask.why)}. " if ask.why else ""
    return Decision(
        False,
        f"Permission denied: this run may not do {what}, and nobody is there to allow it. {why}"
        "Do not repeat the call; go on without it and say in your answer what is missing.",
    )


def _allowed(patterns: list[Pattern], ask: PermissionAsk, workspace: Path | None) -> bool:
    """Whether allowing patterns together cover ``ask`` for certain."""

    def may_write(path: str) -> bool:
        inside = workspace is not None and Path(path).is_relative_to(workspace)
        written = attrs.evolve(ask, tool_name="write", action="write", target=path, inside=inside)
        return any(_covers(pattern, written, workspace) for pattern in patterns)

    prefixes = [pattern.prefix for pattern in patterns if pattern.prefix is not None]
    return covered(prefixes, ask, may_write) or any(_covers(p, ask, workspace) for p in patterns)


def _covers(pattern: Pattern, ask: PermissionAsk, workspace: Path | None) -> bool:
    """Whether one pattern, other than for commands, covers ``ask`` for certain."""
    if pattern.prefix is not None:
        return False
    if pattern.glob is not None:
        return _glob_tool(pattern, ask) and _glob_matches(pattern.glob, ask, workspace)
    if pattern.host is not None:
        host = _host_of(ask.target) if ask.tool_name == pattern.tool else None
        return host is not None and _host_matches(pattern.host, host)
    return pattern.tool == ask.tool_name and pattern.action in (None, ask.action)


def denies(pattern: Pattern, ask: PermissionAsk, workspace: Path | None = None) -> bool:
    """Whether a denying pattern may be meant for ``ask``."""
    if pattern.prefix is not None:
        return ask.tool_name == "bash" and may_run(pattern.prefix, ask.target)
    if pattern.host is not None:
        return _denies_host(pattern, pattern.host, ask)
    if pattern.glob is not None and pattern.tool == "write" and ask.tool_name == "bash":
        return any(_denies_file(pattern, each, workspace) for each in _written_files(ask))
    if pattern.glob is not None and pattern.tool == "write" and ask.action == "download":
        return _denies_file(pattern, ask, workspace)
    if pattern.glob is not None:
        return _glob_tool(pattern, ask) and _denies_file(pattern, ask, workspace)
    return _covers(pattern, ask, workspace)


def _denies_host(pattern: Pattern, wanted: str, ask: PermissionAsk) -> bool:
    """``fetch(HOST)`` also counts for what other tools ask of the host."""
    mine = ask.tool_name == pattern.tool
    url = ask.target if mine else ask.params.get("url") if isinstance(ask.params, dict) else None
    if not mine and (pattern.tool != "fetch" or ask.tool_name not in _ASKS_HOSTS or not url):
        return False
    host = _host_of(str(url))
    return host is None or _host_matches(wanted, host)


def _denies_file(pattern: Pattern, ask: PermissionAsk, workspace: Path | None) -> bool:
    glob = pattern.glob or ""
    if workspace is None and not glob.startswith("/"):
        return _ignores(f"**/{glob}", ask.target)
    return _glob_matches(glob, ask, workspace)


def _written_files(ask: PermissionAsk) -> Iterator[PermissionAsk]:
    """The files that a command line writes by redirection, each as if a tool asked for it."""
    named = (os.path.normpath(os.path.join(ask.path, t)) for t in written_targets(ask.target))
    for path in dict.fromkeys((*ask.writes, *named)):
        yield attrs.evolve(ask, target=path, inside=True)


def _glob_tool(pattern: Pattern, ask: PermissionAsk) -> bool:
    return ask.tool_name == pattern.tool or (pattern.tool == "write" and ask.action == "write")


def _glob_matches(glob: str, ask: PermissionAsk, workspace: Path | None) -> bool:
    if glob.startswith("/"):
        return _ignores(glob, ask.target)
    if workspace is None or not ask.inside:
        return False
    target = Path(ask.target)
    return target.is_relative_to(workspace) and _ignores(glob, str(target.relative_to(workspace)))


def _host_pattern(text: str) -> str:
    """A host in its only spelling, with the ``*.`` in front of it if it has one.

    Raises:
        ValueError: It is none.
    """
    below = text.startswith("*.")
    host = read_host(text[2:] if below else text)
    if below and host.address is not None:
        raise ValueError("nothing is below an address")
    return f"*.{host.name}" if below else host.name


def _host_of(url: str) -> str | None:
    """The host that a request for this URL would go to, read as the tools read it."""
    # Imported here: a run without such patterns need not load it.
    from crush_trio.tools.web.urls import read_url

    try:
        return read_url(url).host.name
    except ValueError:
        return None


def _host_matches(wanted: str, host: str) -> bool:
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and host != wanted[1:]
    return host == wanted


def _is_pattern(line: str) -> bool:
    from crush_trio.tools.search.gitignore import ignore_line  # as in `_ignores`

    return bool(ignore_line(line))


def _ignores(line: str, path: str) -> bool:
    # The automaton is loaded by the first pattern, not by each start of the server.
    from crush_trio.tools.search.gitignore import ignore_line

    return ignore_line(line).ignores(path.lstrip("/"))


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"
