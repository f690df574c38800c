"""Where a path of a tool call leads, symbolic links followed, and whether that is inside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import attrs
import trio

from crush_trio.tools.arguments import ToolProblem

_THREADS = 8
"""For file work of tools, of all runs together; more calls wait their turn."""
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("file work")
_Given = TypeVarTuple("_Given")
_Found = TypeVar("_Found")


def file_work() -> trio.CapacityLimiter:
    """What bounds the worker threads for file work of tools in this Trio run."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(limiter := trio.CapacityLimiter(_THREADS))
        return limiter


async def look(work: Callable[[*_Given], _Found], *given: *_Given) -> _Found:
    """What ``work`` finds or computes, in a worker thread; it changes nothing.

    Who is cancelled leaves it behind, for a disk may not answer (G4).
    """
    return await trio.to_thread.run_sync(work, *given, abandon_on_cancel=True, limiter=file_work())


async def alter(work: Callable[[*_Given], _Found], *given: *_Given) -> _Found:
    """The same for work that changes something: it is waited for also by who is cancelled, and
    what it gives is given. Nothing of it happens after the end of a run.
    """
    return await trio.to_thread.run_sync(work, *given, limiter=file_work())


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
    return await look(resolve_place, text, workspace)


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
