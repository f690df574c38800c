"""Ctrl-C and its relatives for a command that follows a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import trio

from crush_trio.cli.exit_codes import signal_exit_code

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """Runs ``on_first`` at the first signal; the second one ends the process at once.

    ``last_words`` is told the exit code then, inside a signal handler: it must not wait.
    """

    def __init__(
        self,
        on_first: Callable[[], Awaitable[None]],
        last_words: Callable[[int], None] | None = None,
    ) -> None:
        self.signum: int | None = None
        self._on_first = on_first
        self._last_words = last_words

    async def listen(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Wait for the first signal and act on it; ends with the nursery."""
        with trio.open_signal_receiver(*_SIGNALS) as arriving:
            task_status.started()
            async for signum in arriving:
                self.signum = signum
                # From here on the interpreter itself serves the next signal: it need not wait
                # for our event loop, which may be stuck in a write to a terminal.
                for each in _SIGNALS:
                    signal.signal(each, self._leave_at_once)
                await self._on_first()
                await trio.sleep_forever()

    @property
    def exit_code(self) -> int | None:
        """128 + the signal, or ``None`` if none came."""
        return None if self.signum is None else signal_exit_code(self.signum)

    def _leave_at_once(self, signum: int, frame: FrameType | None) -> None:
        try:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)  # a spinner hides it
            if self._last_words is not None:
                self._last_words(signal_exit_code(signum))
        finally:
            os._exit(signal_exit_code(signum))
