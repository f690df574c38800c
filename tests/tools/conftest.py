"""Real processes in a real directory, all ended when a test ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from tests.tools.desk import Desk
from tests.tools.escapes import alive_with as alive_with_marker


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
    return alive_with_marker
