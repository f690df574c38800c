"""What exists in a writable directory and must stay as it is (T30). Looks at files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from crush_trio.agent.ports import PROTECTED, PROTECTED_IN_GIT, Sandbox


def writable_roots(sandbox: Sandbox) -> list[Path]:
    """The writable directories that are not in another one; see `is_within`."""
    return [root for root in sandbox.writable if not is_within(root, sandbox)]


def readable_places(sandbox: Sandbox) -> list[Path]:
    """What is to be read although it may be hidden, but for what `is_within`."""
    return [path for path in (sandbox.workspace, *sandbox.readable) if not is_within(path, sandbox)]


def is_within(path: Path, sandbox: Sandbox) -> bool:
    """Whether a path lies in a writable directory, with nothing hidden in between.

    Then it is as writable as that one already, and its name says nothing: what writes there can
    exchange it for a link.
    """
    return any(
        path != root
        and path.is_relative_to(root)
        and not any(path.is_relative_to(h) and h.is_relative_to(root) for h in sandbox.hidden)
        for root in sandbox.writable
    )


def protected_places(root: Path, hidden: Iterable[Path] = ()) -> dict[str, bool]:
    """The places below ``root`` to be mounted over themselves, the outer ones first.

    ``True`` is one that stays writable: a mount cannot be renamed. So nothing else can be put in
    the place of a repository whose hooks are protected, and what lies around something hidden
    cannot be moved away, to be found under another name by the next command.
    """
    git = root / ".git"
    fixed = [root / name for name in PROTECTED]
    if git.is_dir() and not git.is_symlink():
        fixed += [git / name for name in PROTECTED_IN_GIT]
    else:
        fixed.append(git)
    fixed = [place for place in fixed if place.exists() and not place.is_symlink()]
    kept = [*fixed, *(path for path in hidden if path.is_relative_to(root) and path.exists())]
    if git not in fixed and git.exists():
        kept.append(git / "any")
    around = {above for path in kept for above in path.parents if above.is_relative_to(root)}
    stays = dict.fromkeys(map(str, around - {root}), True)
    found = stays | dict.fromkeys(map(str, fixed), False)
    return dict(sorted(found.items(), key=lambda each: each[0].count("/")))
