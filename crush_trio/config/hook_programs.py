"""Whether the programs that hooks name are there: said by ``config check``, decided nowhere."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from crush_trio.config.shapes import quoted

_SHELLS_OWN: Final = frozenset(
    {
        "break",
        "builtin",
        "case",
        "cd",
        "command",
        "continue",
        "declare",
        "echo",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "for",
        "function",
        "if",
        "kill",
        "let",
        "local",
        "printf",
        "pwd",
        "read",
        "return",
        "select",
        "set",
        "shift",
        "source",
        "test",
        "time",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unset",
        "until",
        "wait",
        "while",
    }
)
_PLAIN: Final = re.compile(r"(~/)?[A-Za-z0-9_./+@:,-]+")


def missing_programs(
    hooks: Mapping[str, Any], workspace: Path | None, environ: Mapping[str, str]
) -> Iterator[str]:
    """A sentence for each hook that begins with a program which is not there.

    Only what is certain: a command that begins with anything but a plain word is not looked into,
    and without a workspace neither is a relative path.
    """
    for event, listed in hooks.items():
        if not isinstance(listed, list):  # an event we do not know
            continue
        for number, hook in enumerate(listed):
            words = hook["command"].split(maxsplit=1) if isinstance(hook, dict) else []
            program = words[0] if words else ""
            if not _PLAIN.fullmatch(program) or program in _SHELLS_OWN or program in (".", ":"):
                continue
            problem = _problem(program, workspace, environ)
            if problem:
                yield f"hooks.{event}[{number}].command: {quoted(program)} {problem}"


def _problem(program: str, workspace: Path | None, environ: Mapping[str, str]) -> str:
    if "/" not in program:
        found = shutil.which(program, path=environ.get("PATH"))
        return "" if found else "is not on the PATH"
    home = environ.get("HOME", "")
    path = Path(home, program[2:]) if program.startswith("~/") else Path(program)
    if not path.is_absolute() and workspace is None:
        return ""
    path = (workspace or Path()) / path
    if not path.is_file():
        return "is not there"
    return "" if os.access(path, os.X_OK) else "may not be executed (chmod +x)"
