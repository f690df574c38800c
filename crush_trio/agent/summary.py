"""A summary being written: the model's words streamed into a message of the conversation (R65)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from crush_trio import limits
from crush_trio.agent import compaction, sizes, transcript
from crush_trio.agent.asking import Asking, AskingJournal
from crush_trio.agent.budget import Budget, LimitReached, Progress
from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StepEnd,
    StreamReset,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.messages import Message, ReasoningPart, TextPart
from crush_trio.protocol.runs import Limits, Usage

TITLE = "Summarization Error"  # of the finish part (R65)
_SYSTEM = (
    "You summarise a conversation between a user and a coding agent, so that the agent can go on "
    "with nothing but your summary. You do not answer the user and you call no tools."
)
_WANTED = (
    "Summarise the conversation above. Say what the user wants, what was found out, which files "
    "were read or changed and how, which commands were run with what result, what was decided and "
    "why, and what is still to be done. Keep names, paths, numbers and exact errors. Write plain "
    "text, as short as that allows."
)


Covers = Callable[[], Awaitable[tuple[RunId, ...]]]
"""Finds a summary's `Message.covers`; asked only when one is written."""


async def covers_nothing() -> tuple[RunId, ...]:
    """Runs that went in the order in which they were accepted leave nothing behind a summary."""
    return ()


class SummaryJournal(AskingJournal, Protocol):
    """What of a turn's journal a summary writes to."""

    def stage_message(self, message: Message, progress: Progress) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    async def flush(self) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    def open_live(self, live: LiveMessage) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    def show_delta(
        self, index: int, part: str, offset: int, text: str, tool_call_id: str | None
    ) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...


@attrs.frozen
class SummaryInput:
    """Who writes a summary, for whom, and within which limits.

    ``leaves_out`` becomes the message's own, and so does what ``covers`` finds; ``earlier`` counts
    the run's requests for summaries before this. ``window`` is the model's, as far as we know; 0 is
    what the model says.
    """

    session_id: SessionId
    run_id: RunId
    workspace_path: Path
    model: Model
    limits: Limits
    now_s: Callable[[], int]
    leaves_out: tuple[RunId, ...] = ()
    covers: Covers = covers_nothing
    earlier: int = 0
    window: int = 0


@attrs.define(eq=False)
class Summary:
    """Writes one summary. `progress` may be read at any time, also after it was interrupted.

    What it has written stays open in the journal until its caller has closed it.
    """

    given: SummaryInput
    journal: SummaryJournal
    progress: Progress = attrs.field(factory=Progress)
    """The run's: its steps, usage and cost grow, its answer and last usage stay what they were."""
    used: Usage = attrs.field(default=Usage(), init=False)
    """Of the last request alone."""
    _asked: bool = attrs.field(default=False, init=False)
    failure: Exception | None = attrs.field(default=None, init=False)
    """The model's own error: it was raised before anybody asked the run to stop."""

    async def write(self, messages: Sequence[Message]) -> Message:
        """Ask for a summary of ``messages``; the finished message, not yet staged.

        A request that is too long for the model is made again with less, a few times; never one
        that is not smaller by our estimate.

        Raises:
            LimitReached: One of the run's limits.
            ModelError: The model failed, said nothing, or ``context_overflow``.
        """
        live = await self._begin()
        room = self._room()
        bound: float = room + 1 if room else math.inf  # what is larger would only be refused
        for tried in range(limits.SUMMARY_TRIES):
            shorter = compaction.shortened(messages, tried, room)
            size = sizes.of_messages(shorter)
            if size >= bound and (self._asked or tried + 1 < limits.SUMMARY_TRIES):
                continue
            bound, self._asked = size, True
            try:
                await self._ask(live, shorter, tried)
            except ModelError as exc:
                if exc.code != "context_too_long":
                    self.failure = _as_ours(exc)
                    raise self.failure from exc
                again = StreamReset(tried + 1, limits.SUMMARY_TRIES, 0.0, exc.message)
                live.apply(again)
                self.journal.show_reset(again)
                self.journal.show_waiting_on("summarize")  # it is asked again at once
                continue
            if not live.present().text().strip():
                raise ModelError("empty_answer", "The model gave an empty summary.", title=TITLE)
            return live.finish("end_turn")
        overflow = compaction.OVERFLOW
        raise ModelError(overflow.code, overflow.message, title=TITLE)

    def _room(self) -> int:
        """What of the window is left for the messages, in tokens; 0 if the window is unknown."""
        window = self.given.window or self.given.model.info.context_window
        frame = sizes.of_text(_SYSTEM) + sizes.of_message(self._instruction())
        return max(1, int(window * limits.SUMMARY_READ_SHARE) - frame) if window > 0 else 0

    async def _begin(self) -> LiveMessage:
        given, info = self.given, self.given.model.info
        opened = transcript.open_assistant(
            given.session_id, given.run_id, info.provider, info.model, given.now_s()
        )
        opened = attrs.evolve(
            opened,
            is_summary_message=True,
            leaves_out=given.leaves_out,
            covers=await given.covers(),
        )
        self.progress = attrs.evolve(self.progress, waiting_on="summarize")
        live = LiveMessage(opened, self.journal.show_delta, given.now_s)
        self.journal.stage_message(opened, self.progress)
        # Held before it is stored, so that whatever interrupts the storing finds it open.
        self.journal.open_live(live)
        await self.journal.flush()
        return live

    async def _ask(self, live: LiveMessage, messages: Sequence[Message], tried: int) -> None:
        given, info = self.given, self.given.model.info
        budget = Budget(given.limits, info)
        blind = budget.blind(self.progress)
        if blind is not None:
            raise ModelError(blind.code, blind.message, title=TITLE)
        over = budget.before_step(self.progress)
        if over is not None:
            raise LimitReached(over.code, over.message)
        sent = (*transcript.for_model(messages, info), self._instruction())
        size = sizes.of_messages(sent) + sizes.of_text(_SYSTEM)
        room = compaction.answer_room(
            given.window or info.context_window, size, info.max_output_tokens
        )
        self.progress = attrs.evolve(self.progress, steps=self.progress.steps + 1)
        request = ModelRequest(
            system=_SYSTEM,
            messages=sent,
            tools=(),
            session_id=given.session_id,
            run_id=given.run_id,
            step=given.earlier + tried + 1,
            workspace_path=given.workspace_path,
            max_output_tokens=budget.output_tokens_left(self.progress, room),
            summary=True,
        )
        meter = budget.meter(self.progress, size)
        idle_s = given.limits.idle_timeout_s or math.inf
        model = _WordsOnly(given.model)
        asking = Asking(
            model, request, live, meter, self.journal, self._waits_on, idle_s, "summarize"
        )
        end: StepEnd | None = None
        try:
            end = await asking.answer()
        finally:
            before, used = self.progress, meter.used(live.length, ended=end is not None)
            after = budget.account(before, end, used, live.present(), meter.abandoned)
            self.used = after.last_usage
            self.progress = attrs.evolve(
                after, last_usage=before.last_usage, message_id=before.message_id, text=before.text
            )

    def _waits_on(self, waiting_on: str) -> None:
        self.progress = attrs.evolve(self.progress, waiting_on=waiting_on)

    def _instruction(self) -> Message:
        given = self.given
        return transcript.user_message(
            given.session_id, given.run_id, (TextPart(_WANTED),), given.now_s()
        )


def tokens_in(summary: Message, used: Usage) -> int:
    """How large a summary is: as its provider said, else estimated (R65).

    What was thought in front of it is not part of it, but of what the provider counted.
    """
    thought = any(isinstance(part, ReasoningPart) for part in summary.parts)
    said = 0 if thought else used.output_tokens
    return said or sizes.of_text(summary.text())


@attrs.frozen
class _WordsOnly:
    """A model without its tool calls: nobody would run them."""

    model: Model

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        def words(event: ModelEvent) -> None:
            if not isinstance(event, ToolCallStart | ToolInputDelta | ToolCallEnd):
                emit(event)

        return await self.model.stream(request, words)


def _as_ours(exc: ModelError) -> ModelError:
    return ModelError(exc.code, exc.message, retryable=exc.retryable, title=TITLE)
