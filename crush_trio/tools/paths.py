"""Where a path of a tool call leads, symbolic links followed, and whether that is inside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from crush_trio.tools.arguments import ToolProblem

FILE_WORK = trio.CapacityLimiter(8)
"""Worker threads for file work of tools, of all runs together; more calls wait their turn."""


@attrs.frozen
class Place:
    """A path without symbolic links, and whether it lies in the workspace (or is it).

    ``workspace`` is the workspace's own path without symbolic links.
    """

    path: Path
    inside: bool
    workspace: Path


def resolve_place(text: str, workspace: Path) -> Place:
    """Resolve a path argument against the workspace; it need not exist. Blocks on the disk.

    Containment is decided component by component on the resolved path, so neither ``..`` nor a
    link nor a sibling whose name begins like the workspace's counts as inside.

    Raises:
        ToolProblem: No path can be meant by it (a loop of links, a name too long).
    """
    root = Path(os.path.realpath(workspace))
    try:
        path = Path(os.path.realpath(root / os.path.expanduser(text)))
    except (OSError, ValueError) as problem:
        raise ToolProblem(f"cannot resolve the path {text!r}: {problem}") from problem
    try:
        str(path).encode()
    except UnicodeEncodeError as problem:  # nothing could be said or stored about it
        raise ToolProblem(f"the name of {text!r} is not UTF-8; use bash to rename it") from problem
    return Place(path, path.is_relative_to(root), root)


async def place_of(text: str, workspace: Path) -> Place:
    """`resolve_place` in a worker thread."""
    return await trio.to_thread.run_sync(resolve_place, text, workspace, limiter=FILE_WORK)


@contextlib.contextmanager
def open_directory(path: Path, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory at exactly this resolved path; closed afterwards.

    Every component is opened without following links: if one was swapped for a link since the
    path was resolved, this fails instead of leading elsewhere. ``create`` makes what is missing.

    Raises:
        OSError: A component is missing, no directory, or a link.
    """
    # With O_PATH a directory need not be readable, only passable.
    access = getattr(os, "O_PATH", os.O_RDONLY)
    flags = access | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open("/", flags)
    try:
        for name in path.parts[1:]:
            try:
                below = os.open(name, flags, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                with contextlib.suppress(FileExistsError):  # somebody else made it just now
                    os.mkdir(name, dir_fd=fd)
                below = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def sync_directory(fd: int) -> None:
    """Make the names in this directory durable."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)
