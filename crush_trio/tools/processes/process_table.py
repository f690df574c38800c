"""Which processes exist, told apart by pid and start time, so that no signal meets a stranger."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from crush_trio.protocol.runs import LeftProcess

HAS_PROC = Path("/proc/self/stat").exists()
"""Linux. Without it (macOS) `ps` answers, start times have a resolution of one second, and
processes cannot be found by their environment."""

MARK = "CRUSH_TRIO_LAUNCHER"
"""In the environment of everything under a launcher: ``<launcher's pid>:<its start in ticks>``."""

_GONE = (b"Z", b"X")  # a zombie has ended; only its parent has not looked yet


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _stat(pid: int) -> tuple[bytes, int, str] | None:
    """State, parent and start of a process; ``None`` if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0], int(fields[1]), f"{int(fields[19])}@{_boot_id()}"


def _ps(*columns: str, pid: int | None = None) -> list[list[str]]:
    where = ["-p", str(pid)] if pid is not None else ["-ax"]
    wanted = [part for column in columns for part in ("-o", f"{column}=")]
    done = subprocess.run(
        ["/bin/ps", *where, *wanted], stdin=subprocess.DEVNULL, capture_output=True, timeout=5
    )
    return [line.split() for line in done.stdout.decode("utf-8", "replace").splitlines()]


def start_time(pid: int) -> str | None:
    """When a live process started, in a form only good for comparing; ``None`` if there is none.

    On Linux ``<clock ticks since boot>@<boot id>``: a pid used again, also after another boot,
    has another one. A zombie counts as gone.
    """
    if HAS_PROC:
        stat = _stat(pid)
        return None if stat is None or stat[0] in _GONE else stat[2]
    rows = _ps("lstart", pid=pid)
    return " ".join(rows[0]) if rows else None


def command_of(pid: int) -> str:
    """The first 200 characters of a process's command line; ``?`` if it cannot be read."""
    if not HAS_PROC:
        rows = _ps("command", pid=pid)
        return " ".join(rows[0])[:200] if rows else "?"
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes() or Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return "?"
    return text.replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200] or "?"


def describe(pid: int) -> LeftProcess | None:
    """A live process as it is recorded and reported; ``None`` if there is none."""
    started = start_time(pid)
    return None if started is None else LeftProcess(pid, started, command_of(pid))


def child(pid: int) -> LeftProcess:
    """A child of ours that nobody has waited for yet, also if it has ended meanwhile.

    Its pid cannot be anybody else's until then.
    """
    stat = _stat(pid) if HAS_PROC else None
    started = start_time(pid) if stat is None else stat[2]
    return LeftProcess(pid, started or "?", command_of(pid))


def _parents() -> dict[int, int]:
    if not HAS_PROC:
        return {int(pid): int(parent) for pid, parent in _ps("pid", "ppid")}
    found = {}
    for name in os.listdir("/proc"):
        stat = _stat(int(name)) if name.isdigit() else None
        if stat is not None:
            found[int(name)] = stat[1]
    return found


def ancestors(pid: int) -> tuple[int, ...]:
    """The parent of a process, its parent, and so on; without the process itself."""
    parents = _parents()
    chain: list[int] = []
    while (pid := parents.get(pid, 0)) > 0 and pid not in chain:
        chain.append(pid)
    return tuple(chain)


def descendants(pid: int) -> tuple[LeftProcess, ...]:
    """Every live process below this one, the nearest first."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    order, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(0), [])
        todo += below
        order += below
    return tuple(found for one in order if (found := describe(one)) is not None)


def marked(launcher: int, started: str) -> tuple[LeftProcess, ...]:
    """Live processes whose environment says they were started under this launcher.

    They are found even if the launcher is gone; one that cleared its environment is not.
    """
    if not HAS_PROC:
        return ()
    mark = f"{MARK}={launcher}:{started.partition('@')[0]}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _has_mark(int(name), mark):
            one = describe(int(name))
            if one is not None:
                found.append(one)
    return tuple(found)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # gone, or another user's: not ours


def still_there(processes: Iterable[LeftProcess]) -> tuple[LeftProcess, ...]:
    """Those of them that are alive and the same processes as when they were recorded."""
    return tuple(one for one in processes if start_time(one.pid) == one.started)


def send(process: LeftProcess, number: signal.Signals) -> bool:
    """Signal exactly this process; say whether it was there to be signalled.

    A process that is not ours to signal counts as not signalled; it is reported as left.
    """
    if not HAS_PROC:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if start_time(process.pid) == process.started:
                os.kill(process.pid, number)
                return True
        return False
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The handle is taken first: what it names now can no longer become another process.
        if start_time(process.pid) != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
