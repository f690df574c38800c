"""Changing a run that waits: its prompt, or its place among the waiting ones."""

from __future__ import annotations

import attrs

from crush_trio.host import commits
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId
from crush_trio.store.contract import RunRow, Ticket, Transaction, turn_of


def edit(
    session: Session, run_id: RunId, prompt: str | None, position: int | None
) -> Ticket[RunRow]:
    """Change a waiting run: at once in memory, durable when the ticket returns (G2).

    If the commit fails, the change is taken back, unless the run has begun meanwhile.

    Raises:
        Refused: ``run_not_queued``, ``bad_request``; nothing changed.
        StoreError: The writer's queue is full or dead; nothing changed.
    """
    session.home.store.check_room()
    open_run = session.find(run_id)
    if open_run is None or open_run.run not in session.queue.waiting():
        raise Refused("run_not_queued", "The run is not waiting any more; nothing was changed.")
    if prompt is not None and open_run.row.record.kind == "summarize":
        raise Refused("bad_request", "A summary has no prompt; only its position can change.")
    before = open_run.row
    place = session.queue.waiting().index(open_run.run)
    if position is not None:
        session.queue.move(run_id, position)
        open_run.row = attrs.evolve(open_run.row, turn=_turn_of(session, open_run))
    if prompt is not None:
        open_run.row = attrs.evolve(
            open_run.row,
            request=attrs.evolve(open_run.row.request, prompt=prompt),
            record=attrs.evolve(open_run.row.record, prompt=prompt),
        )
    turn = open_run.row.turn

    def commit(tx: Transaction) -> RunRow:
        row = tx.run(run_id)
        if row is None:
            raise Refused("run_not_queued", "The run was not accepted; nothing was changed.")
        request = row.request if prompt is None else attrs.evolve(row.request, prompt=prompt)
        tx.put_run(attrs.evolve(row, request=request, turn=turn))
        return commits.change_run(tx, run_id, prompt=request.prompt)

    ticket = session.home.store.commit_nowait(session.home.id, commit)
    session.home.nursery.start_soon(_take_back_if_lost, session, open_run, ticket, before, place)
    return ticket


async def _take_back_if_lost(
    session: Session, open_run: OpenRun, ticket: Ticket[RunRow], before: RunRow, place: int
) -> None:
    try:
        await ticket.wait()
    except Exception:  # whoever asked is told why; here it only matters that it did not happen
        if open_run.run in session.queue.waiting():
            open_run.row = before
            session.queue.move(open_run.id, place)


def _turn_of(session: Session, moved: OpenRun) -> float:
    """A number between its neighbours': by it the order is found again after a restart."""
    waiting = session.waiting_runs()
    place = waiting.index(moved)
    earlier = turn_of(waiting[place - 1].row) if place else None
    later = turn_of(waiting[place + 1].row) if place + 1 < len(waiting) else None
    if earlier is None:
        return (later if later is not None else turn_of(moved.row)) - 1.0
    return earlier + 1.0 if later is None else (earlier + later) / 2
