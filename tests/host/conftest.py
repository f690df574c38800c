"""Virtual time for everything in this directory, and a world per test."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.host.world import World


@pytest.fixture
def clock(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time jumps when every task waits for it, but never past a thread that is still at work.

    A test must name it to run on it.
    """
    real: Callable[..., Any] = trio.to_thread.run_sync

    at_work = 0

    @functools.wraps(real)
    async def run_sync(*args: Any, **kwargs: Any) -> Any:
        nonlocal at_work
        at_work += 1
        autojump_clock.autojump_threshold = math.inf
        try:
            return await real(*args, **kwargs)
        finally:
            at_work -= 1
            if not at_work:
                autojump_clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return autojump_clock


@pytest.fixture
async def world(clock: MockClock, tmp_path: Path) -> AsyncIterator[World]:
    """A host over a store in memory, with one workspace; checked as a whole when it is left."""
    made = World(tmp_path)
    async with made.opened():
        await made.start()
        yield made
        await made.check()
