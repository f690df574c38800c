"""The last resort of a shutdown: a thread that ends the process when everything else is stuck."""

from __future__ import annotations

import os
import sys
import threading

EXIT_WATCHDOG = 70


def start_watchdog(timeout_s: float) -> threading.Timer:
    """End the process with exit 70 after ``timeout_s``, unless the timer is cancelled (G11)."""

    def expire() -> None:
        print(f"crush-trio: shutdown took longer than {timeout_s:g} s", file=sys.stderr)  # noqa: T201  # the loop, and with it logging, may be stuck
        sys.stderr.flush()
        os._exit(EXIT_WATCHDOG)

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    timer.start()
    return timer
