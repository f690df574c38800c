"""Whether a peer on the unix socket is a tool of this server, so that tools cannot drive us."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from crush_trio.limits import ANCESTORS_MAX

_PROC = Path("/proc")


def descends_from(pid: int, launcher_pids: Collection[int], proc: Path = _PROC) -> bool:
    """Whether ``pid`` is one of ``launcher_pids`` or has one among its ancestors.

    A tool's orphans keep its launcher as their ancestor, since the launcher adopts them. Where it
    cannot be told (the process has gone since it connected, or is hidden from us) and tools are
    running, the answer is ``True``: a tool that connects and lets its child speak is refused.

    Args:
        pid: Of the process that connected; 0 if it is outside our process namespace.
        launcher_pids: Of the tool processes that are running now; without any the answer is
            ``False`` at once.
        proc: Where the process table is mounted; a system without one (macOS) answers ``False``.
    """
    if not launcher_pids or not (proc / "self").exists():
        return False
    for _ in range(ANCESTORS_MAX):
        if pid in launcher_pids:
            return True
        if pid == 1:
            return False
        parent = _parent_of(pid, proc)
        if parent is None:
            return True
        if parent == 0:  # the first process of this namespace
            return False
        pid = parent
    return True


def _parent_of(pid: int, proc: Path) -> int | None:
    if pid <= 0:
        return None
    try:
        line = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    return int(line[line.rindex(b")") + 1 :].split()[1])
