"""The store on a disk: one SQLite database in a locked data directory."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import RunRecord
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store.clock import wall_clock_ms
from crush_trio.store.contract import (
    AskRow,
    Commit,
    EventPage,
    Grant,
    JobRow,
    Publish,
    RunRow,
    Selection,
    SnapshotRows,
    Ticket,
    WorkspaceRow,
)
from crush_trio.store.sqlite import asks, errors, jobs, reads
from crush_trio.store.sqlite.connect import SYNCHRONOUS, connect_reader
from crush_trio.store.sqlite.migrate import shipped_migrations
from crush_trio.store.sqlite.opening import Opened, open_directory
from crush_trio.store.sqlite.writer import Writer
from crush_trio.store.ticket import PendingCommit

T = TypeVar("T")


class SqliteStore:
    """A `Store`; got from `open_store`. All methods are for the Trio thread it was opened in.

    A read takes one hop to a thread, and `limits.READER_THREADS` of them run at once.
    """

    def __init__(self, opened: Opened, writer: Writer) -> None:
        self._opened = opened
        self._writer = writer
        self._limiter = trio.CapacityLimiter(limits.READER_THREADS)
        self._readers: deque[sqlite3.Connection] = deque()

    @property
    def epoch(self) -> str:
        """Names one unbroken numbering of events (contract 4)."""
        return self._opened.marks.epoch

    @property
    def path(self) -> Path:
        """The database file."""
        return self._opened.path

    @property
    def failed(self) -> trio.Event:
        """Set when nothing can be written any more; the server then exits 75 (contract 3)."""
        return self._writer.failed

    @property
    def failure(self) -> StoreError | None:
        """Why `failed` is set."""
        return self._writer.failure

    def announce(self, url: str) -> None:
        """Tell whoever finds the data directory locked where its server listens."""
        self._opened.lock.note(url=url)

    def commit_nowait(
        self, workspace_id: WorkspaceId, commit: Commit[T], *, relaxed: bool = False
    ) -> Ticket[T]:
        """See `crush_trio.store.contract.Store.commit_nowait`."""
        pending = PendingCommit(workspace_id, commit, relaxed)
        self._writer.put(pending)
        return pending

    def check_room(self) -> None:
        """See `crush_trio.store.contract.Store.check_room`."""
        self._writer.check_room()

    async def workspaces(self) -> tuple[WorkspaceRow, ...]:
        """See `crush_trio.store.contract.Store.workspaces`."""
        return await self._read(reads.workspaces)

    async def sessions(self, workspace_id: WorkspaceId) -> tuple[Session, ...]:
        """See `crush_trio.store.contract.Store.sessions`."""
        return await self._read(lambda conn: reads.sessions(conn, workspace_id))

    async def session(self, session_id: SessionId) -> tuple[WorkspaceId, Session] | None:
        """See `crush_trio.store.contract.Store.session`."""
        return await self._read(lambda conn: reads.session(conn, session_id))

    async def messages(
        self, session_id: SessionId, *, limit: int | None = None, before: MessageId | None = None
    ) -> tuple[Message, ...]:
        """See `crush_trio.store.contract.Store.messages`."""
        return await self._read(lambda conn: reads.messages(conn, session_id, limit, before))

    async def user_messages(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[Message, ...]:
        """See `crush_trio.store.contract.Store.user_messages`."""
        return await self._read(lambda conn: reads.user_messages(conn, workspace_id, session_id))

    async def run(self, run_id: RunId) -> RunRow | None:
        """See `crush_trio.store.contract.Store.run`."""
        return await self._read(lambda conn: reads.run(conn, run_id))

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
        return await self._read(
            lambda conn: reads.runs(conn, workspace_id, session_id, state, limit, before)
        )

    async def open_runs(self) -> tuple[RunRow, ...]:
        """See `crush_trio.store.contract.Store.open_runs`."""
        return await self._read(reads.open_runs)

    async def message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Store.message`."""
        return await self._read(lambda conn: reads.message(conn, message_id))

    async def file_version(self, version_id: str) -> FileVersion | None:
        """See `crush_trio.store.contract.Store.file_version`."""
        return await self._read(lambda conn: reads.file_version(conn, version_id))

    async def file_versions(self, session_id: SessionId) -> tuple[FileVersion, ...]:
        """See `crush_trio.store.contract.Store.file_versions`."""
        return await self._read(lambda conn: reads.file_versions(conn, session_id))

    async def reads(self, session_id: SessionId) -> dict[str, int]:
        """See `crush_trio.store.contract.Store.reads`."""
        return await self._read(lambda conn: reads.read_marks(conn, session_id))

    async def ask(self, ask_id: str) -> AskRow | None:
        """See `crush_trio.store.asks.AskReads.ask`."""
        return await self._read(lambda conn: asks.one(conn, ask_id))

    async def pending_asks(self, workspace_id: WorkspaceId | None = None) -> tuple[AskRow, ...]:
        """See `crush_trio.store.asks.AskReads.pending_asks`."""
        return await self._read(lambda conn: asks.pending(conn, workspace_id))

    async def grants(self, session_id: SessionId) -> frozenset[Grant]:
        """See `crush_trio.store.asks.AskReads.grants`."""
        return await self._read(lambda conn: asks.grants(conn, session_id))

    async def jobs(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[JobRow, ...]:
        """See `crush_trio.store.jobs.JobReads.jobs`."""
        return await self._read(lambda conn: jobs.listed(conn, workspace_id, session_id))

    async def running_jobs(self) -> tuple[JobRow, ...]:
        """See `crush_trio.store.jobs.JobReads.running_jobs`."""
        return await self._read(jobs.running)

    async def last_job(self, workspace_id: WorkspaceId) -> int:
        """See `crush_trio.store.jobs.JobReads.last_job`."""
        return await self._read(lambda conn: jobs.last_number(conn, workspace_id))

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """See `crush_trio.store.contract.Store.last_seq`."""
        return await self._read(lambda conn: reads.last_seq(conn, workspace_id))

    async def events(
        self, workspace_id: WorkspaceId, *, after: int, upto: int, selection: Selection, limit: int
    ) -> EventPage:
        """See `crush_trio.store.contract.Store.events`."""
        return await self._read(
            lambda conn: reads.events(conn, workspace_id, after, upto, selection, limit)
        )

    async def snapshot(
        self,
        workspace_id: WorkspaceId,
        session_id: SessionId | None,
        *,
        messages: int,
        before: MessageId | None,
    ) -> SnapshotRows:
        """See `crush_trio.store.contract.Store.snapshot`."""
        return await self._read(
            lambda conn: reads.snapshot(conn, workspace_id, session_id, messages, before)
        )

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await trio.to_thread.run_sync(self._read_in_thread, read, limiter=self._limiter)
        except sqlite3.Error as exc:
            raise errors.store_error(exc, self.path) from exc

    def _read_in_thread(self, read: Callable[[sqlite3.Connection], T]) -> T:
        # As many threads as the limiter lets in, so as many connections at the most.
        try:
            conn = self._readers.pop()
        except IndexError:
            conn = connect_reader(self.path)
        try:
            return read(conn)
        finally:
            self._readers.append(conn)

    async def _close(self, within_s: float) -> None:
        """Finish what is queued and close everything, within so many seconds."""
        self._writer.stop()
        with trio.move_on_after(within_s, shield=True):
            for borrower in range(limits.READER_THREADS):  # until no read is under way
                await self._limiter.acquire_on_behalf_of(borrower)
            while self._readers:
                self._readers.pop().close()
            await self._writer.closed.wait()
            self._writer.join()


@asynccontextmanager
async def open_store(
    data_dir: Path,
    *,
    durability: str = "full",
    publish: Publish,
    now_ms: Callable[[], int] = wall_clock_ms,
    migrations: Sequence[str] | None = None,
    closing_s: float = limits.SHUTDOWN_STORE_S,
) -> AsyncIterator[SqliteStore]:
    """The store of a data directory, which is locked until the block is left.

    Args:
        data_dir: Created 0700 if it is missing.
        durability: ``full`` or ``normal`` (contract 5).
        publish: Gets the events of every commit, after it and before its ticket returns.
        now_ms: Unix milliseconds.
        migrations: The schema's steps; the shipped ones unless a test brings its own.
        closing_s: The most that leaving the block takes.

    Raises:
        StoreError: In use (``data_dir_in_use``), damaged, newer, not writable, or full.
    """
    if durability not in SYNCHRONOUS:
        raise ValueError(f"durability is full or normal, not {durability!r}")
    steps = shipped_migrations() if migrations is None else migrations
    opened = await trio.to_thread.run_sync(
        lambda: open_directory(data_dir, durability=durability, migrations=steps)
    )
    writer = Writer(
        opened.conn,
        opened.path,
        opened.marks,
        durability=durability,
        publish=publish,
        now_ms=now_ms,
    )
    store = SqliteStore(opened, writer)
    writer.start()
    try:
        yield store
    finally:
        await store._close(closing_s)  # noqa: ASYNC102  # shields and bounds itself
        opened.lock.release()
