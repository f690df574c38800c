"""Harmless arguments of programs that have a little language of their own: find, test, sed, echo.

As in `safe_programs`: a closed table, and what is not in it needs permission.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from crush_trio.tools.shell.plain import words
from crush_trio.tools.shell.safe_programs import PROGRAMS, NotSafe, Uses

_TEXT: Final = r"[^\0]*"
_NUMBER: Final = r"[+-]?\d{1,9}"
_FIND_WORDS: Final = words(
    "! ( ) -a -and -daystart -depth -empty -executable -false -ls -mount -not -o -or -print "
    "-print0 -prune -quit -readable -true -writable -xdev"
)
_FIND_VALUES: Final[Mapping[str, str]] = {
    **dict.fromkeys(words("-name -iname -path -ipath -wholename -regex -iregex -printf"), _TEXT),
    **dict.fromkeys(words("-amin -cmin -mmin -atime -ctime -mtime -links -inum"), _NUMBER),
    "-group": r"[A-Za-z0-9_-]+",
    "-maxdepth": r"\d{1,4}",
    "-mindepth": r"\d{1,4}",
    "-newermt": _TEXT,
    "-perm": r"[-/]?([0-7]{1,4}|[ugoarwxst=+,-]+)",
    "-regextype": r"[a-z-]+",
    "-size": r"[+-]?\d{1,12}[bcwkMG]?",
    "-type": r"[bcdflps](,[bcdflps])*",
    "-user": r"[A-Za-z0-9_-]+",
}
_TEST_WORDS: Final = words(
    "! ( ) = == != -a -o -eq -ne -lt -le -gt -ge -nt -ot -ef -b -c -d -e -f -g -h -k -n -p -r -s "
    "-u -w -x -z -G -L -O -S"
)
_SED_SCRIPT: Final = re.compile(r"(\d{1,9}|\$)(,(\d{1,9}|\$|\+\d{1,9}))?p")


def _find(arguments: Sequence[str]) -> Uses:
    rest = list(arguments)
    paths: list[str] = []
    while rest and rest[0] and rest[0][0] not in "-(!,":
        paths.append(rest.pop(0))
    while rest:
        word = rest.pop(0)
        if word in {"-newer", "-samefile"} and rest:
            paths.append(rest.pop(0))
        elif word in _FIND_VALUES and rest:
            if not re.fullmatch(_FIND_VALUES[word], rest[0], re.DOTALL):
                raise NotSafe(f"the value of {word}")
            rest.pop(0)
        elif word not in _FIND_WORDS:
            raise NotSafe(f"the argument {word!r} of find")
    return Uses(tuple(paths))


def _test(arguments: Sequence[str]) -> Uses:
    paths = []
    for word in arguments:
        if word in _TEST_WORDS or re.fullmatch(r"-\d{1,9}", word):
            continue
        if word.startswith("-"):
            raise NotSafe(f"the argument {word!r} of test")
        paths.append(word)
    return Uses(tuple(path for path in paths if path))


def _bracket(arguments: Sequence[str]) -> Uses:
    if not arguments or arguments[-1] != "]":
        raise NotSafe("[ without ]")
    return _test(arguments[:-1])


def _sed(arguments: Sequence[str]) -> Uses:
    """Only ``sed -n 'FROM,TOp' FILE…``: it prints lines by their numbers."""
    if len(arguments) < 2 or arguments[0] != "-n" or not _SED_SCRIPT.fullmatch(arguments[1]):
        raise NotSafe("sed with more than -n and the numbers of lines to print")
    if any(word.startswith("-") for word in arguments[2:]):
        raise NotSafe("a flag of sed")
    return Uses(tuple(arguments[2:]))


def _command(arguments: Sequence[str]) -> Uses:
    """Only ``command -v NAME…``: anything else runs what it names."""
    if len(arguments) < 2 or arguments[0] not in {"-v", "-V"}:
        raise NotSafe("a command that runs another one")
    return PROGRAMS["type"].uses(("--", *arguments[1:]))


def _printf(arguments: Sequence[str]) -> Uses:
    """A format first: nothing that stores, or that asks for endless padding."""
    form = arguments[0] if arguments else "-"
    if form.startswith("-") or re.search(r"%[-+ #'0-9.hlLqjzt]*[n*]|\d{5}", form):
        raise NotSafe("the format of printf")
    return Uses()


def _echo(_arguments: Sequence[str]) -> Uses:
    return Uses()


_LANGUAGES: Final[Mapping[str, Callable[[Sequence[str]], Uses]]] = {
    "[": _bracket,
    "command": _command,
    "echo": _echo,
    "find": _find,
    "printf": _printf,
    "sed": _sed,
    "test": _test,
}
BUILTINS: Final = frozenset({"command", "type"})
"""Those that only a shell itself can do."""

LOOK_UPS: Final = BUILTINS | {"which"}
"""Those that answer what a name stands for on the PATH."""


def uses_of(argv: Sequence[str]) -> Uses:
    """What a simple command reads, if its arguments are harmless.

    Raises:
        NotSafe: They are not, or the program is not in the table.
    """
    name, *arguments = argv
    if name in _LANGUAGES:
        return _LANGUAGES[name](arguments)
    if name not in PROGRAMS:
        raise NotSafe(f"the program {name!r}")
    return PROGRAMS[name].uses(arguments)
