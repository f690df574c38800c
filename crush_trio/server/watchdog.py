"""What bounds a shutdown: a budget for each step, and a thread that ends the process after all."""

from __future__ import annotations

import os
import sys
import threading

import attrs

from crush_trio import limits

EXIT_WATCHDOG = 70


@attrs.frozen
class Budget:
    """The most that each step of a shutdown may take, in seconds, in the order of the steps (G11).

    What a step does not finish in its time is left behind, and the next one begins.
    """

    runs_s: float
    subscribers_s: float
    http_s: float
    tools_s: float
    store_s: float

    @classmethod
    def of(cls, timeout_s: float) -> Budget:
        """The steps of ``--shutdown-timeout``; longer or shorter, they keep their proportions."""
        scale = timeout_s / limits.SHUTDOWN_TIMEOUT_S
        return cls(
            limits.SHUTDOWN_RUNS_S * scale,
            limits.SHUTDOWN_SUBSCRIBERS_S * scale,
            limits.SHUTDOWN_HTTP_S * scale,
            limits.SHUTDOWN_TOOLS_S * scale,
            limits.SHUTDOWN_STORE_S * scale,
        )


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
