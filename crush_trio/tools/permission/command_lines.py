"""What patterns of the kind ``bash(PREFIX)`` say to a command line; see `patterns`.

To allow, a line has to be read for certain: every simple command in it is literal, and covered. To
deny, suspicion is enough, and what cannot be read is suspicious.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from crush_trio.agent.ports import PermissionAsk
from crush_trio.limits import SHELL_PARSE_DEPTH
from crush_trio.tools.shell.grammar import agrees, described
from crush_trio.tools.shell.literal import literal_argv
from crush_trio.tools.shell.plain import NotPlain, Redirect, read_plain, words

Prefix = tuple[str, ...]

_SHELLS: Final = words("bash dash eval ksh sh ssh su trap zsh")
"""Programs that take command lines as arguments."""

_STARTERS: Final = words(
    "builtin command doas env exec ionice nice nohup setsid stdbuf strace sudo taskset time "
    "timeout watch xargs"
)
"""Programs that run their first operand."""

_WRAPPERS: Final = (
    _SHELLS
    | _STARTERS
    | words("alias busybox chroot coproc find flock nsenter parallel python python3 script unshare")
)
"""Programs that start other programs: behind them a denied word counts wherever it stands."""


def may_run(prefix: Prefix, command: str) -> bool:
    """Whether a line may run what begins with ``prefix``."""
    return _looks_like(prefix, command) or _may_hold(prefix, command, 0)


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


def written_targets(command: str) -> tuple[str, ...]:
    """The literal targets of redirections anywhere in a line, as they are written."""
    return tuple(target for target in described(command).targets if target is not None)


def _begins(argv: Sequence[str], prefixes: Sequence[Prefix]) -> bool:
    return any(tuple(argv[: len(prefix)]) == prefix for prefix in prefixes)


def _reads(redirect: Redirect) -> bool:
    """Whether it opens a file for reading, which nobody has looked at."""
    return redirect.operator == "<" and not redirect.harmless


# --- on suspicion ------------------------------------------------------------------------


def _looks_like(prefix: Prefix, command: str) -> bool:
    """By the text alone: whether the words of the prefix stand in a line that is no literal one."""
    argv = literal_argv(command)
    if argv is not None and _name(argv[0]) not in _WRAPPERS:
        return _named(argv, prefix)
    # Quotes and escapes are taken out, so that r''m or \rm does not hide a name.
    for text in (command, command.replace("\\\n", "")):
        found = re.split(r"[\s;&|<>()$`{}=]+", re.sub(r"[\"'\\]", "", text))
        if any(_named(found[at : at + len(prefix)], prefix) for at in range(len(found))):
            return True
    return False


def _may_hold(prefix: Prefix, command: str, depth: int) -> bool:
    """By the grammar: whether a command anywhere in it may be meant, or cannot be read."""
    argv = literal_argv(command)
    found = described(command)
    if argv is None and not found.understood:
        return True
    simple = [each.argv for each in found.commands] if argv is None else [argv]
    if any(_may_be(prefix, each) for each in simple):
        return True
    inner = {line for each in simple for line in _inner_lines(each)}
    return any(depth >= SHELL_PARSE_DEPTH or _may_hold(prefix, line, depth + 1) for line in inner)


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
