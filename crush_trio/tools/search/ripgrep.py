"""Searching with ripgrep, where it is installed: its arguments, and what its output says."""

from __future__ import annotations

import shutil
from pathlib import Path

from crush_trio.limits import GREP_COLUMNS, SEARCH_FILE_BYTES


def ripgrep_program(path: str, workspace: Path) -> str | None:
    """The absolute path of ``rg`` on this PATH; one inside the workspace is not taken."""
    entries = [
        entry
        for entry in path.split(":")
        if entry.startswith("/") and not Path(entry).resolve().is_relative_to(workspace)
    ]
    return shutil.which("rg", path=":".join(entries)) if entries else None


def usable_include(include: str) -> bool:
    """Whether ripgrep can apply this filter without overriding .gitignore files.

    Its ``--glob`` overrides them; a file type does not, but looks at names only.
    """
    return "/" not in include and ":" not in include


def ripgrep_argv(
    program: str, pattern: str, place: Path, *, literal: bool, include: str
) -> tuple[str, ...]:
    """What is executed: no configuration file, no colours, newest file first."""
    return (
        program,
        "--no-config",
        "--sortr=modified",
        "--hidden",
        "--glob=!.git",
        "--no-require-git",
        "--no-messages",
        "--color=never",
        "--no-heading",
        "--with-filename",
        "--line-number",
        "--null",
        f"--max-filesize={SEARCH_FILE_BYTES}",
        f"--max-columns={GREP_COLUMNS}",
        "--max-columns-preview",
        *(("--type-add", f"asked:{include}", "--type", "asked") if include else ()),
        *(("--fixed-strings",) if literal else ()),
        f"--regexp={pattern}",
        "--",
        str(place),
    )


def ripgrep_rows(output: str) -> list[list[str | int]]:
    """``[absolute path, line number, line]`` of every complete match in its output."""
    rows: list[list[str | int]] = []
    for line in output.split("\n"):
        path, found, rest = line.partition("\0")
        number, colon, text = rest.partition(":")
        if found and colon and number.isdigit():
            shown = text.rstrip("\r")
            if len(shown) > GREP_COLUMNS:  # its preview ends with a remark of its own
                shown = f"{shown[:GREP_COLUMNS]}..."
            rows.append([path, int(number), shown])
    return rows
