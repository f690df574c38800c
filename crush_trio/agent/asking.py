"""One model request: its pieces into the live message, its limits while it streams, its retries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.budget import LimitReached, StepMeter
from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Model,
    ModelEvent,
    ModelRequest,
    StepEnd,
    StreamReset,
    UsageSoFar,
)
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.runs import RunError


class AskingJournal(Protocol):
    """What of a `TurnJournal` a request writes to while it streams."""

    async def checkpoint(self) -> None:
        """Write the live message's present state to its row, and wait until it is there (G8).

        Raises:
            StoreError: It cannot be written, as on a full disk.
        """
        ...

    def show_reset(self, reset: StreamReset) -> None:
        """Show that the model is asked again, the emptied message, and that the run waits."""
        ...

    def show_waiting_on(self, waiting_on: str) -> None:
        """Publish what the run waits for now."""
        ...


@attrs.define(eq=False)
class Asking:
    """Asks a model once, and watches it while it answers.

    Only content keeps ``idle_s`` from running out: pieces that change the message. Empty pieces
    and reports of usage do not, and the wait before a retry is ours, not the model's.
    """

    model: Model
    request: ModelRequest
    live: LiveMessage
    meter: StepMeter
    journal: AskingJournal
    waits_on: Callable[[str], None]
    """Told of each change before it is published, so that later commits say the same."""
    idle_s: float = math.inf
    waits_as: str = "model"
    """What the run waits on, in its record's word."""
    _idle: trio.CancelScope = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _over: RunError | None = attrs.field(default=None, init=False)
    _cut: bool = attrs.field(default=False, init=False)
    _unwritten: StoreError | None = attrs.field(default=None, init=False)
    _resets: int = attrs.field(default=0, init=False)
    _retrying: bool = attrs.field(default=False, init=False)

    async def answer(self) -> StepEnd:
        """The model's own end. An error raised before anything asked it to stop is its own, and
        is raised even if somebody cancels in the same moment (G4).

        Raises:
            LimitReached: It was silent for too long, or a limit cut its answer.
            ModelError: As `Model.stream`.
            StoreError: What it said so far could not be stored; it is not asked on.
        """
        end: StepEnd | None = None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._checkpoint_while_open)
            with trio.move_on_after(self.idle_s) as self._idle:
                try:
                    end = await self.model.stream(self.request, self._emit)
                except Exception as exc:
                    # What it raises after it was told to stop is the consequence, not the cause.
                    if trio.current_effective_deadline() > -math.inf:
                        failure = exc
                        nursery.cancel_scope.shield = True  # only the clock is left, and it ends
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if end is not None and not self._cut:
            return end
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._unwritten is not None:
            raise self._unwritten
        if self._over is not None:
            raise LimitReached(self._over.code, self._over.message)
        raise LimitReached("idle_timeout", f"The model was silent for {self.idle_s:g} s.")

    def _emit(self, event: ModelEvent) -> None:
        if self._over is not None:
            self._cut = True  # the answer ended at the limit; what follows is not part of it
            return
        length = self.live.length
        content = self.live.apply(event)
        if content:
            if self._retrying:
                self._show_model()
            if self.idle_s < math.inf:  # a new deadline costs a third of what a token costs
                self._idle.deadline = trio.current_time() + self.idle_s
        elif isinstance(event, UsageSoFar):
            self.meter.report(event.usage, self.live.length)
        elif isinstance(event, StreamReset):
            self.meter.reset(length)
            self._begin_retry(event)
        if self.live.length > self.meter.room:
            self._over = self.meter.over()
            self._idle.cancel()

    def _begin_retry(self, reset: StreamReset) -> None:
        self._idle.deadline = trio.current_time() + self.idle_s + reset.delay_s
        self._resets += 1
        self._retrying = True
        self.waits_on("retry")
        self.journal.show_reset(reset)
        self._nursery.start_soon(self._end_retry, self._resets, reset.delay_s)

    async def _end_retry(self, number: int, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if self._retrying and number == self._resets:
            self._show_model()

    def _show_model(self) -> None:
        self._retrying = False
        self.waits_on(self.waits_as)
        self.journal.show_waiting_on(self.waits_as)

    async def _checkpoint_while_open(self) -> None:
        while True:
            await trio.sleep(limits.TEXT_CHECKPOINT_S)
            if self.live.changed:
                self.live.changed = False
                try:
                    await self.journal.checkpoint()
                except StoreError as exc:
                    self._unwritten = exc
                    self._idle.cancel()
                    return
