"""What the rest of the server may ask of a store: commits, reads, and the rows they move.

A *commit* is a plain function on a `Transaction`: it changes rows and emits the events that
report the change, and both become durable together (G8). Commits of one store are applied in the
order in which they were queued. There is no SQL and no SQLite type outside this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import attrs

from crush_trio.protocol.events import Payload
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import LeftProcess, Receipt, RunRecord
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store.asks import AskReads, AskWrites
from crush_trio.store.asks import AskRow as AskRow  # part of the contract, as all names below
from crush_trio.store.asks import Grant as Grant
from crush_trio.store.asks import without_details as without_details
from crush_trio.store.events import EventPage as EventPage
from crush_trio.store.events import Selection as Selection
from crush_trio.store.events import StoredEvent as StoredEvent
from crush_trio.store.jobs import JobReads, JobWrites
from crush_trio.store.jobs import JobRow as JobRow

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class WorkspaceRow:
    """A known workspace; ``path`` is absolute and symlink-resolved.

    ``last_accept`` is the newest accept sequence handed out, kept across deletions.
    """

    id: WorkspaceId
    path: str
    created_at_ms: int
    last_accept: int = 0


@attrs.frozen
class RunRow:
    """A run as stored: its public record, what was asked, and what was promised.

    ``digest`` identifies the request body (G3); ``receipt`` is the stored 202; ``principal`` who
    asked; ``turn`` its place among the waiting runs, if it was moved (otherwise its accept
    sequence); ``processes`` the live tool processes that recovery must see gone (G10).
    """

    record: RunRecord
    request: PromptRequest
    digest: str
    receipt: Receipt
    principal: str = ""
    processes: tuple[LeftProcess, ...] = ()
    turn: float | None = None


def turn_of(row: RunRow) -> float:
    """When a waiting run is due among those of its session: its accept sequence, unless moved."""
    return float(row.record.accept_seq) if row.turn is None else row.turn


@attrs.frozen
class StoredMessage:
    """A message with its place: (accept sequence of its run, ordinal within the run) (G7)."""

    message: Message
    accept_seq: int
    ordinal: int


@attrs.frozen
class SnapshotRows:
    """Rows read in one consistent view of the database, as of event ``seq``."""

    seq: int
    sessions: tuple[Session, ...]
    messages: tuple[Message, ...]
    runs: tuple[RunRecord, ...]
    asks: tuple[AskRow, ...] = ()
    jobs: tuple[JobRow, ...] = ()


class DuplicateRunError(Exception):
    """The run id is taken; the store's schema says so (G3). Undoes the whole commit."""


class ConstraintError(Exception):
    """A commit broke a rule of the schema; it is undone as a whole.

    For example a second ``run_complete`` of a run (G1), a message of an unknown session, a
    session of an unknown workspace, two workspaces of one path. A bug of the caller.
    """


class Transaction(AskWrites, JobWrites, Protocol):
    """One commit in the making. Synchronous; never kept beyond its function.

    Reads see the writes made before them, in this transaction too.
    """

    @property
    def workspace_id(self) -> WorkspaceId:
        """The workspace this commit belongs to."""
        ...

    @property
    def now_ms(self) -> int:
        """Unix milliseconds, one value for the whole commit."""
        ...

    def next_seq(self) -> int:
        """The sequence number that the next `emit` will get."""
        ...

    def emit(
        self,
        kind: str,
        change: str,
        payload: Payload,
        *,
        session_id: SessionId | None = None,
        run_id: RunId | None = None,
    ) -> int:
        """Append an event; returns its ``seq``.

        Raises:
            ConstraintError: This run has ended: its ``run_complete`` is its last event (G1).
        """
        ...

    def put_workspace(self, row: WorkspaceRow) -> None:
        """Insert or replace a workspace row."""
        ...

    def remove_workspace(self) -> None:
        """Delete everything of this workspace, its events too (purge).

        Its counters stay, so that no sequence number is ever given twice.
        """
        ...

    def session(self, session_id: SessionId) -> Session | None:
        """A session of this workspace as it is now; ``message_count`` is counted."""
        ...

    def put_session(self, session: Session) -> None:
        """Insert or replace a session. ``message_count`` is kept by the store itself."""
        ...

    def sub_sessions(self, session_id: SessionId) -> tuple[SessionId, ...]:
        """All sessions below this one, at any depth."""
        ...

    def remove_session(self, session_id: SessionId) -> None:
        """Delete a session with its messages, files, read marks and events.

        Its run rows stay as tombstones: ``deleted`` set, prompt and text removed. Events that
        this same commit emitted stay too, so ``session/deleted`` may come before or after.
        """
        ...

    def message(self, message_id: MessageId) -> Message | None:
        """One message."""
        ...

    def messages(self, session_id: SessionId) -> tuple[StoredMessage, ...]:
        """All messages of a session in order (G7)."""
        ...

    def put_message(self, message: Message, *, accept_seq: int, ordinal: int) -> None:
        """Insert a message at its place, or replace its content (its place never changes)."""
        ...

    def remove_message(self, message_id: MessageId) -> Message | None:
        """Delete one message of this workspace; returns it, or ``None`` if there is none."""
        ...

    def run(self, run_id: RunId) -> RunRow | None:
        """One run, of any workspace: ids are unique per server."""
        ...

    def insert_run(self, row: RunRow) -> None:
        """Insert a run; also raises the workspace's ``last_accept``.

        Raises:
            DuplicateRunError: The id exists.
        """
        ...

    def put_run(self, row: RunRow) -> None:
        """Replace the content of an existing run row.

        Raises:
            ConstraintError: There is no such run, or it has ended and would go on (G1).
        """
        ...

    def add_file_change(
        self, session_id: SessionId, path: str, before: str | None, after: str
    ) -> tuple[FileVersion, ...]:
        """Store a changed file's versions (CW 7.4 "History"); returns the versions added."""
        ...

    def mark_read(self, session_id: SessionId, path: str, at_ns: int) -> None:
        """Remember that this session read ``path`` (absolute) at unix time ``at_ns``."""
        ...


Commit = Callable[[Transaction], T]
"""The body of a commit. May raise: then only its own changes are undone (contract 3).

Called once, maybe in another thread: it only reads what it was given, and what it works out
travels back as its value.
"""


@attrs.frozen
class Committed(Generic[T_co]):
    """What a durable commit gave: its function's value and its events.

    ``first_seq`` is ``last_seq + 1`` if it emitted nothing.
    """

    value: T_co
    first_seq: int
    last_seq: int


class Ticket(Protocol[T_co]):
    """A queued commit. It will be tried whether or not anybody waits."""

    async def wait(self) -> Committed[T_co]:
        """Wait until the commit is durable (or has failed) and its events are published.

        Any number of tasks may wait; being cancelled only ends the waiting.

        Raises:
            StoreError: The commit could not be made durable; nothing of it was applied.
            Exception: Whatever the commit's function raised; nothing of it was applied.
        """
        ...


Publish = Callable[[WorkspaceId, Sequence[StoredEvent]], None]
"""Takes committed events, in order, in the Trio thread; must not wait or raise."""


class Store(AskReads, JobReads, Protocol):
    """The durable state of one server. Reads see every commit whose ticket has returned."""

    @property
    def epoch(self) -> str:
        """Names one unbroken numbering of events (contract 4)."""
        ...

    def commit_nowait(
        self, workspace_id: WorkspaceId, commit: Commit[T], *, relaxed: bool = False
    ) -> Ticket[T]:
        """Queue a commit behind all earlier ones, without waiting. It is never withdrawn.

        ``relaxed`` is for checkpoints of open text: such a commit is safe against the death of
        this process but need not be synced to the disk before it counts (contract 5).

        Raises:
            StoreError: ``overloaded`` when `limits.WRITER_QUEUE_MAX` commits wait, or
                ``store_failed`` after a failed write; nothing was queued.
        """
        ...

    def check_room(self) -> None:
        """Whether a `commit_nowait` in the same step would be taken.

        Lets a caller change its own state first and then queue the commit that records it.

        Raises:
            StoreError: As `commit_nowait`.
        """
        ...

    async def workspaces(self) -> tuple[WorkspaceRow, ...]:
        """All known workspaces."""
        ...

    async def sessions(self, workspace_id: WorkspaceId) -> tuple[Session, ...]:
        """Top-level sessions, newest ``updated_at`` first."""
        ...

    async def session(self, session_id: SessionId) -> tuple[WorkspaceId, Session] | None:
        """One session and its workspace."""
        ...

    async def messages(
        self, session_id: SessionId, *, limit: int | None = None, before: MessageId | None = None
    ) -> tuple[Message, ...]:
        """Messages in order; with ``limit`` the newest that many (before a message, if given)."""
        ...

    async def user_messages(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[Message, ...]:
        """User messages, newest first (CW 2.4)."""
        ...

    async def run(self, run_id: RunId) -> RunRow | None:
        """One run, open or finished."""
        ...

    async def runs(
        self,
        *,
        workspace_id: WorkspaceId | None = None,
        session_id: SessionId | None = None,
        state: str | None = None,
        limit: int,
        before: RunId | None = None,
    ) -> tuple[RunRecord, ...]:
        """Records, newest first; ``before`` pages on from a run."""
        ...

    async def open_runs(self) -> tuple[RunRow, ...]:
        """Every run that is not finished, by (workspace, accept sequence); for recovery."""
        ...

    async def message(self, message_id: MessageId) -> Message | None:
        """One message, of any session."""
        ...

    async def file_version(self, version_id: str) -> FileVersion | None:
        """One stored file version, of any session."""
        ...

    async def file_versions(self, session_id: SessionId) -> tuple[FileVersion, ...]:
        """Stored file versions of a session, by (path, version)."""
        ...

    async def reads(self, session_id: SessionId) -> dict[str, int]:
        """Absolute path → unix ns of the session's last read, newest first."""
        ...

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """The newest committed event's sequence number; 0 if there is none."""
        ...

    async def events(
        self, workspace_id: WorkspaceId, *, after: int, upto: int, selection: Selection, limit: int
    ) -> EventPage:
        """Events with ``after < seq <= upto`` that are selected, in order, at most ``limit``."""
        ...

    async def snapshot(
        self,
        workspace_id: WorkspaceId,
        session_id: SessionId | None,
        *,
        messages: int,
        before: MessageId | None,
    ) -> SnapshotRows:
        """Session(s), messages, open runs and pending requests, as of one ``seq``.

        Without ``session_id``: all sessions of the workspace and no messages.
        """
        ...
