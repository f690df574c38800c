"""The time that is written down, for display; order never comes from it."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Unix milliseconds now."""
    return time.time_ns() // 1_000_000
