"""Fails a test run that leaves processes behind (G10), and ends them.

A process is ours if it descends from this one, carries the run's mark in its environment, or works
in a directory below the run's temporary one: so one that forked twice and was adopted by init is
found too, and nobody else's is. Only `/proc` tells mark and directory; elsewhere descendants count.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import attrs
import pytest

from tests import forked

__all__ = ["pytest_sessionfinish", "pytest_sessionstart", "pytest_terminal_summary"]

MARK = "CRUSH_TRIO_TEST_RUN"
GONE_WITHIN_S = 3.0  # what G10 gives a kill; what is still there then was left
PROC = Path("/proc")


@attrs.frozen
class Process:
    """A live process, its parent, and the start of its command line."""

    pid: int
    parent: int
    command: str


_left = pytest.StashKey[list[Process]]()
_before = pytest.StashKey[set[int]]()


def leftovers(below: Path, but: set[int] | None = None) -> list[Process]:
    """The live processes of this test run, without ``but``, this process and those above it."""
    table = {process.pid: process for process in _processes()}
    above, pid = set(but or ()), os.getpid()
    while pid in table and pid not in above:
        above.add(pid)
        pid = table[pid].parent
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    return [
        process
        for process in table.values()
        if process.pid not in above
        and (
            _descends(process, table)
            or _marked(process.pid, mark)
            or _works_below(process.pid, below)
        )
    ]


def end(processes: list[Process]) -> None:
    """Kill these."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it went by itself
            os.kill(process.pid, signal.SIGKILL)


def _processes() -> list[Process]:
    if not PROC.joinpath("self/stat").is_file():
        return _processes_by_ps()
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended while we looked
                # the name in parentheses may hold anything, also parentheses
                state, parent = (
                    (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
                )
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                if state not in "ZX":
                    found.append(
                        Process(
                            int(entry.name), int(parent), words.decode("utf-8", "replace").strip()
                        )
                    )
    return found


def _processes_by_ps() -> list[Process]:
    lines = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    split = [line.split(maxsplit=3) for line in lines]
    return [
        Process(int(pid), int(parent), command)
        for pid, parent, state, command in split
        if not state.startswith("Z") and not command.startswith("ps -axo")
    ]


def _descends(process: Process, table: dict[int, Process]) -> bool:
    me, seen = os.getpid(), set[int]()
    while process.parent in table and process.pid not in seen:
        if process.parent == me:
            return True
        seen.add(process.pid)
        process = table[process.parent]
    return False


def _marked(pid: int, mark: bytes) -> bool:
    with contextlib.suppress(OSError):  # ended, or another user's
        return mark in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False


def _works_below(pid: int, below: Path) -> bool:
    with contextlib.suppress(OSError):  # ended, or another user's
        return Path(os.readlink(PROC / str(pid) / "cwd")).is_relative_to(below)
    return False


def _is_worker(session: pytest.Session) -> bool:
    return hasattr(session.config, "workerinput")


# --- hooks --------------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark what this run starts; what came with the command line (a pipe's other end) is not it."""
    if _is_worker(session):
        return  # it has the mark of the run that started it
    os.environ[MARK] = uuid.uuid4().hex
    session.config.stash[_before] = {process.pid for process in _processes()}


@pytest.hookimpl(trylast=True)  # after pytest-xdist has ended its workers
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give what is ending a moment; kill the rest and fail the run."""
    forked.end()
    if _is_worker(session):
        return
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]  # the run's own; there is no other way to it outside a fixture
    below, before = factory.getbasetemp().resolve(), session.config.stash[_before]
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := leftovers(below, before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    session.config.stash[_left] = left
    end(left)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left."""
    left = config.stash.get(_left, [])
    if left:
        terminalreporter.section("processes left behind (G10)", red=True)
        for process in left:
            terminalreporter.line(f"{process.pid}: {process.command[:200]}")
