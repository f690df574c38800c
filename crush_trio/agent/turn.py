"""One turn: ask the model, run the tools it asks for, hand back the results, until it stops."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from crush_trio import limits
from crush_trio.agent import calling, calls, endings, sizes, transcript
from crush_trio.agent.asking import Asking, AskingJournal
from crush_trio.agent.budget import Budget, Progress
from crush_trio.agent.compaction import Fullness
from crush_trio.agent.compactor import Compactor
from crush_trio.agent.endings import TurnEnd as TurnEnd  # part of this module's words
from crush_trio.agent.hooks import NoHooks
from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Hooks,
    Model,
    ModelError,
    ModelRequest,
    StepEnd,
    Tool,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.summary import Covers, SummaryInput, covers_nothing
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.messages import FinishPart, Message, ToolCallPart, ToolResultPart
from crush_trio.protocol.runs import Limits, Outcome


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

    def stage_pruned(self, before: int, after: int) -> None:
        """Stage the notice that old tool output is not sent any more from the next step on.

        ``before`` and ``after`` are tokens of the conversation.
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
    hooks: Hooks = attrs.field(factory=NoHooks)
    taken: frozenset[str] = frozenset()
    """Ids of the session's tool calls, those behind a summary too: no call gets one again."""
    sub_agent: bool = False


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
        given.fullness.frame = sizes.of_frame(given.system, [tool.spec for tool in given.tools])
        self._compactor = Compactor(writer, self.journal, given.fullness, prompts)
        self._compactor.begin_with(given.history[:-1])

    async def take(self) -> TurnEnd:
        """Run the turn to its end.

        Raises:
            ModelError: The model failed; what it had written is left open in the journal.
        """
        self._messages = list(self.given.history)
        while True:
            over = self._over()
            if over is not None:
                return over
            sent = self._compactor.fit(self._messages)
            if self._compactor.is_due(self._messages):
                await self._compact()
                continue
            said = await self._step(sent)
            if said is None:
                continue
            asked, end = said
            stop = None
            if asked and end.reason != "content_filter":
                stop = await self._run_tools(asked, end)
            stop = stop or endings.of_step(end, self.progress, asked)
            if stop is not None:
                return stop

    def _over(self) -> TurnEnd | None:
        """The ending, if no further request may be made."""
        blind = self._budget.blind(self.progress)
        if blind is not None:
            return TurnEnd(Outcome.FAILED, blind)
        over = self._budget.before_step(self.progress)
        return None if over is None else TurnEnd(Outcome.LIMITED, over)

    async def _compact(self) -> None:
        """Go on from a summary of what was said; a step of the run (R63, R64)."""
        summary = self._compactor.begin(self.progress)
        try:
            self._messages = await self._compactor.write(summary, self._messages)
        finally:
            self.progress = summary.progress
            self.failure = summary.failure

    # --- the model ------------------------------------------------------------------------

    async def _step(
        self, sent: tuple[Message, ...]
    ) -> tuple[tuple[ToolCallPart, ...], StepEnd] | None:
        """Ask with ``sent``; ``None`` if that is too long, and can be made shorter."""
        info = self.given.model.info
        now_s = self.given.now_s()
        assistant = transcript.open_assistant(
            self.given.session_id, self.given.run_id, info.provider, info.model, now_s
        )
        before = self.progress
        self.progress = attrs.evolve(before, steps=before.steps + 1, waiting_on="model")
        folded = await self.journal.begin_step(assistant, self.progress)
        if folded:
            self._messages += folded
            self._compactor.prompts += folded
            sent = self._compactor.fit(self._messages)
        live = LiveMessage(assistant, self.journal.show_delta, self.given.now_s, self._taken)
        self.journal.open_live(live)
        if folded and self._compactor.is_due(self._messages):
            self.progress = attrs.evolve(self.progress, steps=before.steps)  # it is not asked
            await self._take_back(live, _JOINED, before)
            return None
        try:
            end = await self._ask(live, sent)
        except ModelError as exc:
            if exc.code != "context_too_long":
                raise
            self._compactor.refused()
            await self._take_back(live, exc, before)
            return None
        asked = live.calls()
        failure = endings.no_answer(end, live.present(), asked)
        if failure is not None:
            raise failure
        message = live.finish(endings.finish_reason(end, asked))
        self._messages.append(message)
        self._compactor.answered(self.progress.last_usage, message)
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

    async def _take_back(self, live: LiveMessage, exc: ModelError, before: Progress) -> None:
        """Close the message of a request that is too long; the next one will be shorter.

        Raises:
            ModelError: It cannot be made shorter.
        """
        try:
            reset = self._compactor.shorten(exc, self._messages)
        except ModelError as final:
            self.failure = final
            raise
        self.failure = None
        live.apply(reset)
        self.journal.show_reset(reset)
        now_s = self.given.now_s()
        finish = transcript.finish_part(transcript.Cause.FAILED, now_s, exc.title, exc.message)
        closed = transcript.closed_assistant(live.present(), finish, now_s)
        self.progress = attrs.evolve(
            self.progress, message_id=before.message_id, text=before.text, waiting_on="model"
        )
        self.journal.stage_message(closed, self.progress)
        self.journal.close_live()
        await self.journal.flush()

    async def _ask(self, live: LiveMessage, sent: tuple[Message, ...]) -> StepEnd:
        """One model request; what was used is counted however it ends."""
        meter = self._budget.meter(self.progress, self._compactor.fullness.estimate)
        idle_s = self.given.limits.idle_timeout_s or math.inf
        asking = Asking(
            self.given.model, self._request(sent), live, meter, self.journal, self._wait_on, idle_s
        )
        end: StepEnd | None = None
        try:
            end = await asking.answer()
        except Exception as exc:
            self.failure = exc
            raise
        finally:
            used, lost = meter.used(live.length, ended=end is not None), meter.abandoned
            self.progress = self._budget.account(self.progress, end, used, live.present(), lost)
        return end

    def _request(self, sent: tuple[Message, ...]) -> ModelRequest:
        given = self.given
        return ModelRequest(
            system=given.system,
            messages=transcript.for_model(sent, given.model.info),
            tools=tuple(tool.spec for tool in given.tools),
            session_id=given.session_id,
            run_id=given.run_id,
            step=self.progress.steps - self._compactor.requests,
            workspace_path=given.workspace_path,
            sub_agent=given.sub_agent,
            max_output_tokens=self._budget.output_tokens_left(
                self.progress, self._compactor.answer_room()
            ),
        )

    def _wait_on(self, what: str) -> None:
        self.progress = attrs.evolve(self.progress, waiting_on=what)

    # --- the tools ------------------------------------------------------------------------

    async def _run_tools(self, asked: Sequence[ToolCallPart], end: StepEnd) -> TurnEnd | None:
        """Run the calls of one step in order; an ending, if the turn must not go on."""
        cut = calls.cut_off(asked) if end.reason == "max_tokens" else None
        tools = {tool.spec.name: tool for tool in self.given.tools}
        stop: TurnEnd | None = None
        stopped = False
        parts = []
        for number, call in enumerate(asked):
            over = self._budget.before_call(self.progress)
            if over is not None:
                stop = TurnEnd(Outcome.LIMITED, over)
                break
            if stopped or call is cut:
                result = _STOPPED if stopped else _CUT_OFF
            else:
                result = await self._run_one(call, tools)
            after = f"tool:{asked[number + 1].name}" if number + 1 < len(asked) else "model"
            parts.append(self._take_result(call, result, after))
            stopped = stopped or result.stop_turn
            if number + 1 < len(asked):
                await self.journal.flush()
        if stop is None and stopped:
            self._stop_after_tools()
            stop = endings.completed(self.progress)
        if stop is None:
            self._signatures.append(calls.signature(asked, parts))
            if self._signatures.count(self._signatures[-1]) > limits.LOOP_REPEATS:
                sentence = "The model repeated the same tool calls without progress."
                stop = endings.limited("loop", sentence)
        return stop

    async def _run_one(self, call: ToolCallPart, tools: Mapping[str, Tool]) -> ToolResult:
        self._wait_on(f"tool:{call.name}")

        def begin() -> None:
            started = self.progress.started_calls | {call.id}
            self.progress = attrs.evolve(self.progress, started_calls=started)

        def cut(result: ToolResult) -> None:
            self._take_result(call, result, "model")

        around = calling.Around(self.given.hooks, begin, self.journal.stage_effects, cut)
        return await calling.carry_out(call, tools, self.given.context(call.id), around)

    def _take_result(
        self, call: ToolCallPart, result: ToolResult, waiting_on: str
    ) -> ToolResultPart:
        part = calls.result_part(call, result)
        message = transcript.tool_message(
            self.given.session_id, self.given.run_id, part, self.given.now_s()
        )
        self._messages.append(message)
        self.progress = attrs.evolve(
            self.progress,
            tool_calls=self.progress.tool_calls + 1,
            denied=self.progress.denied + result.denied,
            started_calls=self.progress.started_calls - {call.id},
            waiting_on=waiting_on,
        )
        self.journal.stage_message(message, self.progress)
        return part

    # --- endings --------------------------------------------------------------------------

    def _stop_after_tools(self) -> None:
        """The step's message says that the turn ended with it (R51, R70)."""
        message = next(m for m in reversed(self._messages) if m.role == "assistant")
        parts = tuple(
            attrs.evolve(part, reason="end_turn") if isinstance(part, FinishPart) else part
            for part in message.parts
        )
        self.journal.stage_message(attrs.evolve(message, parts=parts), self.progress)


_STOPPED = ToolResult("Not run: the turn was stopped before this call", is_error=True)
"""The result of a call that comes after one that stopped the turn."""
_CUT_OFF = ToolResult("Not run: the call was cut off at the output limit", is_error=True)
"""The result of a call whose arguments are not known to be whole."""
_JOINED = ModelError(
    "context_too_long",
    "With the prompts that joined, the conversation is too long.",
    title="Context too long",
)
