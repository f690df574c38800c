"""Real processes in a real directory, all ended when a test ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from tests.tools.desk import Desk


@pytest.fixture
def spill(tmp_path: Path) -> SpillArea:
    return SpillArea(tmp_path / "spill")


@pytest.fixture
async def processes(spill: SpillArea) -> AsyncIterator[RunProcesses]:
    run = RunProcesses(spill)
    try:
        yield run
    finally:
        report = await run.aclose()
        assert report.left == ()


@pytest.fixture
def desk(tmp_path: Path, processes: RunProcesses) -> Desk:
    root = tmp_path / "workspace"
    root.mkdir()
    return Desk(Path(os.path.realpath(root)), processes)


@pytest.fixture
def alive_with() -> Callable[[str], list[int]]:
    """Pids of live processes with a marker in their environment or command line."""

    def find(marker: str) -> list[int]:
        wanted = marker.encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                state = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0]
                text = Path(f"/proc/{name}/cmdline").read_bytes()
                text += Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if wanted in text and state != b"Z":
                found.append(int(name))
        return found

    return find
