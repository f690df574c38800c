"""``script/<file>``: a model that plays a recorded or hand-written conversation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import attrs
import orjson
import trio

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.models import script_schema as s
from crush_trio.models.call_ids import call_id
from crush_trio.models.prompts import prompt_of
from crush_trio.protocol.runs import Usage

ENDED: Final = "(The script has ended.)"
"""The answer where a script goes on with ``end``: a turn without any word would be a failure."""


class ScriptModel:
    """Plays a script: the n-th request of a run gets the n-th step that matches its prompt, that
    of a sub-agent's run the n-th of those for sub-agents.

    It keeps no state, so that one instance serves any number of runs, and a run that a restart
    has interrupted would see the same.

    Args:
        script: What to play.
        path: The file it came from; the model's name is ``script/<path>``.
    """

    def __init__(self, script: s.Script, path: Path) -> None:
        self._script = script
        self._path = path

    @property
    def info(self) -> ModelInfo:
        """What the script says about itself."""
        facts = self._script.model
        return ModelInfo(
            provider="script",
            model=str(self._path),
            **{**attrs.asdict(facts), "name": facts.name or self._path.stem},
            reports_cost=any(
                step.cost_usd is not None
                for step in (*self._script.steps, *self._script.sub_agents)
            ),
        )

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Play the request's step.

        Raises:
            ModelError: The step says so (its own code, or ``truncated``), or no step is left
                (``script_exhausted``).
        """
        await trio.lowlevel.checkpoint()
        step = self._summary(request) if request.summary else self._step(request)
        if step is None:
            emit(TextDelta(ENDED))
            return StepEnd("end_turn")
        asked = False
        for position, action in enumerate(step.actions):
            asked = asked or isinstance(action, s.Tool)
            await _play(action, request, position, emit)
        return StepEnd(
            reason=step.finish or ("tool_use" if asked else "end_turn"),
            usage=_usage(step.usage),
            cost_usd=step.cost_usd,
        )

    def titler(self) -> Model | None:
        """What answers with the script's title, if it has one."""
        title = self._script.title
        return None if title is None else _TitleModel(title, self.info)

    def _summary(self, request: ModelRequest) -> s.Step:
        steps = self._script.summary
        if not steps:
            raise ModelError(
                "script_exhausted",
                f'{self._path} has no "summary" that could be played when one is asked for.',
                title="Script exhausted",
            )
        return steps[min(request.step, len(steps)) - 1]

    def _step(self, request: ModelRequest) -> s.Step | None:
        prompt, number = prompt_of(request)
        script = self._script
        steps = [
            step
            for step in (script.sub_agents if request.sub_agent else script.steps)
            if step.when is None or step.when.matches(prompt, number)
        ]
        index = request.step - 1
        if index < len(steps):
            return steps[index]
        if script.then == "repeat" and steps:
            return steps[index % len(steps)]
        if script.then == "end":
            return None
        what = "sub_agents" if request.sub_agent else "steps"
        raise ModelError(
            "script_exhausted",
            f"{self._path} has {len(steps)} {what} for this prompt, and request {request.step} "
            'of the run needs one more: add it, or set "then" to "end" or "repeat".',
            title="Script exhausted",
        )


@attrs.frozen
class _TitleModel:
    title: s.Title
    info: ModelInfo

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.sleep(math.inf if self.title.silence else self.title.delay_ms / 1000)
        if self.title.error is not None:
            raise ModelError("provider_error", self.title.error)
        emit(TextDelta(self.title.text))
        return StepEnd("end_turn", _usage(self.title.usage), self.title.cost_usd)


async def _play(action: s.Action, request: ModelRequest, position: int, emit: Emit) -> None:
    match action:
        case s.Text():
            pieces: list[ModelEvent] = [
                TextDelta(piece) for piece in _pieces(action.text, action.piece_chars)
            ]
            await _send(pieces, action.tokens, action.every_ms, emit)
        case s.Reasoning():
            pieces = [ReasoningDelta(p) for p in _pieces(action.reasoning, action.piece_chars)]
            await _send(pieces, 1, action.every_ms, emit)
            emit(ReasoningEnd(action.signature))
        case s.Tool():
            await _ask_for_tool(action, action.id or call_id(request, position), emit)
        case s.Wait():
            await trio.sleep(action.wait_ms / 1000)
        case s.Reset():
            delay_s = action.delay_ms / 1000
            emit(StreamReset(action.attempt, action.max_attempts, delay_s, action.reset))
            await trio.sleep(delay_s)
        case s.Error():
            raise ModelError(
                action.code, action.error, retryable=action.retryable, title=action.title
            )
        case s.Counted():
            report = UsageSoFar(_numbers(action.usage_so_far))
            await _send([report], action.times, action.every_ms, emit)
        case s.Silence():
            await trio.sleep_forever()
        case s.Cut():
            raise ModelError(
                "truncated", "The model's answer broke off before its end.", retryable=True
            )


async def _ask_for_tool(action: s.Tool, name: str, emit: Emit) -> None:
    raw = orjson.dumps(action.input).decode() if action.raw_input is None else action.raw_input
    emit(ToolCallStart(name, action.tool))
    pieces: list[ModelEvent] = [
        ToolInputDelta(name, piece) for piece in _pieces(raw, action.piece_chars)
    ]
    await _send(pieces, 1, action.every_ms, emit)
    emit(ToolCallEnd(name, raw, action.signature))


async def _send(pieces: list[ModelEvent], times: int, every_ms: float, emit: Emit) -> None:
    """Emit all pieces ``times`` times.

    Paced pieces keep to their beat: one that came late does not delay those after it.
    """
    start, count, beat = trio.current_time(), 0, every_ms / 1000
    for _ in range(times if pieces else 0):
        for piece in pieces:
            if beat and count:
                await trio.sleep_until(start + count * beat)
            emit(piece)
            count += 1
            if not beat and count % limits.SCRIPT_CHECKPOINT_PIECES == 0:
                await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


def _pieces(text: str, chars: int | None) -> list[str]:
    if not text:
        return []
    if chars is None:
        return [text]
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def _usage(numbers: s.UsageNumbers | None) -> Usage | None:
    return None if numbers is None else _numbers(numbers)


def _numbers(numbers: s.UsageNumbers) -> Usage:
    return Usage(
        numbers.input_tokens,
        numbers.output_tokens,
        numbers.cache_read_tokens,
        numbers.cache_write_tokens,
        numbers.estimated,
    )
