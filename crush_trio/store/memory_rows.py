"""Tables of the store in memory, with the undo of a failed commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store.contract import (
    AskRow,
    Grant,
    JobRow,
    RunRow,
    StoredEvent,
    StoredMessage,
    WorkspaceRow,
)

K = TypeVar("K")
V = TypeVar("V")


class Table(Generic[K, V]):
    """A dict whose changes can be undone; rows keep the order in which they were inserted."""

    def __init__(self, undo: list[Callable[[], None]]) -> None:
        self.rows: dict[K, V] = {}
        self._undo = undo

    def get(self, key: K) -> V | None:
        """The row, if there is one."""
        return self.rows.get(key)

    def put(self, key: K, value: V) -> None:
        """Insert or replace a row."""
        if key in self.rows:
            old = self.rows[key]
            self._undo.append(lambda: self.rows.__setitem__(key, old))
        else:
            self._undo.append(lambda: self.rows.__delitem__(key))
        self.rows[key] = value

    def remove(self, key: K) -> None:
        """Delete a row that exists."""
        before = dict(self.rows)  # the order of the rest must come back too
        self._undo.append(lambda: self._restore(before))
        del self.rows[key]

    def _restore(self, before: dict[K, V]) -> None:
        self.rows = before


@attrs.frozen
class SessionRow:
    """A session, whose it is, and how many messages it has."""

    workspace_id: WorkspaceId
    session: Session
    message_count: int = 0


@attrs.frozen
class RunEntry:
    """A run, and the first event that may be its own."""

    row: RunRow
    born_seq: int


@attrs.frozen
class Counters:
    """What a workspace has handed out, and from where on its events are kept."""

    last_seq: int = 0
    oldest: int = 1
    last_accept: int = 0


class Tables:
    """All state of a store in memory."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        """Steps back to before the commit under way."""
        self.counters: Table[WorkspaceId, Counters] = Table(self.undo)
        self.workspaces: Table[WorkspaceId, WorkspaceRow] = Table(self.undo)
        self.sessions: Table[SessionId, SessionRow] = Table(self.undo)
        self.messages: Table[MessageId, StoredMessage] = Table(self.undo)
        self.runs: Table[RunId, RunEntry] = Table(self.undo)
        self.files: Table[str, FileVersion] = Table(self.undo)
        self.reads: Table[tuple[SessionId, str], int] = Table(self.undo)
        self.asks: Table[str, AskRow] = Table(self.undo)
        self.grants: Table[tuple[SessionId, Grant], None] = Table(self.undo)
        self.jobs: Table[tuple[WorkspaceId, int], JobRow] = Table(self.undo)
        self.job_counters: Table[WorkspaceId, int] = Table(self.undo)
        self.events: Table[tuple[WorkspaceId, int], StoredEvent] = Table(self.undo)
        self.endings: Table[RunId, int] = Table(self.undo)
        """The ``seq`` of each stored `run_complete`."""

    def roll_back(self) -> None:
        """Undo everything since the last `keep`."""
        while self.undo:
            self.undo.pop()()

    def keep(self) -> None:
        """Make everything so far permanent."""
        self.undo.clear()

    def counters_of(self, workspace_id: WorkspaceId) -> Counters:
        """A workspace's counters; fresh ones if it has none."""
        return self.counters.get(workspace_id) or Counters()

    def add_event(self, workspace_id: WorkspaceId, event: StoredEvent) -> None:
        """Append an event."""
        self.events.put((workspace_id, event.seq), event)
        if event.kind == "run_complete" and event.run_id is not None:
            self.endings.put(event.run_id, event.seq)

    def remove_event(self, key: tuple[WorkspaceId, int]) -> None:
        """Delete an event that exists."""
        event = self.events.rows[key]
        self.events.remove(key)
        if event.kind == "run_complete" and event.run_id in self.endings.rows:
            self.endings.remove(event.run_id)

    def messages_of(self, session_id: SessionId) -> tuple[StoredMessage, ...]:
        """A session's messages in order (G7)."""
        found = [row for row in self.messages.rows.values() if row.message.session_id == session_id]
        return tuple(sorted(found, key=lambda row: (row.accept_seq, row.ordinal)))

    def pending_asks(self) -> tuple[AskRow, ...]:
        """The requests that wait, oldest first."""
        return tuple(row for row in self.asks.rows.values() if row.ending is None)

    def below(self, session_id: SessionId) -> tuple[SessionId, ...]:
        """All sessions below this one, at any depth."""
        found: list[SessionId] = []
        parents = [session_id]
        while parents:
            parent = parents.pop(0)
            for key, row in self.sessions.rows.items():
                if row.session.parent_session_id == parent and key not in found:
                    found.append(key)
                    parents.append(key)
        return tuple(found)
