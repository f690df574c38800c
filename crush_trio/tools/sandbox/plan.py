"""What the launcher's child is to do to itself before it becomes a sandboxed command."""

from __future__ import annotations

import marshal
import os
import socket
from pathlib import Path
from typing import Final, Literal

import attrs

from crush_trio.agent.ports import Sandbox
from crush_trio.limits import SANDBOX_MEMORY_SHARE, SANDBOX_PROCESSES
from crush_trio.tools.sandbox import bubblewrap
from crush_trio.tools.sandbox.filter import program
from crush_trio.tools.sandbox.protected import protected_places, readable_places, writable_roots

_NETWORK: Final = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_NETLINK", 16))
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


@attrs.frozen
class Mechanism:
    """A way to confine a command that was tried and works here.

    Args:
        name: ``bubblewrap``, or ``landlock`` with a system call filter.
        program: Path of ``bwrap``.
        new_user: Whether a user namespace is made for what is mounted; root may do without.
        abi: Of Landlock; 0 if it is not what confines.
        mounts: Whether protected files can be mounted read-only before all else.
    """

    name: Literal["bubblewrap", "landlock"]
    program: str = ""
    new_user: bool = True
    abi: int = 0
    mounts: bool = False

    @property
    def protects(self) -> bool:
        """Whether files in a writable directory can be kept as they are."""
        return self.mounts


def plan_for(mechanism: Mechanism, sandbox: Sandbox, *, private_tmp: Path, cwd: Path) -> bytes:
    """The plan, as `tools.sandbox.confine` reads it. Looks at files, and blocks while it does."""
    wraps = mechanism.name == "bubblewrap"
    # A network namespace has no way out; without one there must be no sockets at all.
    families = _NETWORK if sandbox.network or wraps else ()
    wrap = None
    if wraps:
        wrap = bubblewrap.arguments(
            mechanism.program,
            sandbox,
            private_tmp=private_tmp,
            cwd=cwd,
            new_user=mechanism.new_user,
        )
    return marshal.dumps(
        {
            "wrap": wrap,
            "filter": program(os.uname().machine, map(int, families)),
            "limits": {"RLIMIT_CORE": 0, "RLIMIT_NPROC": _processes_now() + SANDBOX_PROCESSES},
            "group": {"pids.max": str(SANDBOX_PROCESSES), "memory.max": str(_memory_bytes())},
            "network": sandbox.network,
            "hidden": [*map(str, sandbox.hidden), "/dev"],
            "readable": [*map(str, readable_places(sandbox))],
            "writable": [*map(str, writable_roots(sandbox)), str(private_tmp)],
            "devices": [f"/dev/{name}" for name in _DEVICES],
            "mounts": _mounts(mechanism, sandbox),
            "new user": mechanism.new_user,
            "capabilities": [] if mechanism.new_user else list(bubblewrap.KEPT_CAPABILITIES),
        }
    )


def _mounts(mechanism: Mechanism, sandbox: Sandbox) -> list[tuple[str, bool]] | None:
    """What to mount over itself, and whether it stays writable; ``None`` if nothing can be."""
    if not mechanism.mounts:
        return None
    found = [protected_places(root, sandbox.hidden) for root in sandbox.writable]
    return [each for places in found for each in places.items()]


def _memory_bytes() -> int:
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * SANDBOX_MEMORY_SHARE)


def _processes_now() -> int:
    """How many threads the machine has: the user's own, which the bound counts too, are fewer."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            return int(file.read().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return SANDBOX_PROCESSES
