"""What patterns of the kind ``bash(PREFIX)`` say to a command line; see `patterns`.

To allow, a line has to be read for certain: every simple command in it is literal, and covered. To
deny, suspicion is enough, and what cannot be read is suspicious.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from crush_trio.agent.ports import PermissionAsk
from crush_trio.limits import SHELL_PARSE_BYTES, SHELL_PARSE_DEPTH
from crush_trio.tools.shell.grammar import agrees, described
from crush_trio.tools.shell.literal import literal_argv
from crush_trio.tools.shell.plain import NotPlain, Redirect, read_plain, words

Prefix = tuple[str, ...]

_SHELLS: Final = words(
    "ash bash csh dash eval fish ksh mksh pwsh rbash runuser sh ssh su tcsh trap yash zsh"
)
"""Programs that take command lines as arguments."""

_STARTERS: Final = words(
    "builtin chrt command doas env exec fakeroot ionice ltrace nice nohup numactl pkexec prlimit "
    "setarch setpriv setsid stdbuf strace sudo systemd-run taskset time timeout unbuffer valgrind "
    "watch xargs"
)
"""Programs that run their first operand."""

_WRAPPERS: Final = (
    _SHELLS
    | _STARTERS
    | words(
        "alias awk bind busybox bwrap chroot complete coproc find flock gawk gdb mapfile "
        "mawk node nsenter parallel perl php python python3 readarray ruby script tar toybox "
        "unshare"
    )
)
"""Programs that start other programs: behind them a denied word counts wherever it stands."""

_LINES_KEPT: Final = 4  # read lines; all rules of a call look at the same one


def may_run(prefix: Prefix, command: str) -> bool:
    """Whether a line may run what begins with ``prefix``."""
    line = _read(command)
    return (
        not line.understood
        or _looks_like(prefix, line)
        or any(_may_be(prefix, each) for each in line.commands)
    )


def covered(
    prefixes: Sequence[Prefix], ask: PermissionAsk, may_write: Callable[[str], bool]
) -> bool:
    """Whether every command of a line is covered by a prefix, or does no harm by itself.

    Args:
        may_write: Whether a file may be written, which a redirection of the line opens.
    """
    if not prefixes or ask.tool_name != "bash" or not ask.inside:
        return False
    argv = literal_argv(ask.target)
    if argv is not None:
        return _begins(argv, prefixes)
    if len(ask.target) > SHELL_PARSE_BYTES:  # the grammar would not read it, so why begin
        return False
    try:
        steps = read_plain(ask.target)
    except NotPlain:
        return False
    if not agrees(ask.target, steps):
        return False
    named = [step for step in steps if _begins(step.argv, prefixes)]
    others = [step for step in steps if not _begins(step.argv, prefixes)]
    writes = [each.path for step in steps for each in step.redirects if each.path is not None]
    return (
        bool(named)
        and all(step.argv in ask.harmless for step in others)
        and not any(map(_reads, (each for step in others for each in step.redirects)))
        and len(writes) == len(ask.writes)
        and all(map(may_write, ask.writes))
    )


@functools.lru_cache(maxsize=_LINES_KEPT)
def written_targets(command: str) -> tuple[str, ...]:
    """The literal targets of redirections anywhere in a line, as they are written."""
    return tuple(target for target in described(command).targets if target is not None)


def _begins(argv: Sequence[str], prefixes: Sequence[Prefix]) -> bool:
    return any(tuple(argv[: len(prefix)]) == prefix for prefix in prefixes)


def _reads(redirect: Redirect) -> bool:
    """Whether it opens a file for reading, which nobody has looked at."""
    return redirect.operator == "<" and not redirect.harmless


# --- on suspicion ------------------------------------------------------------------------


@attrs.frozen
class _Line:
    """What there is in a line for rules that forbid, whichever words they forbid.

    Args:
        argv: Its words, if it is one literal command that starts no other.
        texts: Else its words by the text alone, once as they stand and once by the program's name.
        commands: Every simple command in it, and in the lines that a shell in it would read.
        understood: Whether these are all of them.
    """

    argv: tuple[str, ...] | None
    texts: tuple[tuple[list[str], list[str]], ...]
    commands: tuple[Sequence[str | None], ...]
    understood: bool


@functools.lru_cache(maxsize=_LINES_KEPT)
def _read(command: str) -> _Line:
    """Read it once for all rules: a long line takes tens of milliseconds, on the event loop."""
    argv = literal_argv(command)
    if argv is not None and _name(argv[0]) not in _WRAPPERS:
        return _Line(argv, (), (argv,), understood=True)
    texts = []
    # Quotes and escapes are taken out, so that r''m or \rm does not hide a name.
    for text in dict.fromkeys((command, command.replace("\\\n", ""))):
        found = re.split(r"[\s;&|<>()$`{}=]+", re.sub(r"[\"'\\]", "", text))
        texts.append((found, [word.rpartition("/")[2] for word in found]))
    commands, understood = _commands_in(command)
    return _Line(None, tuple(texts), commands, understood=understood)


def _commands_in(command: str) -> tuple[tuple[Sequence[str | None], ...], bool]:
    """By the grammar: every command anywhere in a line, and whether that is all."""
    commands: dict[Sequence[str | None], None] = {}
    lines: dict[str, None] = {command: None}
    for _ in range(SHELL_PARSE_DEPTH + 1):
        inner: dict[str, None] = {}
        for line in lines:
            argv = literal_argv(line)
            if argv is None:
                found = described(line)
                if not found.understood:
                    return (), False
                simple: list[Sequence[str | None]] = [each.argv for each in found.commands]
            else:
                simple = [argv]
            commands |= dict.fromkeys(simple)
            inner |= dict.fromkeys(each for argv in simple for each in _inner_lines(argv))
        if not inner:
            return tuple(commands), True
        lines = inner
    return (), False


def _looks_like(prefix: Prefix, line: _Line) -> bool:
    """By the text alone: whether the words of the prefix stand in a line that is no literal one."""
    if line.argv is not None:
        return _named(line.argv, prefix)
    return any(_stands_in(prefix, words, names) for words, names in line.texts)


def _stands_in(prefix: Prefix, words: list[str], names: list[str]) -> bool:
    """As `_named` at any place, at the speed of a list's search."""
    among, rest, at = words if "/" in prefix[0] else names, list(prefix[1:]), 0
    with contextlib.suppress(ValueError):  # it stands nowhere, or no further on
        while True:
            at = among.index(prefix[0], at) + 1
            if words[at : at + len(rest)] == rest:
                return True
    return False


def _may_be(prefix: Prefix, argv: Sequence[str | None]) -> bool:
    name = _name(argv[0])
    if name is None or _matches(prefix, argv):
        return True
    if name in _SHELLS:
        return None in argv or any(_matches(prefix, argv[at:]) for at in range(1, len(argv)))
    if name in _STARTERS and argv[1:2] == (None,):
        return True
    return name in _WRAPPERS and any(
        _matches(prefix, argv[at:]) for at in range(1, len(argv)) if argv[at] is not None
    )


def _inner_lines(argv: Sequence[str | None]) -> Iterator[str]:
    """Words that a shell among the words of a command would read as command lines."""
    names = [_name(word) for word in argv]
    first = next((at for at, name in enumerate(names) if name in _SHELLS), len(argv))
    if names[0] in _WRAPPERS:
        yield from (word for word in argv[first + 1 :] if word and re.search(r"\W", word))


def _matches(prefix: Prefix, argv: Sequence[str | None]) -> bool:
    """Whether a command may be meant: options, and the values of options, hide no word of it."""
    if not _named(argv[:1], prefix[:1]):
        return False
    wanted = list(prefix[1:])
    after_option = False
    for word in argv[1:]:
        if not wanted:
            break
        if word is None or word == wanted[0]:
            wanted.pop(0)
        elif word.startswith("-"):
            after_option = True
        elif after_option:
            after_option = False
        else:
            break
    return not wanted


def _named(argv: Sequence[str | None], prefix: Prefix) -> bool:
    """Whether words begin with ``prefix``; ``/bin/rm`` counts as ``rm``."""
    here = tuple(argv[: len(prefix)])
    if not here:
        return False
    return (here[0] if "/" in prefix[0] else _name(here[0]), *here[1:]) == prefix


def _name(word: str | None) -> str | None:
    return None if word is None else word.rpartition("/")[2]
