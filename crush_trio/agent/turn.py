"""One turn: ask the model, run the tools it asks for, hand back the results, until it stops."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from crush_trio import limits
from crush_trio.agent import calls, transcript
from crush_trio.agent.asking import Asking, AskingJournal
from crush_trio.agent.budget import Budget, Progress, denied_error
from crush_trio.agent.compaction import Fullness
from crush_trio.agent.compactor import Compactor
from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Model,
    ModelError,
    ModelRequest,
    StepEnd,
    Tool,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.summary import Covers, SummaryInput, covers_nothing
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.messages import FinishPart, Message, ToolCallPart
from crush_trio.protocol.runs import Limits, Outcome, RunError


class TurnJournal(AskingJournal, Protocol):
    """Where a turn writes. What is staged becomes durable with the next `flush` or `begin_step`,
    or with the run's terminal commit, in one transaction each."""

    async def begin_step(self, assistant: Message, progress: Progress) -> tuple[Message, ...]:
        """Fold what waits to steer and create the assistant message; everything staged is durable.

        Returns:
            The folded prompts as user messages, already stored before the assistant message.
        """
        ...

    def stage_message(self, message: Message, progress: Progress) -> None:
        """Stage a message that ended: the assistant's last state, or a new tool message."""
        ...

    def stage_summary(self, message: Message, progress: Progress, before: int, after: int) -> None:
        """Stage a summary that ended, and that the session's history begins with it from now on.

        ``before`` and ``after`` are tokens of the conversation and of the summary.
        """
        ...

    def stage_effects(self, result: ToolResult) -> None:
        """Stage the file versions and read marks of a tool result."""
        ...

    async def flush(self) -> None:
        """Make everything staged durable."""
        ...

    def open_live(self, live: LiveMessage) -> None:
        """From now on subscribers see this message's present state and its deltas."""
        ...

    def close_live(self) -> None:
        """The message is not live any more; a commit with its last state follows or is staged."""
        ...

    def show_delta(
        self, index: int, part: str, offset: int, text: str, tool_call_id: str | None
    ) -> None:
        """Show a piece of the live message."""
        ...


@attrs.frozen
class TurnInput:
    """What a turn starts from. ``history`` ends with the prompt's user message.

    ``fullness`` is the window as the last turn left it. ``leaves_out`` are runs that wait although
    they stand before this one: no summary of this turn speaks of them. ``covers`` finds those that
    ``history`` tells of although they stand behind it: every summary of this turn does.
    """

    session_id: SessionId
    run_id: RunId
    workspace_path: Path
    system: str
    history: tuple[Message, ...]
    limits: Limits
    model: Model
    tools: tuple[Tool, ...]
    context: Callable[[str], ToolContext]
    now_s: Callable[[], int]
    fullness: Fullness = attrs.field(factory=Fullness)
    leaves_out: tuple[RunId, ...] = ()
    covers: Covers = covers_nothing
    taken: frozenset[str] = frozenset()
    """Ids of the session's tool calls, those behind a summary too: no call gets one again."""


@attrs.frozen
class TurnEnd:
    """How a turn ended by itself; a cancelled one does not return."""

    outcome: Outcome
    error: RunError | None = None


@attrs.define(eq=False)
class Turn:
    """One run's turn. `progress` may be read at any time, also after `take` was interrupted."""

    given: TurnInput
    journal: TurnJournal
    progress: Progress = attrs.field(factory=Progress, init=False)
    failure: Exception | None = attrs.field(default=None, init=False)
    """The model's own error: it was raised before anybody asked the run to stop."""
    _budget: Budget = attrs.field(init=False)
    _compactor: Compactor = attrs.field(init=False)
    _messages: list[Message] = attrs.field(factory=list, init=False)
    _taken: frozenset[str] = attrs.field(init=False)
    _signatures: deque[int] = attrs.field(
        factory=lambda: deque(maxlen=limits.LOOP_WINDOW_STEPS), init=False
    )

    def __attrs_post_init__(self) -> None:
        given = self.given
        self._budget = Budget(given.limits, given.model.info)
        self._taken = given.taken | transcript.call_ids(given.history)
        writer = SummaryInput(
            given.session_id,
            given.run_id,
            given.workspace_path,
            given.model,
            given.limits,
            given.now_s,
            given.leaves_out,
            given.covers,
        )
        prompts = list(given.history[-1:])
        self._compactor = Compactor(writer, self.journal, given.fullness, prompts)

    async def take(self) -> TurnEnd:
        """Run the turn to its end.

        Raises:
            ModelError: The model failed; what it had written is left open in the journal.
        """
        self._messages = list(self.given.history)
        while True:
            over = self._budget.before_step(self.progress)
            if over is not None:
                return TurnEnd(Outcome.LIMITED, over)
            if self._compactor.is_due():
                await self._compact()
                continue
            asked, end = await self._step()
            if not asked:
                return self._ended_without_calls(end)
            stop = await self._run_tools(asked)
            if stop is not None:
                return stop
            if end.reason != "tool_use":
                return self._ended_without_calls(end)

    async def _compact(self) -> None:
        """Go on from a summary of what was said; a step of the run (R63, R64)."""
        summary = self._compactor.begin(self.progress)
        try:
            self._messages = await self._compactor.write(summary, self._messages)
        finally:
            self.progress = summary.progress
            self.failure = summary.failure

    # --- the model ------------------------------------------------------------------------

    async def _step(self) -> tuple[tuple[ToolCallPart, ...], StepEnd]:
        info = self.given.model.info
        now_s = self.given.now_s()
        assistant = transcript.open_assistant(
            self.given.session_id, self.given.run_id, info.provider, info.model, now_s
        )
        self.progress = attrs.evolve(
            self.progress, steps=self.progress.steps + 1, waiting_on="model"
        )
        folded = await self.journal.begin_step(assistant, self.progress)
        self._messages += folded
        self._compactor.prompts += folded
        self._compactor.asked = True
        live = LiveMessage(assistant, self.journal.show_delta, self.given.now_s, self._taken)
        self.journal.open_live(live)
        end = await self._ask(live)
        asked = live.calls()
        if not asked and not self.progress.text.strip() and not self.progress.tool_calls:
            raise ModelError("empty_answer", "The model gave an empty answer.", retryable=True)
        message = live.finish(_finish_reason(end, asked))
        self._messages.append(message)
        self._taken |= {call.id for call in asked}
        waiting_on = f"tool:{asked[0].name}" if asked else None
        self.progress = attrs.evolve(self.progress, waiting_on=waiting_on)
        self.journal.stage_message(message, self.progress)
        if asked:
            # The calls are durable before the first one starts, so that after a crash nobody
            # has to guess what may have run (reliability rule K6).
            self.journal.close_live()
            await self.journal.flush()
        # An answer without calls stays live until the terminal commit is queued, so that who
        # joins before that sees all of it.
        return asked, end

    async def _ask(self, live: LiveMessage) -> StepEnd:
        """One model request; what was used is counted however it ends."""
        meter = self._budget.meter(self.progress)
        idle_s = self.given.limits.idle_timeout_s or math.inf
        asking = Asking(
            self.given.model, self._request(), live, meter, self.journal, self._wait_on, idle_s
        )
        end: StepEnd | None = None
        try:
            end = await asking.answer()
        except Exception as exc:
            self.failure = exc
            raise
        finally:
            used = meter.used(live.length)
            self.progress = self._budget.account(self.progress, end, used, live.present())
        self._compactor.fullness.stepped(self.progress.last_usage)
        return end

    def _request(self) -> ModelRequest:
        given = self.given
        return ModelRequest(
            system=given.system,
            messages=transcript.for_model(self._messages),
            tools=tuple(tool.spec for tool in given.tools),
            session_id=given.session_id,
            run_id=given.run_id,
            step=self.progress.steps - self._compactor.requests,
            workspace_path=given.workspace_path,
            max_output_tokens=self._budget.output_tokens_left(self.progress),
        )

    def _wait_on(self, what: str) -> None:
        self.progress = attrs.evolve(self.progress, waiting_on=what)

    # --- the tools ------------------------------------------------------------------------

    async def _run_tools(self, asked: Sequence[ToolCallPart]) -> TurnEnd | None:
        """Run the calls of one step in order; an ending, if the turn must not go on."""
        tools = {tool.spec.name: tool for tool in self.given.tools}
        stop: TurnEnd | None = None
        stopped = False
        parts = []
        for number, call in enumerate(asked):
            over = self._budget.before_call(self.progress)
            if over is not None:
                stop = TurnEnd(Outcome.LIMITED, over)
                break
            result = _STOPPED if stopped else await self._run_one(call, tools)
            part = calls.result_part(call, result)
            parts.append(part)
            message = transcript.tool_message(
                self.given.session_id, self.given.run_id, part, self.given.now_s()
            )
            self._messages.append(message)
            after = f"tool:{asked[number + 1].name}" if number + 1 < len(asked) else "model"
            self._note_result(call, result, after)
            self.journal.stage_message(message, self.progress)
            self.journal.stage_effects(result)
            stopped = stopped or result.stop_turn
            if number + 1 < len(asked):
                await self.journal.flush()
        if stop is None and stopped:
            self._stop_after_tools()
            stop = self._completed()
        if stop is None:
            self._signatures.append(calls.signature(asked, parts))
            if self._signatures.count(self._signatures[-1]) > limits.LOOP_REPEATS:
                stop = _limited("loop", "The model repeated the same tool calls without progress.")
        return stop

    async def _run_one(self, call: ToolCallPart, tools: Mapping[str, Tool]) -> ToolResult:
        prepared = calls.prepare(call, tools)
        if isinstance(prepared, ToolResult):
            return prepared
        tool, checked = prepared
        self.progress = attrs.evolve(
            self.progress,
            waiting_on=f"tool:{call.name}",
            started_calls=self.progress.started_calls | {call.id},
        )
        try:
            return await tool.run(checked, self.given.context(call.id))
        except StoreError:  # nothing the model could act on: the run ends
            raise
        except Exception as exc:  # a tool's bug or a broken machine: the model may try another way
            return ToolResult(f"{call.name} failed: {type(exc).__name__}: {exc}", is_error=True)

    def _note_result(self, call: ToolCallPart, result: ToolResult, waiting_on: str) -> None:
        self.progress = attrs.evolve(
            self.progress,
            tool_calls=self.progress.tool_calls + 1,
            denied=self.progress.denied + result.denied,
            started_calls=self.progress.started_calls - {call.id},
            waiting_on=waiting_on,
        )

    # --- endings --------------------------------------------------------------------------

    def _stop_after_tools(self) -> None:
        """The step's message says that the turn ended with it (R51, R70)."""
        message = next(m for m in reversed(self._messages) if m.role == "assistant")
        parts = tuple(
            attrs.evolve(part, reason="end_turn") if isinstance(part, FinishPart) else part
            for part in message.parts
        )
        self.journal.stage_message(attrs.evolve(message, parts=parts), self.progress)

    def _completed(self) -> TurnEnd:
        denied = denied_error(self.progress)
        return TurnEnd(Outcome.COMPLETED) if denied is None else TurnEnd(Outcome.DENIED, denied)

    def _ended_without_calls(self, end: StepEnd) -> TurnEnd:
        if end.reason == "max_tokens":
            return _limited("max_output_tokens", "The model's answer was cut at its output limit.")
        return self._completed()


_STOPPED = ToolResult("Not run: the turn was stopped before this call", is_error=True)
"""The result of a call that comes after one that stopped the turn."""


def _limited(code: str, message: str) -> TurnEnd:
    return TurnEnd(Outcome.LIMITED, RunError(code, message))


def _finish_reason(end: StepEnd, asked: Sequence[ToolCallPart]) -> str:
    """The stored reason: ``tool_use`` exactly if the model asked for tools and stopped for them."""
    if end.reason == "tool_use" and not asked:
        return "end_turn"
    return end.reason
