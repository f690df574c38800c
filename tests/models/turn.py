"""A turn in a few lines: a model, the real tools in a real directory, and a permission mode."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

import attrs
import orjson
import trio

from crush_trio.agent.ports import (
    Decision,
    Model,
    PermissionAsk,
    Tool,
    ToolCall,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.protocol.messages import Message, ToolCallPart, ToolResultPart
from crush_trio.tools.catalogue import builtin_tools
from crush_trio.tools.permission.patterns import decide
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from tests.models.kit import RUN, SESSION, message, play, request, text_of, user


@attrs.define
class Turn:
    """What one prompt led to: the answer, and each call with its result, by step."""

    answer: str
    steps: list[list[tuple[ToolCall, ToolResult]]]

    def calls(self) -> list[str]:
        """The names of all tools that were called."""
        return [call.name for step in self.steps for call, _ in step]


async def run_turn(
    model: Model,
    prompt: str,
    workspace: Path,
    spill: Path,
    *,
    mode: str = "deny",
    without: Collection[str] = (),
) -> Turn:
    """Drive the model to the end of its turn."""
    tools = {tool.spec.name: tool for tool in builtin_tools({}) if tool.spec.name not in without}
    reads: dict[str, int] = {}
    processes = RunProcesses(SpillArea(spill))

    async def ask(wanted: PermissionAsk) -> Decision:
        decision = decide(wanted, mode, (), (), workspace=workspace)
        return decision or Decision(False, "Nobody is here to be asked.")

    context = ToolContext(
        workspace_id=WorkspaceId("w"),
        workspace_path=workspace,
        session_id=SESSION,
        run_id=RUN,
        ask=ask,
        output=lambda _stream, _text: None,
        last_read=reads.get,
        processes=processes,
        env=tool_environment(os.environ),
        config={},
    )
    try:
        return await _drive(model, prompt, tools, context, reads)
    finally:
        await processes.aclose()


async def _drive(
    model: Model,
    prompt: str,
    tools: dict[str, Tool],
    context: ToolContext,
    reads: dict[str, int],
) -> Turn:
    messages: list[Message] = [user(prompt)]
    turn = Turn("", [])
    specs = tuple(tool.spec for tool in tools.values())
    for step in range(1, 21):
        events, end = await play(
            model, request(*messages, step=step, tools=specs, workspace=context.workspace_path)
        )
        names = {event.id: event.name for event in events if isinstance(event, ToolCallStart)}
        calls = [
            ToolCall(event.id, names[event.id], orjson.loads(event.input))
            for event in events
            if isinstance(event, ToolCallEnd)
        ]
        if end.reason != "tool_use":
            turn.answer = text_of(events)
            return turn
        results: dict[str, ToolResult] = {}

        async def run(call: ToolCall, into: dict[str, ToolResult] = results) -> None:
            into[call.id] = await tools[call.name].run(call, context)

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
        done = [(call, results[call.id]) for call in calls]
        for result in results.values():
            reads.update(dict.fromkeys(result.read_paths, time.time_ns()))
        turn.steps.append(done)
        parts = (
            ToolCallPart(call.id, call.name, orjson.dumps(call.arguments).decode(), True)
            for call in calls
        )
        messages += [message("assistant", *parts), message("tool", *map(_part, done))]
    raise AssertionError("the turn does not end")


def _part(done: tuple[ToolCall, ToolResult]) -> ToolResultPart:
    call, result = done
    return ToolResultPart(
        call.id,
        call.name,
        result.content,
        metadata=orjson.dumps(result.metadata).decode() if result.metadata else "",
        is_error=result.is_error,
    )
