"""What a start owes to the runs that the last server left open (G2); every step is idempotent."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.host import commits
from crush_trio.host.jobs import commits as job_commits
from crush_trio.host.kit import Kit
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.runs import LeftProcess, Outcome, ProcessReport, RunError, RunState
from crush_trio.store.contract import (
    Committed,
    RunRow,
    Store,
    Ticket,
    Transaction,
    WorkspaceRow,
    turn_of,
)

logger = logging.getLogger(__name__)

LOST = RunError("lost", "The server stopped during this run; it was not repeated.", True)
ORPHANED = RunError("lost", "The server stopped before this sub-agent began; nobody waits for it.")
STALE = RunError("stale", "The run waited too long for a server; send it again.", True)
MISSING = RunError("workspace_missing", "The workspace's directory does not exist any more.")


async def end_what_is_owed(
    store: Store,
    workspaces: Mapping[WorkspaceId, WorkspaceRow],
    *,
    requeue_within_s: float,
    kill_recorded: Callable[[tuple[LeftProcess, ...]], Awaitable[ProcessReport]],
) -> tuple[RunRow, ...]:
    """End every run that cannot go on; return the queued ones that can, in acceptance order.

    A run whose cancel had been promised ends ``cancelled``; one that had begun ``lost``. A queued
    one goes on if it is younger than ``requeue_within_s`` and its directory exists. A sub-agent
    never goes on, because nobody waits for it any more; it ends before the run it worked for, and
    ``cancelled`` if that was. Before any of that, what the dead server's tools left running is
    ended (G10); its background jobs are lost.
    """
    going_on: list[RunRow] = []
    owed: list[tuple[RunRow, Outcome, Ticket[None]]] = []
    rows = await store.open_runs()
    jobs = await store.running_jobs()
    recorded = tuple(process for row in rows for process in row.processes)
    recorded += tuple(process for job in jobs for process in job.processes)
    left = (await kill_recorded(recorded)).left if recorded else ()
    for job in jobs:
        await store.commit_nowait(job.record.workspace_id, job_commits.lost(job, left)).wait()
        logger.warning("job %s was lost", job.record.job_id)
    marks = {row.record.id: row.record.cancelled_by for row in rows}
    for row in sorted(rows, key=lambda row: row.record.parent_run is None):
        above = marks.get(row.record.parent_run) if row.record.parent_run is not None else None
        if above is not None and row.record.cancelled_by is None:
            by = attrs.evolve(above, reason="parent")
            row = attrs.evolve(row, record=attrs.evolve(row.record, cancelled_by=by))
        ending = verdict(row, workspaces, requeue_within_s=requeue_within_s, now_ms=_now_ms())
        if ending is None:
            going_on.append(row)
            continue
        outcome, error = ending
        commit = partial(_end, row=row, outcome=outcome, error=error, left=left)
        owed.append((row, outcome, store.commit_nowait(row.record.workspace_id, commit)))
        if len(owed) >= limits.GROUP_COMMIT_MAX:
            await _ended(owed)
    await _ended(owed)
    return tuple(sorted(going_on, key=turn_of))


async def _ended(owed: list[tuple[RunRow, Outcome, Ticket[None]]]) -> None:
    """Wait until these endings are durable; they share a transaction, and each is whole."""
    for row, outcome, ticket in owed:
        await ticket.wait()
        logger.warning("run %s ended %s at start", row.record.id, outcome.value)
    owed.clear()


def verdict(
    row: RunRow,
    workspaces: Mapping[WorkspaceId, WorkspaceRow],
    *,
    requeue_within_s: float,
    now_ms: int,
) -> tuple[Outcome, RunError | None] | None:
    """How a run found open at start must end; ``None`` if it goes on."""
    record = row.record
    if record.cancelled_by is not None:  # also of one that had begun in memory alone
        return Outcome.CANCELLED, None
    if record.state is RunState.RUNNING:
        return Outcome.LOST, LOST
    if record.parent_run is not None:
        return Outcome.LOST, ORPHANED
    known = workspaces.get(record.workspace_id)
    if known is None or not Path(known.path).is_dir():
        return Outcome.FAILED, MISSING
    if now_ms - record.created_at_ms >= requeue_within_s * 1000:
        return Outcome.LOST, STALE
    return None


def _end(
    tx: Transaction,
    row: RunRow,
    outcome: Outcome,
    error: RunError | None,
    left: tuple[LeftProcess, ...],
) -> None:
    mine = {process.pid for process in row.processes}
    report = attrs.evolve(
        row.record.processes, left=tuple(process for process in left if process.pid in mine)
    )
    by = row.record.cancelled_by
    commits.end_as_stored(tx, row.record.id, outcome, error, report, by)


# --- outputs of what was deleted ----------------------------------------------------------


async def remove_outputs(kit: Kit, folders: Iterable[str]) -> None:
    """Delete outputs of what is gone from the store; what resists is tried again at a start."""
    for folder in folders:
        try:
            await trio.to_thread.run_sync(kit.forget_outputs, folder)
        except StoreError as exc:
            logger.warning("outputs of %s stay for now: %s", folder, exc)


async def remove_orphaned_outputs(
    store: Store, known: Mapping[WorkspaceId, WorkspaceRow], kit: Kit
) -> None:
    """Finish the deletions in which a server died after their commit.

    Harmless beside what goes on: a session is durable before anything of it can be spilled, and a
    workspace that is being purged now was known at the start.
    """
    at_start = frozenset(known)
    for folder in await trio.to_thread.run_sync(kit.output_folders):
        workspace, _, session = folder.partition("/")
        try:
            found = await store.session(SessionId(session)) if session else None
        except StoreError as exc:
            logger.warning("outputs were not looked at: %s", exc)
            return
        stored = WorkspaceId(workspace) in at_start or WorkspaceId(workspace) in known
        if not stored or (session and found is None):
            await remove_outputs(kit, [folder])


@attrs.frozen
class AlreadyAccepted:
    """The acceptance ticket of a run that an earlier server accepted: durable already."""

    row: RunRow

    async def wait(self) -> Committed[RunRow]:
        """The stored row, at once."""
        return Committed(self.row, self.row.record.first_seq, self.row.record.first_seq)


def already_accepted(row: RunRow) -> Ticket[RunRow]:
    """A ticket for a run that was accepted before this start."""
    return AlreadyAccepted(row)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
