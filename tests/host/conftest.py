"""Virtual time for everything in this directory, and a world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.host.world import World
from tests.virtual_time import waiting_for_threads


@pytest.fixture
def clock(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time jumps when every task waits for it, but never past a thread that is still at work.

    A test must name it to run on it.
    """
    return waiting_for_threads(autojump_clock, monkeypatch)


@pytest.fixture
async def world(clock: MockClock, tmp_path: Path) -> AsyncIterator[World]:
    """A host over a store in memory, with one workspace; checked as a whole when it is left."""
    made = World(tmp_path)
    async with made.opened():
        await made.start()
        yield made
        await made.check()
