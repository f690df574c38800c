"""One tool call from what the model asked for to its result, with the hooks around it (CW 7.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import trio

from crush_trio.agent import calls
from crush_trio.agent.hooks import Said, refused, together, told
from crush_trio.agent.ports import (
    Decision,
    Hooks,
    PermissionAsk,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
)
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.messages import ToolCallPart


@attrs.frozen
class Around:
    """What happens before and after a tool itself.

    Args:
        begin: Called when the tool is about to begin: from then on it may have done something.
            Hooks before it do not count, they are not the model's doing.
        end: Takes its result as soon as there is one, so that what it changed is remembered also
            if the run is cancelled while hooks look at it.
        cut: Then takes the result itself, which nobody waits for any more: it was done.
    """

    hooks: Hooks
    begin: Callable[[], None]
    end: Callable[[ToolResult], None]
    cut: Callable[[ToolResult], None]


async def carry_out(
    part: ToolCallPart, tools: Mapping[str, Tool], context: ToolContext, around: Around
) -> ToolResult:
    """Make one call, unless its arguments or a hook are against it.

    Raises:
        StoreError: Nothing the model could act on: the run ends.
    """
    prepared = calls.prepare(part, tools)
    if isinstance(prepared, ToolResult):
        return prepared
    tool, call = prepared
    try:
        before = together(await around.hooks.before_tool(call.name, call.arguments))
        result = refused(before)
        if result is not None:
            return result
        checked = _rewritten(tool, call, before)
        if isinstance(checked, ToolResult):
            return told(checked, before, Said())
        around.begin()
        result = await _run(tool, checked, _allowing(context) if _allows(before) else context)
        around.end(result)
        if result.denied:  # nothing was done
            return told(result, before, Said())
        try:
            after = await around.hooks.after_tool(
                checked.name, checked.arguments, result.content, is_error=result.is_error
            )
        except trio.Cancelled:
            around.cut(told(result, before, Said()))
            raise
        return told(result, before, together(after))
    except StoreError:
        raise
    except Exception as exc:  # our own bug around the tool; what it did is not known to the model
        return _failed(call, exc)


async def _run(tool: Tool, call: ToolCall, context: ToolContext) -> ToolResult:
    try:
        return await tool.run(call, context)
    except StoreError:
        raise
    except Exception as exc:  # a tool's bug or a broken machine: the model may try another way
        return _failed(call, exc)


def _failed(call: ToolCall, exc: Exception) -> ToolResult:
    return ToolResult(f"{call.name} failed: {type(exc).__name__}: {exc}", is_error=True)


def _rewritten(tool: Tool, call: ToolCall, before: Said) -> ToolCall | ToolResult:
    """The call with the arguments that hooks have changed, checked like those of the model."""
    if before.updated_input is None:
        return call
    checked = calls.checked(tool, call.id, {**call.arguments, **before.updated_input})
    if isinstance(checked, ToolResult):
        sentence = f"A hook changed the arguments: {checked.content}"
        return attrs.evolve(checked, content=sentence)
    return checked


def _allows(before: Said) -> bool:
    return before.decision == "allow"


def _allowing(context: ToolContext) -> ToolContext:
    """The context of a call that a hook has allowed (R67): this one, and no other."""

    async def ask(wanted: PermissionAsk) -> Decision:
        return await context.ask(attrs.evolve(wanted, allowed_by_hook=True))

    return attrs.evolve(context, ask=ask)
