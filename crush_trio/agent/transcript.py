"""The transcript and its repairs: pure functions from messages to messages (G7, R52-R55)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId, new_id
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

CANCEL_MESSAGE = "User canceled request"


class Cause(Enum):
    """Why a run's transcript has to be closed before its model did."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    LIMITED = "limited"
    LOST = "lost"


_TITLE = {
    Cause.FAILED: "Provider Error",
    Cause.LIMITED: "Limit reached",
    Cause.LOST: "Interrupted",
}
_UNSTARTED = {
    Cause.CANCELLED: "Error: user cancelled assistant tool calling",
    Cause.FAILED: "There was an error while executing the tool",
    Cause.LIMITED: "Not run: the run had reached its limit",
    Cause.LOST: "Not run: the server stopped before this call was started",
}
_STARTED = {
    Cause.CANCELLED: "context canceled",
    Cause.FAILED: "There was an error while executing the tool",
    Cause.LIMITED: "Interrupted: the run had reached its limit; it may have run in part",
    Cause.LOST: "Interrupted: the server stopped; it may have run in part",
}


def user_message(
    session_id: SessionId, run_id: RunId, parts: Iterable[Part], now_s: int
) -> Message:
    """A prompt as it is stored: its parts and the automatic ``stop`` finish (R10)."""
    return Message(
        id=MessageId(new_id()),
        role="user",
        session_id=session_id,
        parts=(*parts, FinishPart("stop", 0)),
        created_at=now_s,
        updated_at=now_s,
        run_id=run_id,
    )


def tool_message(
    session_id: SessionId, run_id: RunId, result: ToolResultPart, now_s: int
) -> Message:
    """One tool result as it is stored (R51)."""
    return Message(
        id=MessageId(new_id()),
        role="tool",
        session_id=session_id,
        parts=(result, FinishPart("stop", 0)),
        created_at=now_s,
        updated_at=now_s,
        run_id=run_id,
    )


def open_assistant(
    session_id: SessionId, run_id: RunId, provider: str, model: str, now_s: int
) -> Message:
    """An assistant message that has no content yet."""
    return Message(
        id=MessageId(new_id()),
        role="assistant",
        session_id=session_id,
        parts=(),
        model=model,
        provider=provider,
        created_at=now_s,
        updated_at=now_s,
        run_id=run_id,
    )


def finish_part(cause: Cause, now_s: int, title: str, details: str) -> FinishPart:
    """The finish part of a message that its model did not end (R52, R53)."""
    if cause is Cause.CANCELLED:
        return FinishPart("canceled", now_s, CANCEL_MESSAGE)
    return FinishPart("error", now_s, title or _TITLE[cause], details)


def closed_assistant(message: Message, finish: FinishPart, now_s: int) -> Message:
    """An open assistant message, ended: reasoning closed, tool calls complete, text kept (R53)."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ReasoningPart) and not part.finished_at:
            parts.append(attrs.evolve(part, finished_at=now_s))
        elif isinstance(part, ToolCallPart) and not part.finished:
            parts.append(attrs.evolve(part, input="{}", finished=True))
        else:
            parts.append(part)
    return attrs.evolve(message, parts=(*parts, finish), updated_at=now_s)


def close_run(
    messages: Sequence[Message],
    *,
    cause: Cause,
    started_calls: frozenset[str],
    empty: Message,
    now_s: int,
    title: str = "",
    details: str = "",
) -> tuple[Message, ...]:
    """What must be written so that a run that was cut short leaves a valid transcript.

    Args:
        messages: This run's messages so far, in order.
        started_calls: Ids of tool calls that were started and have no result yet.
        empty: An assistant message without content, used if the run's last word is not already
            an assistant message without open ends.

    Returns:
        Changed messages (same id) and new ones, in the order in which they must stand. Nothing,
        if the last assistant message was already finished and needs no results.
    """
    finish = finish_part(cause, now_s, title, details)
    written: list[Message] = []
    answered = {part.tool_call_id for message in messages for part in message.tool_results()}
    last = next((m for m in reversed(messages) if m.role == "assistant"), None)
    ended = False
    if last is not None:
        if last.finish() is None:
            last = closed_assistant(last, finish, now_s)
            written.append(last)
            ended = True
        for call in last.tool_calls():
            if call.id not in answered:
                texts = _STARTED if call.id in started_calls else _UNSTARTED
                result = ToolResultPart(call.id, call.name, texts[cause], is_error=True)
                run_id = last.run_id or RunId("")
                written.append(tool_message(last.session_id, run_id, result, now_s))
    if not ended and (last is None or last.tool_calls() or messages[-1] is not last):
        written.append(attrs.evolve(empty, parts=(finish,)))
    return tuple(written)


def for_model(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Messages as they may be sent to a model (R55, G7).

    Results without a call are dropped, calls without a result get a synthetic error result right
    after their message, unfinished calls are completed, and empty assistant messages are skipped.
    """
    kept = [message for message in messages if not _is_empty_assistant(message)]
    results = {
        part.tool_call_id: part
        for message in kept
        if message.role == "tool"
        for part in message.tool_results()
    }
    valid: list[Message] = []
    for message in kept:
        if message.role == "tool":
            continue
        if message.role != "assistant":
            valid.append(message)
            continue
        calls = message.tool_calls()
        valid.append(_completed(message) if calls else message)
        for call in calls:
            part = results.get(call.id) or ToolResultPart(
                call.id, call.name, "The call has no recorded result", is_error=True
            )
            valid.append(attrs.evolve(message, id=MessageId(""), role="tool", parts=(part,)))
    return tuple(valid)


def _completed(message: Message) -> Message:
    parts = tuple(
        attrs.evolve(part, input=part.input or "{}", finished=True)
        if isinstance(part, ToolCallPart)
        else part
        for part in message.parts
    )
    return attrs.evolve(message, parts=parts)


def _is_empty_assistant(message: Message) -> bool:
    return message.role == "assistant" and not any(
        isinstance(part, ToolCallPart) or (isinstance(part, TextPart) and part.text.strip())
        for part in message.parts
    )


def is_valid(messages: Iterable[Message]) -> bool:
    """Whether every tool call has exactly one result, right after its message, in order (G7)."""
    waiting: list[str] = []
    seen: set[str] = set()
    for message in messages:
        for part in message.tool_results():
            if not waiting or waiting.pop(0) != part.tool_call_id:
                return False
        if message.role == "tool":
            continue
        if waiting:
            return False
        for call in message.tool_calls():
            if call.id in seen:
                return False
            seen.add(call.id)
            waiting.append(call.id)
    return not waiting
