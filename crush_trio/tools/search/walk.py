"""Walking a directory as git sees it: nested .gitignore files count, ``.git`` is never entered.

The patterns in a .gitignore are foreign and become regular expressions, so this is only to be
used in a process that can be killed (`tools.search.program`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pathspec

from crush_trio.limits import IGNORE_FILE_BYTES, LS_DEPTH


@attrs.frozen
class Entry:
    """Something below the start of a walk; ``path`` is relative to it, ``depth`` from 1."""

    path: str
    depth: int
    is_dir: bool
    is_file: bool
    mtime_ns: int
    size: int = 0


class IgnoreRules:
    """The .gitignore files from a root down to one directory.

    Args:
        root: The top of the rules: the workspace, if the directory lies in it.
    """

    def __init__(self, root: Path) -> None:
        self._levels: tuple[tuple[str, pathspec.GitIgnoreSpec], ...] = ()
        self._add("", root / ".git" / "info" / "exclude")
        self._add("", root / ".gitignore")

    def below(self, directory: Path, relative: str) -> IgnoreRules:
        """The rules within a directory whose path relative to the root is given."""
        rules = object.__new__(IgnoreRules)
        rules._levels = self._levels
        rules._add(f"{relative}/", directory / ".gitignore")
        return rules

    def _add(self, prefix: str, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                data = file.read(IGNORE_FILE_BYTES + 1)
        except OSError:
            return  # there is none, or none that can be read: nothing is ignored here
        if data and len(data) <= IGNORE_FILE_BYTES:
            lines = data.decode("utf-8", "replace").splitlines()
            self._levels = (*self._levels, (prefix, _spec(lines)))

    def ignore(self, relative: str, is_dir: bool) -> bool:
        """Whether git would ignore this path; its parents are known not to be ignored."""
        for prefix, spec in reversed(self._levels):
            if relative.startswith(prefix):
                tested = relative[len(prefix) :] + ("/" if is_dir else "")
                include = spec.check_file(tested).include
                if include is not None:
                    return include
        return False


def _spec(lines: list[str]) -> pathspec.GitIgnoreSpec:
    """The lines that are patterns; git, too, skips those that are none."""
    good = []
    for line in lines:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        good.append(line)
    return pathspec.GitIgnoreSpec.from_lines(good)


def walk(start: Path, root: Path, *, most_depth: int = LS_DEPTH) -> Iterator[Entry]:
    """Everything below ``start`` that is not ignored, depth first, in the order of names.

    Links are reported and not followed. Directories that cannot be read are empty.

    Args:
        root: The top of the ignore rules; ``start`` itself is walked even if it is ignored.
    """
    base = os.path.relpath(start, root)
    base = "" if base == "." else f"{base}/"
    rules = IgnoreRules(root)
    directory = root
    for name in Path(base).parts:
        directory /= name
        rules = rules.below(directory, os.path.relpath(directory, root))
    yield from _walk(start, "", base, rules, 1, most_depth)


def _walk(
    directory: Path, within: str, base: str, rules: IgnoreRules, depth: int, most_depth: int
) -> Iterator[Entry]:
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        try:
            is_dir = entry.is_dir(follow_symlinks=False)
            stat = entry.stat(follow_symlinks=False)
            is_file = entry.is_file(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        path = within + entry.name
        if entry.name == ".git" or rules.ignore(base + path, is_dir):
            continue
        yield Entry(path, depth, is_dir, is_file, stat.st_mtime_ns, stat.st_size)
        if is_dir and depth < most_depth:
            inner = rules.below(directory / entry.name, base + path)
            yield from _walk(directory / entry.name, f"{path}/", base, inner, depth + 1, most_depth)
