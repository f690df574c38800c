"""The store's contract without a disk, for tests in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId, new_id
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import RunRecord, RunState
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store import rules
from crush_trio.store.clock import wall_clock_ms
from crush_trio.store.contract import (
    AskRow,
    Commit,
    Committed,
    EventPage,
    Grant,
    Publish,
    RunRow,
    Selection,
    SnapshotRows,
    Ticket,
    WorkspaceRow,
)
from crush_trio.store.jobs import running
from crush_trio.store.memory_jobs import MemoryJobReads, listed
from crush_trio.store.memory_rows import SessionRow, Tables
from crush_trio.store.memory_transaction import MemoryTransaction
from crush_trio.store.ticket import PendingCommit

T = TypeVar("T")


class MemoryStore(MemoryJobReads):
    """A `Store` over dicts, to be made inside ``trio.run``.

    As with the real one, a commit is applied later than it is queued: when Trio next looks at
    what was handed to it from outside, all that wait are applied in order, then published, then
    answered. Reads are one checkpoint and see every commit applied before it.
    """

    def __init__(self, *, publish: Publish, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._publish = publish
        self._now_ms = now_ms
        self._tables = Tables()
        self._queue: deque[PendingCommit[Any]] = deque()
        self._token = trio.lowlevel.current_trio_token()
        self._paused = False
        self._next_failure: StoreError | None = None
        self._closed = False
        self.epoch = new_id()
        """Names one unbroken numbering of events (contract 4)."""
        self.failed = trio.Event()
        """As in the real store: set when nothing can be written any more."""

    # --- for tests ----------------------------------------------------------------------------

    def pause(self) -> None:
        """Hold the disk: what is queued stays queued."""
        self._paused = True

    def resume(self) -> None:
        """Let the disk go on."""
        self._paused = False
        self._token.run_sync_soon(self._apply_all)

    def fail_next(self, error: StoreError) -> None:
        """Let the next commit fail; ``store_failed`` then fails all later ones too."""
        self._next_failure = error

    # --- the contract -------------------------------------------------------------------------

    def commit_nowait(
        self, workspace_id: WorkspaceId, commit: Commit[T], *, relaxed: bool = False
    ) -> Ticket[T]:
        """See `crush_trio.store.contract.Store.commit_nowait`."""
        self.check_room()
        pending = PendingCommit(workspace_id, commit, relaxed)
        self._queue.append(pending)
        self._token.run_sync_soon(self._apply_all)
        return pending

    def check_room(self) -> None:
        """See `crush_trio.store.contract.Store.check_room`."""
        if self.failed.is_set():
            raise StoreError("store_failed", "the store in memory has failed")
        if self._closed:
            raise StoreError("store_failed", "the store in memory is closed")
        if len(self._queue) >= limits.WRITER_QUEUE_MAX:
            raise StoreError("overloaded", f"{len(self._queue)} changes wait; try again")

    async def workspaces(self) -> tuple[WorkspaceRow, ...]:
        """See `crush_trio.store.contract.Store.workspaces`."""
        await trio.lowlevel.checkpoint()
        tables = self._tables
        return tuple(
            attrs.evolve(row, last_accept=tables.counters_of(row.id).last_accept)
            for row in tables.workspaces.rows.values()
        )

    async def sessions(self, workspace_id: WorkspaceId) -> tuple[Session, ...]:
        """See `crush_trio.store.contract.Store.sessions`."""
        await trio.lowlevel.checkpoint()
        return tuple(s for s in self._sessions(workspace_id) if not s.parent_session_id)

    async def session(self, session_id: SessionId) -> tuple[WorkspaceId, Session] | None:
        """See `crush_trio.store.contract.Store.session`."""
        await trio.lowlevel.checkpoint()
        row = self._tables.sessions.get(session_id)
        return None if row is None else (row.workspace_id, _counted(row))

    async def messages(
        self, session_id: SessionId, *, limit: int | None = None, before: MessageId | None = None
    ) -> tuple[Message, ...]:
        """See `crush_trio.store.contract.Store.messages`."""
        await trio.lowlevel.checkpoint()
        return self._messages(session_id, limit, before)

    async def user_messages(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[Message, ...]:
        """See `crush_trio.store.contract.Store.user_messages`."""
        await trio.lowlevel.checkpoint()
        sessions = self._tables.sessions.rows
        found = [
            row
            for row in self._tables.messages.rows.values()
            if row.message.role == "user"
            and sessions[row.message.session_id].workspace_id == workspace_id
            and session_id in (None, row.message.session_id)
        ]
        found.sort(key=lambda row: (row.accept_seq, row.ordinal))
        return tuple(row.message for row in reversed(found))

    async def run(self, run_id: RunId) -> RunRow | None:
        """See `crush_trio.store.contract.Store.run`."""
        await trio.lowlevel.checkpoint()
        entry = self._tables.runs.get(run_id)
        return None if entry is None else entry.row

    async def runs(
        self,
        *,
        workspace_id: WorkspaceId | None = None,
        session_id: SessionId | None = None,
        state: str | None = None,
        limit: int,
        before: RunId | None = None,
    ) -> tuple[RunRecord, ...]:
        """See `crush_trio.store.contract.Store.runs`."""
        await trio.lowlevel.checkpoint()
        records = [entry.row.record for entry in self._tables.runs.rows.values()]
        if before is not None:
            ids = [record.id for record in records]
            records = records[: ids.index(before)] if before in ids else []
        found = [
            record
            for record in reversed(records)
            if workspace_id in (None, record.workspace_id)
            and session_id in (None, record.session_id)
            and state in (None, record.state.value)
        ]
        return tuple(found[:limit])

    async def open_runs(self) -> tuple[RunRow, ...]:
        """See `crush_trio.store.contract.Store.open_runs`."""
        await trio.lowlevel.checkpoint()
        found = [entry.row for entry in self._tables.runs.rows.values() if _is_open(entry.row)]
        return tuple(sorted(found, key=lambda r: (r.record.workspace_id, r.record.accept_seq)))

    async def message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Store.message`."""
        await trio.lowlevel.checkpoint()
        found = self._tables.messages.rows.get(message_id)
        return None if found is None else found.message

    async def file_version(self, version_id: str) -> FileVersion | None:
        """See `crush_trio.store.contract.Store.file_version`."""
        await trio.lowlevel.checkpoint()
        return self._tables.files.rows.get(version_id)

    async def file_versions(self, session_id: SessionId) -> tuple[FileVersion, ...]:
        """See `crush_trio.store.contract.Store.file_versions`."""
        await trio.lowlevel.checkpoint()
        found = [f for f in self._tables.files.rows.values() if f.session_id == session_id]
        return tuple(sorted(found, key=lambda item: (item.path, item.version)))

    async def reads(self, session_id: SessionId) -> dict[str, int]:
        """See `crush_trio.store.contract.Store.reads`."""
        await trio.lowlevel.checkpoint()
        marks = self._tables.reads.rows.items()
        found = [(path, at_ns) for (owner, path), at_ns in marks if owner == session_id]
        return dict(sorted(found, key=lambda item: (-item[1], item[0])))

    async def ask(self, ask_id: str) -> AskRow | None:
        """See `crush_trio.store.asks.AskReads.ask`."""
        await trio.lowlevel.checkpoint()
        return self._tables.asks.get(ask_id)

    async def pending_asks(self, workspace_id: WorkspaceId | None = None) -> tuple[AskRow, ...]:
        """See `crush_trio.store.asks.AskReads.pending_asks`."""
        await trio.lowlevel.checkpoint()
        found = self._tables.pending_asks()
        return tuple(row for row in found if workspace_id in (None, row.workspace_id))

    async def grants(self, session_id: SessionId) -> frozenset[Grant]:
        """See `crush_trio.store.asks.AskReads.grants`."""
        await trio.lowlevel.checkpoint()
        rows = self._tables.grants.rows
        return frozenset(grant for owner, grant in rows if owner == session_id)

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """See `crush_trio.store.contract.Store.last_seq`."""
        await trio.lowlevel.checkpoint()
        return self._tables.counters_of(workspace_id).last_seq

    async def events(
        self, workspace_id: WorkspaceId, *, after: int, upto: int, selection: Selection, limit: int
    ) -> EventPage:
        """See `crush_trio.store.contract.Store.events`."""
        await trio.lowlevel.checkpoint()
        counters = self._tables.counters_of(workspace_id)
        upto = min(upto, counters.last_seq)
        after = max(after, counters.oldest - 1)
        last = min(upto, after + limits.EVENT_SCAN)
        found = []
        size = 0
        for seq in range(after + 1, last + 1):
            event = self._tables.events.get((workspace_id, seq))
            if event is not None and selection.selects(event.kind, event.session_ids):
                found.append(event)
                size += len(event.data)
                if len(found) == limit or size >= limits.EVENT_PAGE_BYTES:
                    last = seq
                    break
        return EventPage(tuple(found), max(after, last), counters.oldest)

    async def snapshot(
        self,
        workspace_id: WorkspaceId,
        session_id: SessionId | None,
        *,
        messages: int,
        before: MessageId | None,
    ) -> SnapshotRows:
        """See `crush_trio.store.contract.Store.snapshot`."""
        await trio.lowlevel.checkpoint()
        sessions = self._sessions(workspace_id)
        family = None
        kept: tuple[Message, ...] = ()
        if session_id is not None:
            sessions = tuple(s for s in sessions if s.id == session_id)
            kept = self._messages(session_id, messages, before) if sessions else ()
            family = (session_id, *self._tables.below(session_id))
        opened = [
            entry.row.record
            for entry in self._tables.runs.rows.values()
            if _is_open(entry.row)
            and entry.row.record.workspace_id == workspace_id
            and (family is None or entry.row.record.session_id in family)
        ]
        opened.sort(key=lambda record: record.accept_seq)
        asks = [
            row
            for row in self._tables.pending_asks()
            if row.workspace_id == workspace_id and (family is None or row.session_id in family)
        ]
        return SnapshotRows(
            seq=self._tables.counters_of(workspace_id).last_seq,
            sessions=sessions,
            messages=kept,
            runs=tuple(opened),
            asks=tuple(asks),
            jobs=running(listed(self._tables, workspace_id), family),
        )

    def _sessions(self, workspace_id: WorkspaceId) -> tuple[Session, ...]:
        rows = self._tables.sessions.rows.values()
        found = [_counted(row) for row in rows if row.workspace_id == workspace_id]
        found.reverse()  # of one time, the newest first
        return tuple(sorted(found, key=lambda session: session.updated_at, reverse=True))

    def _messages(
        self, session_id: SessionId, limit: int | None, before: MessageId | None
    ) -> tuple[Message, ...]:
        found = [row.message for row in self._tables.messages_of(session_id)]
        if before is not None:
            ids = [message.id for message in found]
            found = found[: ids.index(before)] if before in ids else []
        return tuple(found if limit is None else found[max(0, len(found) - limit) :])

    # --- applying -----------------------------------------------------------------------------

    def _apply_all(self) -> None:
        """Apply what waits; in the Trio thread, between the steps of its tasks."""
        if self._paused:
            return
        done: list[tuple[PendingCommit[Any], Committed[Any] | Exception]] = []
        while self._queue and len(done) < limits.GROUP_COMMIT_MAX:
            commit = self._queue.popleft()
            done.append((commit, self._apply(commit)))
        for commit, result in done:
            if isinstance(result, Committed):
                commit.resolve(result)
            else:
                commit.fail(result)

    def _apply(self, commit: PendingCommit[Any]) -> Committed[Any] | Exception:
        error, self._next_failure = self._next_failure, None
        if error is not None or self.failed.is_set():
            error = error or StoreError("store_failed", "the store in memory has failed")
            if error.code == "store_failed":
                self.failed.set()
            return error
        workspace_id = commit.workspace_id
        before = self._tables.counters_of(workspace_id).last_seq
        transaction = MemoryTransaction(self._tables, workspace_id, self._now_ms())
        try:
            value = commit.commit(transaction)
        except Exception as exc:  # whatever the commit's function raises is its caller's
            self._tables.roll_back()
            return exc
        self._tables.keep()
        if transaction.events:
            self._publish(workspace_id, tuple(transaction.events))
            self._remove_old_events(workspace_id)
        return Committed(value, before + 1, self._tables.counters_of(workspace_id).last_seq)

    def _remove_old_events(self, workspace_id: WorkspaceId) -> None:
        tables = self._tables
        counters = tables.counters_of(workspace_id)
        kept = (
            tables.events.get((workspace_id, seq))
            for seq in range(
                counters.oldest,
                min(counters.oldest + limits.RETENTION_BATCH, counters.last_seq + 1),
            )
        )
        upto = rules.expired_upto(
            ((event.seq, event.ts_ms) for event in kept if event is not None),
            last_seq=counters.last_seq,
            now_ms=self._now_ms(),
            open_from=min(
                (
                    entry.born_seq
                    for entry in tables.runs.rows.values()
                    if _is_open(entry.row) and entry.row.record.workspace_id == workspace_id
                ),
                default=None,
            ),
        )
        if upto:
            for seq in range(counters.oldest, upto + 1):
                if tables.events.get((workspace_id, seq)):
                    tables.remove_event((workspace_id, seq))
            tables.counters.put(workspace_id, attrs.evolve(counters, oldest=upto + 1))
            tables.keep()

    def _drain(self) -> None:
        self._paused = False
        while self._queue:
            self._apply_all()
        self._closed = True


def _counted(row: SessionRow) -> Session:
    return attrs.evolve(row.session, message_count=row.message_count)


def _is_open(row: RunRow) -> bool:
    return row.record.state is not RunState.FINISHED


@asynccontextmanager
async def open_memory_store(
    *, publish: Publish, now_ms: Callable[[], int] = wall_clock_ms
) -> AsyncIterator[MemoryStore]:
    """A `MemoryStore` that applies what is queued when the block is left."""
    store = MemoryStore(publish=publish, now_ms=now_ms)
    try:
        yield store
    finally:
        store._drain()
