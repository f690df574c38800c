"""The commits of a run's life, as plain functions on a transaction.

`end_run` is the one place that builds the terminal transaction of any run (G1): the drain task
uses it for the run it drove, cancel, drop, fold and recovery for those that never began.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from crush_trio.agent import closing, shell_text, transcript
from crush_trio.host.asks.endings import SERVER, withdraw_asks
from crush_trio.protocol.errors import InvalidTransition, Refused
from crush_trio.protocol.events import AgentEvent
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.messages import BinaryPart, Message, Part, TextPart
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import (
    CancelledBy,
    Outcome,
    ProcessReport,
    RunError,
    RunRecord,
    RunState,
    run_complete,
    without_text,
)
from crush_trio.store.contract import RunRow, Transaction

TITLE_CHARS = 50  # CW 5.12: a title made from the prompt
UNTITLED = frozenset({"", "New Session", "non-interactive", "Untitled Session"})
"""Titles that name nothing: the first prompt replaces them."""


@attrs.frozen
class Placed:
    """A message, its place (G7), and whether it is new."""

    message: Message
    accept_seq: int
    ordinal: int
    new: bool = True


@attrs.frozen
class Ending:
    """How a run ends: what its record says from then on, and what its transcript still needs."""

    outcome: Outcome
    error: RunError | None = None
    cancelled_by: CancelledBy | None = None
    steered_into: RunId | None = None
    changes: dict[str, Any] = attrs.field(factory=dict)
    messages: tuple[Placed, ...] = ()
    removed: tuple[MessageId, ...] = ()


def prompt_parts(request: PromptRequest) -> tuple[Part, ...]:
    """A prompt's text and attachments as message parts (CW 5.6 step 3)."""
    attached = (
        BinaryPart(item.file_path or item.file_name, item.mime_type, item.content)
        for item in request.attachments
    )
    return (TextPart(request.prompt), *attached)


def put_messages(tx: Transaction, placed: Iterable[Placed]) -> bool:
    """Write messages with their events; returns whether any was new."""
    any_new = False
    for item in placed:
        tx.put_message(item.message, accept_seq=item.accept_seq, ordinal=item.ordinal)
        any_new = any_new or item.new
        tx.emit(
            "message",
            "created" if item.new else "updated",
            item.message,
            session_id=item.message.session_id,
            run_id=item.message.run_id,
        )
    return any_new


def remove_messages(tx: Transaction, message_ids: Iterable[MessageId]) -> bool:
    """Delete messages with their events; returns whether there was any."""
    any_removed = False
    for message_id in message_ids:
        message = tx.remove_message(message_id)
        if message is not None:
            any_removed = True
            tx.emit(
                "message",
                "deleted",
                message,
                session_id=message.session_id,
                run_id=message.run_id,
            )
    return any_removed


def touch_session(tx: Transaction, session_id: SessionId, **changes: Any) -> None:
    """Change a session and publish it; its message count comes from the store."""
    session = tx.session(session_id)
    if session is None:
        return
    tx.put_session(attrs.evolve(session, updated_at=tx.now_ms // 1000, **changes))
    fresh = tx.session(session_id)
    if fresh is not None:
        tx.emit("session", "updated", fresh, session_id=session_id)


def stored_run(tx: Transaction, run_id: RunId) -> RunRow:
    """A run that must exist."""
    row = tx.run(run_id)
    if row is None:
        raise InvalidTransition(f"run {run_id} is not stored")
    return row


def change_run(tx: Transaction, run_id: RunId, **changes: Any) -> RunRow:
    """Change an open run's record and publish it without its text."""
    row = stored_run(tx, run_id)
    record = attrs.evolve(row.record, **changes)
    changed = attrs.evolve(row, record=record)
    tx.put_run(changed)
    _emit_run(tx, "updated", record)
    return changed


def wait_on(tx: Transaction, run_id: RunId, waiting_on: str) -> None:
    """Publish what an open run waits for, if that is news."""
    record = stored_run(tx, run_id).record
    if record.state is not RunState.FINISHED and record.waiting_on != waiting_on:
        change_run(tx, run_id, waiting_on=waiting_on)


def accept_run(tx: Transaction, row: RunRow) -> RunRow:
    """Make an acceptance durable: the row, its receipt and its first event.

    Raises:
        Refused: ``session_not_found``: the session was deleted since it was looked up.
    """
    if tx.session(row.record.session_id) is None:
        raise Refused(
            "session_not_found", f"There is no session {row.record.session_id!r} any more."
        )
    first = tx.next_seq()
    record = attrs.evolve(row.record, first_seq=first, created_at_ms=tx.now_ms, waiting_on="queue")
    stored = attrs.evolve(row, record=record, receipt=attrs.evolve(row.receipt, seq=first - 1))
    tx.insert_run(stored)
    _emit_run(tx, "created", record)
    return stored


def begin_run(tx: Transaction, run_id: RunId, user: Placed) -> None:
    """A run starts: its record says running, its prompt is in the transcript."""
    change_run(tx, run_id, state=RunState.RUNNING, started_at_ms=tx.now_ms, waiting_on="model")
    put_messages(tx, (user,))
    session = tx.session(user.message.session_id)
    changes: dict[str, Any] = {}
    if session is not None and session.title in UNTITLED:
        changes["title"] = title_from(user.message.text())
    touch_session(tx, user.message.session_id, **changes)


def title_from(prompt: str) -> str:
    """A session's title from its first prompt: one line, at most 50 characters (CW 5.12)."""
    return " ".join(prompt.split())[:TITLE_CHARS] or "Untitled Session"


def end_run(tx: Transaction, run_id: RunId, ending: Ending) -> RunRow:
    """The terminal transaction of a run (G1).

    Withdraws what the run still asks a person, writes what the transcript still needs, the
    record, and the events in their order: notifications, messages, session, ``run``,
    ``agent_event``, and last ``run_complete``.
    """
    row = stored_run(tx, run_id)
    if row.record.state is RunState.FINISHED:
        raise InvalidTransition(f"run {run_id} has already ended")
    by = ending.cancelled_by or row.record.cancelled_by
    withdraw_asks(tx, run_id, SERVER if by is None else by.principal)
    removed = remove_messages(tx, ending.removed)
    if put_messages(tx, ending.messages) or removed:
        touch_session(tx, row.record.session_id)
    started = row.record.started_at_ms is not None
    notice = _notice(row.record, ending, started=started)
    record = attrs.evolve(
        row.record,
        state=RunState.FINISHED,
        outcome=ending.outcome,
        error=ending.error,
        cancelled_by=ending.cancelled_by or row.record.cancelled_by,
        steered_into=ending.steered_into,
        finished_at_ms=tx.now_ms,
        waiting_on=None,
        last_seq=tx.next_seq() + 1 + (notice is not None),
        **ending.changes,
    )
    stored = attrs.evolve(row, record=record, processes=())
    tx.put_run(stored)
    _emit_run(tx, "updated", record)
    if notice is not None:
        tx.emit("agent_event", "created", notice, session_id=record.session_id, run_id=record.id)
    tx.emit(
        "run_complete",
        "updated",
        run_complete(record),
        session_id=record.session_id,
        run_id=record.id,
    )
    return stored


def end_unstarted(
    tx: Transaction,
    run_id: RunId,
    outcome: Outcome,
    *,
    error: RunError | None = None,
    by: CancelledBy | None = None,
) -> RunRow:
    """End a run that never began; its prompt is kept in the transcript (G7, R52)."""
    row = stored_run(tx, run_id)
    messages = unstarted_messages(row, outcome, error, tx.now_ms // 1000)
    # As of a run that began and said nothing.
    changes = {"message_id": messages[-1].message.id} if messages else {}
    return end_run(tx, run_id, Ending(outcome, error, by, changes=changes, messages=messages))


def unstarted_messages(
    row: RunRow, outcome: Outcome, error: RunError | None, now_s: int
) -> tuple[Placed, ...]:
    """The prompt as a user message, and an assistant message that says why nothing came of it.

    Of a command the command itself; of a summary nothing.
    """
    record = row.record
    if record.kind == "summarize":
        return ()
    if record.kind == "shell":
        command = shell_text.opened(record.session_id, record.id, row.request.prompt, now_s)
        closed = closing.close("shell", (command,), cause=_cause(outcome), now_s=now_s)
        return (Placed(closed.written[0], record.accept_seq, 0),)
    user = transcript.user_message(record.session_id, record.id, prompt_parts(row.request), now_s)
    empty = transcript.open_assistant(
        record.session_id, record.id, record.provider, record.model, now_s
    )
    finish = transcript.finish_part(
        _cause(outcome), now_s, error.code if error else "", error.message if error else ""
    )
    assistant = attrs.evolve(empty, parts=(finish,))
    return (
        Placed(user, record.accept_seq, 0),
        Placed(assistant, record.accept_seq, 1),
    )


def end_folded(tx: Transaction, row: RunRow, into: RunId) -> None:
    """End a folded prompt, unless that is done; its prompt is kept at its own place."""
    stored = stored_run(tx, row.record.id)
    if stored.record.state is RunState.FINISHED:
        return
    record = stored.record
    user = transcript.user_message(
        record.session_id, record.id, prompt_parts(row.request), tx.now_ms // 1000
    )
    placed = (Placed(user, record.accept_seq, 0),)
    end_run(tx, record.id, Ending(Outcome.STEERED, steered_into=into, messages=placed))


def end_as_stored(
    tx: Transaction,
    run_id: RunId,
    outcome: Outcome,
    error: RunError | None,
    processes: ProcessReport | None = None,
    by: CancelledBy | None = None,
) -> RunRow:
    """End a run from what is stored of it alone, whether it had begun or not; repairs its
    transcript. ``by`` is used if the record names nobody; ``processes`` replaces its report."""
    row = stored_run(tx, run_id)
    record = row.record
    if record.state is RunState.QUEUED:
        return end_unstarted(tx, run_id, outcome, error=error, by=by)
    mine = [m for m in tx.messages(record.session_id) if m.accept_seq == record.accept_seq]
    places = {item.message.id: item.ordinal for item in mine}
    now_s = tx.now_ms // 1000
    messages = [item.message for item in mine]
    unallowed = {ask.request.tool_call_id for ask in tx.pending_asks(run_id)}
    closed = closing.close(
        record.kind,
        messages,
        cause=_cause(outcome),
        # Calls are durable before the first one starts: each may have run in part.
        started_calls=frozenset(
            call.id
            for message in messages
            for call in message.tool_calls()
            if call.finished and call.id not in unallowed
        ),
        empty=transcript.open_assistant(
            record.session_id, run_id, record.provider, record.model, now_s
        ),
        now_s=now_s,
        details=error.message if error else "",
    )
    placed = []
    next_ordinal = max(places.values(), default=-1) + 1
    for message in closed.written:
        ordinal = places.get(message.id)
        if ordinal is None:
            ordinal, next_ordinal = next_ordinal, next_ordinal + 1
        new = message.id not in places
        placed.append(Placed(message, record.accept_seq, ordinal, new))
    changes = closed.record_fields(record.message_id)
    if processes is not None:
        changes["processes"] = processes
    ending = Ending(
        outcome, error, by, changes=changes, messages=tuple(placed), removed=closed.removed
    )
    return end_run(tx, run_id, ending)


def _cause(outcome: Outcome) -> transcript.Cause:
    match outcome:
        case Outcome.CANCELLED:
            return transcript.Cause.CANCELLED
        case Outcome.LOST:
            return transcript.Cause.LOST
    return transcript.Cause.FAILED


def cancel_runs(
    tx: Transaction, ended: Sequence[RunId], marked: RunId | None, by: CancelledBy
) -> None:
    """A cancel becomes durable: queued runs end, the running one carries its mark (G2, G4).

    A run that is not stored is passed over: its acceptance failed, so it never was.
    """
    if marked is not None:
        change_run(tx, marked, cancelled_by=by)
    for run_id in ended:
        if tx.run(run_id) is not None:
            end_unstarted(tx, run_id, Outcome.CANCELLED, by=by)


def _emit_run(tx: Transaction, change: str, record: RunRecord) -> None:
    tx.emit("run", change, without_text(record), session_id=record.session_id, run_id=record.id)


def _notice(record: RunRecord, ending: Ending, *, started: bool) -> AgentEvent | None:
    """CW's notice of an ending: an error, or that a started turn finished; else nothing.

    Of a sub-agent nobody is notified: its end is a tool's result in the run it worked for.
    """
    if record.kind == "agent":
        return None
    if ending.error is not None and ending.outcome is not Outcome.DENIED:
        return AgentEvent(
            "error",
            session_id=record.session_id,
            run_id=record.id,
            error=ending.error.message,
        )
    if started and ending.outcome is not Outcome.CANCELLED and record.kind == "prompt":
        return AgentEvent("agent_finished", session_id=record.session_id, run_id=record.id)
    return None
