"""The built-in model: finds the command in the prompt and asks for its tool calls, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import orjson
import trio

from crush_trio.agent.ports import (
    Emit,
    ModelInfo,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.models.call_ids import call_id
from crush_trio.models.prompts import turn_start
from crush_trio.models.scout.commands import command
from crush_trio.models.scout.plan import Answer, Call, Plan
from crush_trio.protocol.messages import Message, ToolResultPart
from crush_trio.protocol.runs import Usage

SCOUT: Final = ModelInfo(
    provider="offline",
    model="scout",
    name="Scout (no language model)",
    cost_per_1m_in=0.0,
    cost_per_1m_out=0.0,
    is_language_model=False,
)
SAYS: Final = "_offline/scout: no language model is configured; this is a fixed set of commands._"


class Scout:
    """A deterministic planner; it keeps nothing between two requests."""

    @property
    def info(self) -> ModelInfo:
        """Its name; it says of itself that it is no language model."""
        return SCOUT

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Ask for the command's next tool calls, or give its text.

        Raises:
            ModelError: ``no_language_model``: the prompt is none of its commands.
        """
        await trio.lowlevel.checkpoint()
        wanted = _next(request)
        if isinstance(wanted, str):
            for line in f"{wanted}\n\n{SAYS}\n".splitlines(keepends=True):
                emit(TextDelta(line))
                await trio.lowlevel.checkpoint()
            return StepEnd("end_turn", Usage())
        for position, call in enumerate(wanted):
            name, raw = call_id(request, position), orjson.dumps(call.input).decode()
            emit(ToolCallStart(name, call.tool))
            emit(ToolInputDelta(name, raw))
            emit(ToolCallEnd(name, raw))
        return StepEnd("tool_use", Usage())


def _next(request: ModelRequest) -> tuple[Call, ...] | str:
    """The calls to make now, or the final text: the plan is run again on what is known."""
    turn = request.messages[turn_start(request) :]
    tools = {tool.name for tool in request.tools}
    steps = (message for message in turn if message.role == "assistant" and message.tool_calls())
    results = {result.tool_call_id: result for message in turn for result in message.tool_results()}
    plan = _plan([message.text() for message in turn if message.role == "user"])
    answers: tuple[Answer, ...] | None = None
    while True:
        try:
            calls = plan.send(answers) if answers is not None else next(plan)
        except StopIteration as end:
            return str(end.value)
        possible = tuple(call for call in calls if call.tool in tools)
        known: Iterator[Answer] = iter(())
        if possible:
            message = next(steps, None)
            if message is None:
                return possible
            known = _answers(message, results, str(request.workspace_path))
        answers = tuple(
            next(known, Answer(False, f"there is no result of {call.tool}"))
            if call.tool in tools
            else Answer(False, f"the tool {call.tool} is not available in this run")
            for call in calls
        )


def _plan(prompts: list[str]) -> Plan:
    """All prompts of the turn, one after the other: a later one was steered into it."""
    text = yield from command(prompts[0] if prompts else "")
    for prompt in prompts[1:]:
        text += "\n\n" + (yield from command(prompt))
    return text


def _answers(
    message: Message, results: Mapping[str, ToolResultPart], root: str
) -> Iterator[Answer]:
    for call in message.tool_calls():
        result = results.get(call.id)
        if result is None:
            yield Answer(False, f"there is no result of {call.name}")
        else:
            metadata = orjson.loads(result.metadata) if result.metadata else {}
            yield Answer(not result.is_error, result.content, metadata, root)
