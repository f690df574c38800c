"""What one command writes, from its pipes into memory, to subscribers and into a file."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable

import trio

from crush_trio.agent.ports import ShellResult
from crush_trio.limits import (
    OUTPUT_ABANDON_S,
    OUTPUT_CHUNK_BYTES,
    OUTPUT_DRAIN_BYTES,
    OUTPUT_PIPE_BYTES,
)
from crush_trio.tools.processes.capture import StreamCapture
from crush_trio.tools.processes.launched import Launched
from crush_trio.tools.processes.spill import CallSpill, output_id_of

_SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux


class CommandOutput:
    """One command's output on its way into memory, to subscribers, and into a file.

    Args:
        on_output: Takes ``(stream, text)`` as it comes; never waits.
        spill: Takes both streams as they come.
        kept: Whether what a cancelled command wrote is kept.
        on_growth: Called whenever there is more to `read`; never waits.
        whole_from: A stream of more bytes is kept in a file, because it will not be shown whole.
    """

    def __init__(
        self,
        on_output: Callable[[str, str], None],
        spill: CallSpill,
        *,
        kept: bool = False,
        on_growth: Callable[[], None] = lambda: None,
        whole_from: float = math.inf,
    ) -> None:
        self._on_growth = on_growth
        self._whole_from = whole_from
        self.spill = spill
        self.kept = kept
        self._out = StreamCapture("stdout", on_output)
        self._err = StreamCapture("stderr", on_output)
        self._spilling = trio.Lock()  # a `CallSpill` takes one piece at a time
        self._widened: set[int] = set()

    async def follow(self, launched: Launched) -> None:
        """Read both pipes until the shell has exited, then what they hold at that moment."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, launched.stdout, self._out)
            nursery.start_soon(self._read, launched.stderr, self._err)
            await launched.wait_shell()
            nursery.cancel_scope.cancel()
        await self.drain(launched)

    async def _read(self, fd: int, stream: StreamCapture) -> None:
        while True:
            await trio.lowlevel.wait_readable(fd)
            if not await self._read_piece(fd, stream):
                return

    async def _read_piece(self, fd: int, stream: StreamCapture) -> int:
        """Take what the pipe holds now, if anything; how many bytes that was."""
        wide = fd in self._widened
        try:
            data = os.read(fd, OUTPUT_PIPE_BYTES if wide else OUTPUT_CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if len(data) == OUTPUT_CHUNK_BYTES and not wide:
            self._widen(fd)
        stream.feed(data)
        with trio.CancelScope(shield=True):  # bound: one write; else a read piece would be lost
            async with self._spilling:
                if self.spill.wants_thread(len(data)):
                    await trio.to_thread.run_sync(self.spill.feed, data)
                else:
                    self.spill.feed(data)
        self._on_growth()
        return len(data)

    def _widen(self, fd: int) -> None:
        """Give a pipe that was found full more room: each piece costs a turn of a thread.

        Not from the start: what all pipes of a user may hold together is bounded by the kernel.
        """
        self._widened.add(fd)
        if _SET_PIPE_SIZE is not None:
            with contextlib.suppress(OSError):  # the user's share is used up: it stays as it is
                fcntl.fcntl(fd, _SET_PIPE_SIZE, OUTPUT_PIPE_BYTES)

    async def drain(self, launched: Launched) -> None:
        """Read what lies in the pipes. A background process may write for ever: hence a bound."""
        for fd, stream in ((launched.stdout, self._out), (launched.stderr, self._err)):
            if fd < 0:
                continue
            end = stream.total + OUTPUT_DRAIN_BYTES
            while stream.total < end:
                if not await self._read_piece(fd, stream):
                    break
                await trio.lowlevel.checkpoint()

    async def abandon(self, launched: Launched) -> None:
        """The command was cancelled and its tree has ended: keep what it wrote, or forget it."""
        if not self.kept:
            self.spill.discard()
            return
        with trio.move_on_after(OUTPUT_ABANDON_S, shield=True):  # the last words of a killed job
            await self.drain(launched)
            await trio.to_thread.run_sync(self.spill.finish)

    async def read(self, after: int, limit: int) -> tuple[bytes, int, int]:
        """See `CallSpill.read`; both streams as they came."""
        async with self._spilling:
            return await trio.to_thread.run_sync(self.spill.read, after, limit)

    def present(self, exit_code: int | None, began_ms: int, ended_ms: int) -> ShellResult:
        """What there is now; nothing is finished by looking."""
        return ShellResult(
            exit_code=exit_code,
            stdout=self._out.kept.text(),
            stderr=self._err.kept.text(),
            stdout_dropped=self._out.kept.dropped,
            stderr_dropped=self._err.kept.dropped,
            started_ms=began_ms,
            ended_ms=ended_ms,
            stdout_dropped_lines=self._out.kept.dropped_lines,
            stderr_dropped_lines=self._err.kept.dropped_lines,
        )

    async def result(self, launched: Launched, timed_out: bool, began_ms: int) -> ShellResult:
        """What the call comes to, after its shell or its tree has ended."""
        stdout, stderr = self._out.finish(), self._err.finish()
        if launched.exit_code is None and not timed_out:
            stderr += "\nthe process that watched over this command was killed"
        whole = max(self._out.total, self._err.total) > self._whole_from
        path = await trio.to_thread.run_sync(self.spill.finish, whole)
        code = 137 if launched.exit_code is None else launched.exit_code
        return ShellResult(
            exit_code=None if timed_out else code,
            stdout=stdout,
            stderr=stderr,
            stdout_dropped=self._out.kept.dropped,
            stderr_dropped=self._err.kept.dropped,
            timed_out=timed_out,
            spill_path=path,
            output_id=None if path is None else output_id_of(path),
            spill_dropped=0 if path is None else self.spill.dropped,
            total=self._out.total + self._err.total,
            still_running=0 if timed_out else launched.still_running,
            started_ms=began_ms,
            ended_ms=time.time_ns() // 1_000_000,
            stdout_dropped_lines=self._out.kept.dropped_lines,
            stderr_dropped_lines=self._err.kept.dropped_lines,
        )
