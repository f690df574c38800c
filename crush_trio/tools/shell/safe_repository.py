"""Whether the repository that git would find reads nothing from outside the workspace.

Git follows links in its own directory, and quotes the lines of a file that is not what it should
be. So a link in a ``.git`` shows what it leads to, and a ``.git`` that is a file shows another
repository. A repository above the workspace is the user's own, and is not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crush_trio.limits import SAFE_GIT_ENTRIES, SAFE_GIT_LINK_BYTES

_NOT_READ: Final = frozenset({"modules", "lfs", "annex"})
"""In a git directory, what the safe commands do not look into."""

_ELSEWHERE: Final = ("commondir", "objects/info/alternates")
"""Files that name another place to read from."""


def stays_inside(directory: Path, workspace: Path) -> bool:
    """Whether every repository between ``directory`` and ``workspace`` lies in the workspace.

    Blocks on the disk. A linked worktree counts as inside if its repository names it in turn.

    Args:
        directory: Resolved, and inside ``workspace``.
        workspace: Resolved.
    """
    places = (directory, *directory.parents)
    try:
        return all(
            _repository_inside(place / ".git", workspace)
            for place in places
            if place.is_relative_to(workspace) and os.path.lexists(place / ".git")
        )
    except (OSError, ValueError):  # what we may not read, a NUL in a name
        return False


def _repository_inside(git: Path, workspace: Path) -> bool:
    if git.is_symlink():
        return False
    if git.is_dir():
        return _directory_inside(git, workspace)
    if not git.is_file():
        return False
    named = _line(git)
    if not named.startswith("gitdir: "):
        return False
    real = Path(os.path.realpath(git.parent / named.removeprefix("gitdir: ")))
    if (real / "gitdir").is_file() and os.path.realpath(_line(real / "gitdir")) == str(git):
        return not real.is_relative_to(workspace) or _directory_inside(real, workspace, linked=True)
    return real.is_relative_to(workspace) and _directory_inside(real, workspace)


def _directory_inside(git: Path, workspace: Path, *, linked: bool = False) -> bool:
    """Whether neither a link in a git directory nor a file of it leads out of the workspace."""
    if linked:
        common = Path(os.path.realpath(git / _line(git / "commondir")))
        return common == git.parent.parent and _directory_inside(common, workspace)
    if any(os.path.lexists(git / name) for name in _ELSEWHERE):
        return False
    for count, entry in enumerate(_entries(git)):
        if count >= SAFE_GIT_ENTRIES:
            return False
        if entry.is_symlink() and not _leads_inside(entry.path, workspace):
            return False
    return True


def _entries(git: Path) -> Iterator[os.DirEntry[str]]:
    """Everything in a git directory but the objects, which are checked by their names' digests."""
    todo = [git]
    while todo:
        folder = todo.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                skipped = entry.name in _NOT_READ if folder == git else folder == git / "objects"
                if entry.is_dir(follow_symlinks=False) and not skipped:
                    todo.append(Path(entry.path))


def _leads_inside(link: str, workspace: Path) -> bool:
    return Path(os.path.realpath(link)).is_relative_to(workspace)


def _line(file: Path) -> str:
    """The first line of a small file of git's."""
    with open(file, "rb") as opened:
        return os.fsdecode(opened.read(SAFE_GIT_LINK_BYTES)).partition("\n")[0]
