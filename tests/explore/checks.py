"""What must hold when a schedule is over, read from what is stored; every sentence names its rule.

The numbers I1 to I22 are those of the list in docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crush_trio.agent.transcript import is_valid
from crush_trio.protocol.ids import RunId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Outcome, RunComplete, RunRecord, RunState
from crush_trio.store.contract import RunRow, StoredEvent
from crush_trio.store.memory_rows import Tables
from tests.explore.isolation import payload_of
from tests.explore.ledger import Entry, Ledger

OPEN = (RunState.QUEUED, RunState.RUNNING)
_TURNS = ("prompt", "agent")  # the kinds that have a transcript with an answer


def events_of(tables: Tables, workspace_id: WorkspaceId) -> list[StoredEvent]:
    """A workspace's journal in order."""
    rows = tables.events.rows
    return [rows[key] for key in sorted(key for key in rows if key[0] == workspace_id)]


def records_of(tables: Tables) -> dict[RunId, RunRecord]:
    """Every run's record."""
    return {run_id: entry.row.record for run_id, entry in tables.runs.rows.items()}


def check_tables(tables: Tables, workspace_id: WorkspaceId, *, whole: bool) -> Iterator[str]:
    """What holds of any database that a server has left in order.

    ``whole``: nothing was ever deleted from the journal, by retention or with a session.
    """
    events = events_of(tables, workspace_id)
    seqs = [event.seq for event in events]
    last = tables.counters_of(workspace_id).last_seq
    if whole and seqs != list(range(1, last + 1)):
        yield f"I20: the journal has a gap: {seqs}, last is {last}"
    own: dict[RunId, list[StoredEvent]] = {}
    for event in events:
        if event.run_id is not None:
            own.setdefault(event.run_id, []).append(event)
    for record in records_of(tables).values():
        yield from _check_run(record, own.get(record.id, []), whole=whole)
    yield from _check_transcripts(tables, events, whole=whole)
    records = records_of(tables)
    for record in records.values():
        parent = records.get(record.parent_run) if record.parent_run is not None else None
        if parent is None or parent.state is not RunState.FINISHED:
            continue
        if record.state is not RunState.FINISHED or record.last_seq > parent.last_seq:
            yield f"I42: {record.id} did not end before {parent.id}, for which it worked"
    for session_id, session in tables.sessions.rows.items():
        above = session.session.parent_session_id
        if above and above not in tables.sessions.rows:
            yield f"contract 3: {session_id} stays although {above} above it is gone"
    for row in tables.pending_asks():
        if records[row.run_id].state is RunState.FINISHED:
            yield f"I25: {row.run_id} has ended and a request of it still waits"


def _check_run(record: RunRecord, own: Sequence[StoredEvent], *, whole: bool) -> Iterator[str]:
    ends = [event for event in own if event.kind == "run_complete"]
    if record.state is not RunState.FINISHED:
        if ends or record.outcome is not None:
            yield f"I1: {record.id} is {record.state} and has ended"
        return
    if record.deleted or (not whole and not own):
        return
    if len(ends) != 1:
        yield f"I1: {record.id} has {len(ends)} terminal events"
        return
    if own[-1] is not ends[0]:
        yield f"I22: {own[-1].kind} comes after the end of {record.id}"
    if record.last_seq != ends[0].seq or (whole and record.first_seq != own[0].seq):
        yield f"G1: {record.id} names {record.first_seq}..{record.last_seq} as its events"
    told = payload_of(ends[0].data).payload
    assert isinstance(told, RunComplete)
    if (told.outcome, told.text, told.message_id or None) != (
        record.outcome,
        record.text,
        record.message_id,
    ):
        yield f"I17: the end of {record.id} says something else than its record"
    if told.text and not told.message_id:
        yield f"I17: the end of {record.id} has text and no message"
    states = [payload_of(event.data).payload for event in own if event.kind == "run"]
    if not states or states[-1].state is not RunState.FINISHED:
        yield f"G1: no run event says that {record.id} has finished"


def _check_transcripts(
    tables: Tables, events: Sequence[StoredEvent], *, whole: bool
) -> Iterator[str]:
    records = records_of(tables)
    shown = [payload_of(event.data) for event in events if event.kind == "message"]
    deleted = {each.payload.id for each in shown if each.change == "deleted"}
    created = sorted(
        each.payload.id
        for each in shown
        if each.change == "created" and each.payload.id not in deleted
    )
    if whole and created != sorted(tables.messages.rows):
        yield "G8: the messages created are not those stored"
    for session_id, row in tables.sessions.rows.items():
        stored = tables.messages_of(session_id)
        if row.message_count != len(stored):
            yield f"{session_id} counts {row.message_count} messages of {len(stored)}"
        closed = []
        for item in stored:
            run = records.get(item.message.run_id or RunId(""))
            if run is None or run.state is RunState.FINISHED:
                closed.append(item.message)
        yield from _check_closed(closed, records)
    for session_id in tables.sessions.rows:
        at_work = [
            r.id
            for r in records.values()
            if r.session_id == session_id and r.state is RunState.RUNNING
        ]
        if len(at_work) > 1:
            yield f"I4: {at_work} are stored as running"


def _check_closed(messages: Sequence[Message], records: dict[RunId, RunRecord]) -> Iterator[str]:
    """A transcript of runs that have ended."""
    if not is_valid(messages):
        yield f"I13: not valid: {[(m.role, m.run_id) for m in messages]}"
    by_run: dict[RunId, list[Message]] = {}
    for message in messages:
        if message.finish() is None:
            yield f"I13: {message.role} of {message.run_id} is left open"
        if message.run_id is not None:
            by_run.setdefault(message.run_id, []).append(message)
    for run_id, mine in by_run.items():
        record = records.get(run_id)
        if record is None:
            yield f"G1: {run_id} has messages and no record"
            continue
        if mine[0].role != "user" and record.kind in _TURNS:
            yield f"G7: {run_id} begins with {mine[0].role}"
        if record.kind not in _TURNS:
            continue  # a command's message is its only one, a summary's answer is its own
        if record.outcome is not Outcome.STEERED and mine[-1].role == "user":
            yield f"G7: {run_id} has no answer"
        final = next((m for m in mine if m.id == record.message_id), None)
        if record.message_id and (final is None or final.text() != record.text):
            yield f"I17: the text of {run_id} is not its message's"


# --- what was promised --------------------------------------------------------------------


def check_promises(ledger: Ledger, tables: Tables) -> Iterator[str]:
    """What the clients of this server may expect."""
    yield from ledger.wrongs
    rows = {run_id: entry.row for run_id, entry in tables.runs.rows.items()}
    steered: dict[str, list[Outcome | None]] = {}
    for each in ledger.entries.values():
        row = rows.get(each.id)
        if row is not None and row.record.steered_into is not None:
            steered.setdefault(row.record.steered_into, []).append(each.natural)
    for each in ledger.entries.values():
        yield from _check_entry(ledger, each, rows.get(each.id), steered.get(each.id, []))
    given = sum(action == "allow" for action in ledger.answers.values())
    if ledger.allowed > given:
        yield f"I15: {ledger.allowed} calls were allowed by {given} answers"
    for ghost in ledger.ghosts:
        if getattr(ghost.accepted, "_error", None) is None and not ledger.stopped:
            yield f"I7: {ghost.id} was accepted in a session that is gone"
    for each in ledger.twins:
        if not each.refused and not ledger.faults and not ledger.stopped:
            yield f"I11: {each.id} was accepted twice"
    yield from _check_order(ledger, tables)


def _check_entry(
    ledger: Ledger, each: Entry, row: RunRow | None, steered: Sequence[Outcome | None]
) -> Iterator[str]:
    if ledger.purged or (ledger.faults and "store_failed" in ledger.faults):
        return
    if row is None:
        if not each.refused or each.acked:
            yield f"I10: {each.id} is gone"
        return
    if each.refused:
        if row.digest == each.run.row.digest and row.record.session_id == each.run.session_id:
            return  # somebody else's of the same id
        yield f"G1: {each.id} was refused and is stored"
    outcome = row.record.outcome
    if outcome is None:
        begun = row.record.state is RunState.RUNNING
        if not ledger.stopped or (begun and "disk_full" not in ledger.faults):
            yield f"I6: {each.id} is left {row.record.state}"
        elif each.must is not None and "disk_full" not in ledger.faults:
            yield f"G4: {each.id} was cancelled and is left {row.record.state}"
        return
    if each.ended is not outcome:
        yield f"G8: {each.id} ended {outcome}, told was {each.ended}"
    if row.record.steered_into in each.too_old:
        yield f"I3: {each.id} was folded into {row.record.steered_into}, cancelled before it came"
    allowed = _allowed(ledger, each, steered)
    if outcome not in allowed:
        wanted = ", ".join(sorted(allowed))
        yield f"{_rule(each, outcome)}: {each.id} ({each.request.prompt}) ended {outcome}" + (
            f", not {wanted}; covered {each.covered}"
        )


def _allowed(ledger: Ledger, each: Entry, steered: Sequence[Outcome | None]) -> frozenset[Outcome]:
    natural = {found for found in (each.natural, *steered) if found is not None}
    if each.id in ledger.below_cancelled:
        natural.add(Outcome.COMPLETED)
    if Outcome.DENIED in natural:
        natural.add(Outcome.COMPLETED)
    if each.injected or ledger.faults:
        natural.add(Outcome.FAILED)
    if each.request.limits is not None:
        natural.add(Outcome.LIMITED)
    if each.must == "queued":
        return frozenset({Outcome.CANCELLED})
    if each.must is not None:
        return frozenset({Outcome.CANCELLED} | (natural & {Outcome.FAILED}))
    if each.request.if_busy == "steer":
        natural.add(Outcome.STEERED)
    if each.covered:
        natural.add(Outcome.CANCELLED)
    if each.unnamed:  # a cancel passed it over: it had been folded, or cancelled before
        natural &= {Outcome.STEERED, Outcome.CANCELLED}
    return frozenset(natural)


def _rule(each: Entry, outcome: Outcome) -> str:
    if each.must is not None or each.unnamed:
        return "I2"
    return "I3" if outcome is Outcome.CANCELLED else "G1"


def _check_order(ledger: Ledger, tables: Tables) -> Iterator[str]:
    """I5: per session, runs begin as they were accepted, and are stored in that order."""
    begun: dict[str, list[int]] = {}
    made: dict[str, list[int]] = {}
    for key in sorted(tables.events.rows):
        event = tables.events.rows[key]
        if event.kind != "run":
            continue
        shown = payload_of(event.data)
        record = shown.payload
        if shown.change == "created":
            made.setdefault(record.session_id, []).append(record.accept_seq)
        elif record.state is RunState.RUNNING:
            begun.setdefault(record.session_id, []).append(record.accept_seq)
    for session_id, order in begun.items():
        once = list(dict.fromkeys(order))
        if session_id not in ledger.moved and once != sorted(once):
            yield f"I5: the runs of {session_id} began in the order {once}"
    for session_id, order in made.items():
        if order != sorted(set(order)):
            yield f"I5: the runs of {session_id} were accepted in the order {order}"
