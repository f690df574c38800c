"""One background job as the host holds it: its process, its record, and who waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import trio

from crush_trio.agent.ports import ShellResult
from crush_trio.host.jobs.live import JobLive
from crush_trio.host.kit import JobProcess
from crush_trio.protocol.jobs import JobOutput, JobRecord, JobState
from crush_trio.protocol.runs import LeftProcess, ProcessReport
from crush_trio.store.contract import JobRow


@attrs.define(eq=False)
class Job:
    """Implements `agent.ports.Job`; its owner task is in `host.jobs.jobs`.

    ``started`` is set when its process is there, or will never be (``failure``). From ``settled``
    on nothing of it is left and its record is final; ``ended`` is set once that is durable.
    """

    number: int
    record: JobRecord
    live: JobLive
    on_keep: Callable[[Job], None]
    on_output: Callable[[str, str], None] | None
    listed: bool = attrs.field(init=False)
    process: JobProcess = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    started: trio.Event = attrs.field(factory=trio.Event, init=False)
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    exited: bool = attrs.field(default=False, init=False)
    settled: bool = attrs.field(default=False, init=False)
    failure: Exception | None = attrs.field(default=None, init=False)
    processes: tuple[LeftProcess, ...] = attrs.field(default=(), init=False)
    report: ProcessReport = attrs.field(factory=ProcessReport, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.listed = self.on_output is None

    # --- for tools and routes -------------------------------------------------------------

    def shown(self) -> JobRecord:
        """The record, with the output so far."""
        return attrs.evolve(self.record, output_bytes=self.process.output_bytes)

    def present(self) -> ShellResult:
        """See `agent.ports.Job`."""
        return self.process.present()

    async def read(self, after: int, limit: int) -> JobOutput:
        """See `agent.ports.Job`; ``limit`` is at least 4, so that a character fits."""
        settled = self.settled
        data, position, dropped = await self.process.read(after, limit)
        done = settled and position >= self.process.output_bytes
        whole = data if done else _whole_characters(data)
        position -= len(data) - len(whole)
        return JobOutput(whole.decode("utf-8", "replace"), position, done, dropped)

    async def wait(self, seconds: float) -> bool:
        """See `agent.ports.Job`."""
        with trio.move_on_after(seconds):
            await self.ended.wait()
        return self.ended.is_set()

    async def wait_output(self, after: int, seconds: float) -> None:
        """Return when there is output beyond ``after``, it is ending, or the time is over."""
        with trio.move_on_after(seconds):
            while not self.settled and self.process.output_bytes <= after:
                if self.scope.cancel_called:
                    return
                await self._changed.wait()

    def keep(self) -> bool:
        """See `agent.ports.Job`."""
        if self.settled or self.scope.cancel_called:
            return False
        if not self.listed:
            self.on_keep(self)
            self.on_output = None
        return True

    def stop(self) -> None:
        """Begin to end it. Never waits, idempotent."""
        self.scope.cancel()

    async def kill(self) -> None:
        """See `agent.ports.Job`."""
        self.stop()
        await self.ended.wait()

    @property
    def process_began(self) -> bool:
        """Whether there is, or was, a process."""
        return self.started.is_set() and self.failure is None

    # --- for its owner --------------------------------------------------------------------

    def show(self, stream: str, text: str) -> None:
        """Show output: in the call's name until it is kept, then in its own."""
        if self.on_output is not None:
            self.on_output(stream, text)
            self.live.note(stream, text)
        else:
            self.live.show(stream, text)

    def grow(self) -> None:
        """There is more output, or something else to look at."""
        self._changed.set()
        self._changed = trio.Event()

    def row(self) -> JobRow:
        """What is stored of it now."""
        return JobRow(self.record, self.number, self.listed, self.processes)

    def settle(self, report: ProcessReport) -> None:
        """Make the record final: nothing of it is left but what ``report`` names."""
        self.report = report
        self.record = attrs.evolve(
            self.shown(),
            state=JobState.EXITED if self.exited else JobState.KILLED,
            exit_code=self.process.present().exit_code if self.exited else None,
            ended_at_ms=time.time_ns() // 1_000_000,
            left=report.left,
        )
        self.processes = ()
        self.settled = True


def _whole_characters(data: bytes) -> bytes:
    """The bytes without a character at the end whose rest has not come yet."""
    for size in range(1, min(3, len(data)) + 1):
        first = data[-size]
        if first >= 0xC0:
            needed = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return data[:-size] if size < needed else data
        if first < 0x80:
            break
    return data
