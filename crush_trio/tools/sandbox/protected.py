"""What exists in a writable directory and must stay as it is (T30). Looks at files."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import PROTECTED, PROTECTED_IN_GIT, Sandbox


def writable_roots(sandbox: Sandbox) -> list[Path]:
    """The writable directories that are not in another one.

    One that is can be exchanged for a link by what writes in the other, so its name says nothing.
    Something hidden in between keeps it apart.
    """
    return [
        root
        for root in sandbox.writable
        if not any(
            root != other
            and root.is_relative_to(other)
            and not any(root.is_relative_to(h) and h.is_relative_to(other) for h in sandbox.hidden)
            for other in sandbox.writable
        )
    ]


def protected_places(root: Path) -> dict[str, bool]:
    """The places below ``root`` to be mounted over themselves, the outer ones first.

    ``True`` is one that stays writable: a mount cannot be renamed, so nothing else can be put in
    the place of a repository whose hooks are protected.
    """
    found: dict[str, bool] = {}
    git = root / ".git"
    places = [root / name for name in PROTECTED]
    if git.is_dir() and not git.is_symlink():
        found[str(git)] = True
        places += [git / name for name in PROTECTED_IN_GIT]
    else:
        places.append(git)
    for place in places:
        if place.exists() and not place.is_symlink():
            found[str(place)] = False
    return found
