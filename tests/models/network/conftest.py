"""Virtual time here waits for the threads that expand a provider's key."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.virtual_time import waiting_for_threads


@pytest.fixture
def autojump_clock(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time jumps when every task waits for it, but never past a thread that is still at work."""
    return waiting_for_threads(autojump_clock, monkeypatch)
