"""Ripgrep, where it is installed, says faster than we do which files hold a match.

Which lines those are, in which order and how they are shown, is our own search's work in any case,
so that the answers are the same on every machine. It is asked only for what means the same to both.
"""

from __future__ import annotations

import os

from crush_trio.limits import SEARCH_FILE_BYTES
from crush_trio.tools.search.linear import Linear

_CLASS = r"\[\^?(?:[^\\\[\]&~]|\\[dwst]|\\[^a-zA-Z0-9])+\]"
_SHARED = r"(?:\(\?i\))?(?:[ -Z_`a-z|}~]|[\]^{]|\\[dDwWsSbBt]|\\[!-/:;=?@\[-`{-~]|" + _CLASS + ")*"
"""A pattern of ASCII that both read alike."""


def ripgrep_program(path: str, workspace: str) -> str | None:
    """The absolute path of ``rg`` on this PATH; one inside the workspace is not taken."""
    inside = os.path.realpath(workspace)
    entries = [
        entry
        for entry in path.split(":")
        if entry.startswith("/") and os.path.commonpath((inside, os.path.realpath(entry))) != inside
    ]
    found = (os.path.join(entry, "rg") for entry in entries)
    return next((one for one in found if os.path.isfile(one) and os.access(one, os.X_OK)), None)


def same_meaning(pattern: str, *, literal: bool) -> bool:
    """Whether ripgrep finds at least what `Linear` finds."""
    if literal:
        return "\n" not in pattern
    return pattern.isascii() and "--" not in pattern and Linear(_SHARED).covers(pattern.encode())


def ripgrep_argv(
    program: str, pattern: str, place: str, *, literal: bool, include: str, above: bool
) -> tuple[str, ...]:
    """What is executed: no configuration file, the names of the files with a match, and NULs.

    Args:
        include: Only files named like this. A file type is made of it, because ``--glob`` would
            override .gitignore files; one with ``/`` cannot be expressed and is left to us.
        above: Whether .gitignore files above ``place`` count.
    """
    return (
        program,
        "--no-config",
        "--files-with-matches",
        "--null",
        "--hidden",
        "--glob=!.git",
        "--no-require-git",
        "--no-ignore-dot",
        "--no-ignore-global",
        *(() if above else ("--no-ignore-parent",)),
        "--no-messages",
        "--color=never",
        "--crlf",
        f"--max-filesize={SEARCH_FILE_BYTES}",
        *(("--type-add", f"asked:{include}", "--type", "asked") if _as_type(include) else ()),
        *(("--fixed-strings",) if literal else ("--no-unicode",)),
        f"--regexp={pattern}",
        "--",
        place,
    )


def _as_type(include: str) -> bool:
    return bool(include) and "/" not in include and ":" not in include


def files_with_matches(argv: tuple[str, ...]) -> list[str] | None:
    """The absolute paths it names, in no order; ``None`` if it did not understand the pattern."""
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_CLOSE, reader),
    ]
    with os.fdopen(reader, "rb") as answer:
        try:
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        except OSError:
            return None
        finally:
            os.close(writer)
        names = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, 1) and not names:
        return None
    return [os.fsdecode(name) for name in names.split(b"\0") if name]
