"""Virtual time for code that works in threads, too."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def waiting_for_threads(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """``clock``, jumping when every task waits for it, but never past a thread still at work."""
    real: Callable[..., Any] = trio.to_thread.run_sync
    at_work = 0

    @functools.wraps(real)
    async def run_sync(*args: Any, **kwargs: Any) -> Any:
        nonlocal at_work
        at_work += 1
        clock.autojump_threshold = math.inf
        try:
            return await real(*args, **kwargs)
        finally:
            at_work -= 1
            if not at_work:
                clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return clock
