"""How bubblewrap is told what a command may touch: its arguments. Looks at files, starts nothing.

The whole file system read-only; over it, the deeper path later, a private ``/tmp``, an empty
``/run``, what may be written, and nothing where something is hidden. What is protected has been
mounted by `tools.sandbox.confine`: bubblewrap would look its names up again. The command gets
process ids, System V objects and, without network, a loopback interface of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from crush_trio.agent.ports import Sandbox
from crush_trio.tools.sandbox.protected import readable_places, writable_roots

KEPT_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 4: "FSETID"}
"""What root keeps of its privileges, by number: those over files that may be written anyway."""

_IN_RUN = ("/run/current-system", "/run/wrappers", "/run/systemd/resolve", "/run/resolvconf")
"""Programs and name servers that some systems keep in ``/run``; no sockets of services."""

_PRIVATE = ("/tmp", "/var/tmp")
_EMPTY = ("/run", "/var/run")

Mount = tuple[str, ...]


def arguments(
    program: str, sandbox: Sandbox, *, private_tmp: Path, cwd: Path, new_user: bool
) -> list[str]:
    """The program and its arguments, up to what stands before ``--``.

    ``@filter`` stands for a descriptor with the system call filter.

    Args:
        program: Path of ``bwrap``.
        sandbox: What may be touched.
        private_tmp: The directory to be found as ``/tmp``.
        cwd: Where the command begins.
        new_user: Whether to work in a new user namespace; else this takes root's privileges.
    """
    # Not --die-with-parent: the program ends with the shell, and what that left in the background
    # stays until the run ends. The launcher sees to the end of all of it, as without a sandbox.
    argv = [program, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if new_user:
        argv += ["--unshare-user"]
    if not sandbox.network:
        argv += ["--unshare-net"]
    argv += ["--cap-drop", "ALL"]
    if not new_user:
        for name in KEPT_CAPABILITIES.values():
            argv += ["--cap-add", f"CAP_{name}"]
    argv += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for mount in _mounts(sandbox, private_tmp):
        argv += mount
    return [*argv, "--chdir", str(cwd), "--seccomp", "@filter"]


def _mounts(sandbox: Sandbox, private_tmp: Path) -> Iterator[Mount]:
    """Every mount, what lies deeper later; at one place the last of these lists wins."""
    mounts: dict[str, tuple[Mount, ...]] = {}
    for place in (*_PRIVATE, *_own_place(sandbox, private_tmp)):
        if _is_real_directory(place):
            mounts[place] = (("--bind", str(private_tmp), place),)
    for place in _EMPTY:
        if _is_real_directory(place):
            mounts[place] = (("--tmpfs", place),)
    sealed = [place for place in _EMPTY if place in mounts]
    for place in (*_IN_RUN, *map(str, readable_places(sandbox))):
        if os.path.exists(place) and (_is_replaced(place) or os.path.realpath(place) == place):
            mounts[place] = (("--ro-bind", place, place),)
    for root in writable_roots(sandbox):
        if root.exists():
            mounts[str(root)] = (("--bind", str(root), str(root)),)
    for path in sandbox.hidden:
        if path.is_dir():
            mounts[str(path)] = (("--tmpfs", str(path)),)
            sealed.append(str(path))
        elif path.exists():
            mounts[str(path)] = (("--ro-bind", os.devnull, str(path)),)
    for place in sorted(mounts, key=lambda path: path.count("/") if path != "/" else 0):
        yield from mounts[place]
    for place in ("/proc", *sealed):  # in /proc are settings of the kernel, which root could change
        yield ("--remount-ro", place)


def tmp_seen_as(sandbox: Sandbox, private_tmp: Path) -> str:
    """Where a command finds the private directory: ``/tmp``, unless the workspace is there."""
    return next(iter(_own_place(sandbox, private_tmp)), "/tmp")


def _own_place(sandbox: Sandbox, private_tmp: Path) -> tuple[str, ...]:
    """The private directory's own place, if the workspace takes that of ``/tmp``."""
    return (str(private_tmp),) if private_tmp.is_relative_to(sandbox.workspace) else ()


def _is_replaced(place: str) -> bool:
    """Whether it lies where the command finds a directory of its own, without any link in it."""
    return any(place.startswith(f"{above}/") for above in (*_PRIVATE, *_EMPTY))


def _is_real_directory(place: str) -> bool:
    return os.path.isdir(place) and not os.path.islink(place)
