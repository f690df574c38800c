"""The transcript and its repairs: pure functions from messages to messages (G7, R52-R55)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import attrs

from crush_trio.agent import foreign, shell_text
from crush_trio.agent.calls import sanitised_call
from crush_trio.agent.ports import ModelInfo
from crush_trio.protocol.ids import MessageId, RunId, SessionId, new_id
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    Part,
    ReasoningPart,
    ShellCommandPart,
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
    """An open assistant message, ended: reasoning closed, tool calls valid, text kept (R53)."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ReasoningPart) and not part.finished_at:
            parts.append(attrs.evolve(part, finished_at=now_s))
        elif isinstance(part, ToolCallPart):
            parts.append(sanitised_call(part))
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
        Changed messages (same id) and new ones, in the order in which they must stand. The last
        assistant message then says why the run ended; nothing is returned if its model had
        finished it, it needs no results, and the run was not cancelled.
    """
    finish = finish_part(cause, now_s, title, details)
    written: list[Message] = []
    place = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=-1)
    answered = {part.tool_call_id for m in messages[place + 1 :] for part in m.tool_results()}
    last = messages[place] if place >= 0 else None
    ended = False
    if last is not None:
        if last.finish() is None:
            last = closed_assistant(last, finish, now_s)
            written.append(last)
            ended = True
        elif cause is Cause.CANCELLED and messages[-1] is last and _may_still_cancel(last):
            # It had said its last word, but the run was stopped before that counted (G4).
            spoken = tuple(part for part in last.parts if not isinstance(part, FinishPart))
            written.append(attrs.evolve(last, parts=(*spoken, finish), updated_at=now_s))
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


def _may_still_cancel(last: Message) -> bool:
    finish = last.finish()
    return finish is not None and finish.reason != "canceled" and not last.tool_calls()


def call_ids(messages: Iterable[Message]) -> frozenset[str]:
    """The ids of all tool calls in ``messages``."""
    return frozenset(call.id for message in messages for call in message.tool_calls())


def for_model(messages: Iterable[Message], info: ModelInfo | None = None) -> tuple[Message, ...]:
    """Messages as they may be sent to a model (R55, G7), whichever wrote them.

    Results without a call are dropped, calls without a result get a synthetic error result right
    after their message, unfinished or broken calls are completed, a call id that occurs again, or
    that not every provider takes, is replaced by one that is unique and valid, and so is the name
    of a tool that nobody has; empty assistant messages are skipped. A person's command becomes
    text. With ``info``, thoughts and signatures of other models go, and a text stands for each
    image if the model takes none.
    """
    kept = [_in_its_role(message) for message in messages if not _is_empty_assistant(message)]
    if info is not None:
        kept = [foreign.for_model(message, info) for message in kept]
    valid: list[Message] = []
    used: set[str] = set()
    for message, results in zip(kept, _results(kept), strict=True):
        if message.role == "tool":
            continue
        calls = message.tool_calls()
        if not calls:
            valid.append(message)
            continue
        names = [_unused(call.id, used) for call in calls]
        valid.append(_with_calls(message, names))
        for call, name in zip(calls, names, strict=True):
            found = results.get(call.id)
            part = found.pop(0) if found else _no_result(call)
            part = attrs.evolve(part, tool_call_id=name, name=foreign.tool_name(call.name))
            valid.append(attrs.evolve(message, id=MessageId(""), role="tool", parts=(part,)))
    return tuple(valid)


def _in_its_role(message: Message) -> Message:
    """The message without parts that only another role may have."""
    calls_too = message.role == "assistant"
    results_too = message.role == "tool"
    parts = tuple(
        TextPart(shell_text.for_model(part)) if isinstance(part, ShellCommandPart) else part
        for part in message.parts
        if (calls_too or not isinstance(part, ToolCallPart))
        and (results_too or not isinstance(part, ToolResultPart))
    )
    return message if parts == message.parts else attrs.evolve(message, parts=parts)


def _results(messages: Sequence[Message]) -> list[dict[str, list[ToolResultPart]]]:
    """For each message, what answers its calls: results up to where a call has the same id again.

    One pass over all of them, because a session may have thousands of calls.
    """
    found: list[dict[str, list[ToolResultPart]]] = []
    waiting: dict[str, list[ToolResultPart]] = {}
    for message in messages:
        own: dict[str, list[ToolResultPart]] = {call.id: [] for call in message.tool_calls()}
        found.append(own)
        waiting |= own
        for part in message.tool_results():
            if part.tool_call_id in waiting:
                waiting[part.tool_call_id].append(part)
    return found


def _unused(call_id: str, used: set[str]) -> str:
    name, number = foreign.call_id(call_id), 1
    while name in used:
        number += 1
        name = foreign.call_id(f"{call_id}_{number}")
    used.add(name)
    return name


def _no_result(call: ToolCallPart) -> ToolResultPart:
    return ToolResultPart(call.id, call.name, "The call has no recorded result", is_error=True)


def _with_calls(message: Message, names: Sequence[str]) -> Message:
    waiting = list(names)
    parts = tuple(
        attrs.evolve(sanitised_call(part), id=waiting.pop(0), name=foreign.tool_name(part.name))
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
