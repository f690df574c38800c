"""One commit on the tables in memory."""

from __future__ import annotations

import attrs

from crush_trio.protocol.events import Payload
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId, new_id
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import RunState
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store import memory_jobs, rules
from crush_trio.store.contract import (
    AskRow,
    ConstraintError,
    DuplicateRunError,
    Grant,
    JobRow,
    RunRow,
    StoredEvent,
    StoredMessage,
    WorkspaceRow,
)
from crush_trio.store.encoding import encode_rest, stamp
from crush_trio.store.memory_rows import Counters, RunEntry, SessionRow, Tables


class MemoryTransaction:
    """A `Transaction` on `Tables`; the store keeps or rolls back what it did."""

    def __init__(self, tables: Tables, workspace_id: WorkspaceId, now_ms: int) -> None:
        self._tables = tables
        self._workspace_id = workspace_id
        self._now_ms = now_ms
        self._first_seq = self.next_seq()
        self._removed: dict[SessionId, tuple[SessionId, ...]] = {}
        self.events: list[StoredEvent] = []

    @property
    def workspace_id(self) -> WorkspaceId:
        """The workspace this commit belongs to."""
        return self._workspace_id

    @property
    def now_ms(self) -> int:
        """Unix milliseconds, one value for the whole commit."""
        return self._now_ms

    def next_seq(self) -> int:
        """The sequence number that the next `emit` will get."""
        return self._tables.counters_of(self._workspace_id).last_seq + 1

    def emit(
        self,
        kind: str,
        change: str,
        payload: Payload,
        *,
        session_id: SessionId | None = None,
        run_id: RunId | None = None,
    ) -> int:
        """See `crush_trio.store.contract.Transaction.emit`."""
        if run_id is not None and self._tables.endings.get(run_id) is not None:
            raise ConstraintError(f"{self._workspace_id}: run {run_id} has ended already")
        session_ids = () if session_id is None else self._with_ancestors(session_id)
        seq = self.next_seq()
        data = stamp(encode_rest(kind, change, payload, self._workspace_id), seq, self._now_ms)
        event = StoredEvent(seq, self._now_ms, kind, session_ids, run_id, data)
        self._tables.add_event(self._workspace_id, event)
        self._count(last_seq=seq)
        self.events.append(event)
        return seq

    def put_workspace(self, row: WorkspaceRow) -> None:
        """See `crush_trio.store.contract.Transaction.put_workspace`."""
        for other in self._tables.workspaces.rows.values():
            if other.path == row.path and other.id != row.id:
                raise ConstraintError(f"{row.id}: {other.id} has the same path")
        self._tables.workspaces.put(row.id, row)
        if row.id == self._workspace_id:
            self._accepted(row.last_accept)

    def remove_workspace(self) -> None:
        """See `crush_trio.store.contract.Transaction.remove_workspace`."""
        tables, mine = self._tables, self._workspace_id
        if tables.workspaces.get(mine):
            tables.workspaces.remove(mine)
        for run_id, entry in list(tables.runs.rows.items()):
            if entry.row.record.workspace_id == mine:
                tables.runs.remove(run_id)
        for session_id, row in list(tables.sessions.rows.items()):
            if row.workspace_id == mine:
                self._remove_rows(session_id)
        for key in [key for key in tables.events.rows if key[0] == mine]:
            tables.remove_event(key)
        self._count(oldest=self.next_seq())

    def session(self, session_id: SessionId) -> Session | None:
        """See `crush_trio.store.contract.Transaction.session`."""
        row = self._tables.sessions.get(session_id)
        if row is None or row.workspace_id != self._workspace_id:
            return None
        return attrs.evolve(row.session, message_count=row.message_count)

    def put_session(self, session: Session) -> None:
        """See `crush_trio.store.contract.Transaction.put_session`."""
        old = self._tables.sessions.get(session.id)
        if old is not None and old.workspace_id != self._workspace_id:
            raise ConstraintError(f"session {session.id} belongs to another workspace")
        self._need_workspace(self._workspace_id)
        count = old.message_count if old else 0
        self._tables.sessions.put(session.id, SessionRow(self._workspace_id, session, count))

    def sub_sessions(self, session_id: SessionId) -> tuple[SessionId, ...]:
        """See `crush_trio.store.contract.Transaction.sub_sessions`."""
        return self._tables.below(session_id)

    def remove_session(self, session_id: SessionId) -> None:
        """See `crush_trio.store.contract.Transaction.remove_session`."""
        tables = self._tables
        self._removed[session_id] = self._with_ancestors(session_id)
        if self.session(session_id) is not None:
            self._remove_rows(session_id)
        for key, event in list(tables.events.rows.items()):
            own = event.session_ids[:1] == (session_id,)
            if own and key[0] == self._workspace_id and key[1] < self._first_seq:
                tables.remove_event(key)
        for entry in list(tables.runs.rows.values()):
            record = entry.row.record
            if record.session_id == session_id and record.workspace_id == self._workspace_id:
                self.put_run(rules.tombstone(entry.row))

    def message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Transaction.message`."""
        row = self._tables.messages.get(message_id)
        return None if row is None else row.message

    def messages(self, session_id: SessionId) -> tuple[StoredMessage, ...]:
        """See `crush_trio.store.contract.Transaction.messages`."""
        return self._tables.messages_of(session_id)

    def put_message(self, message: Message, *, accept_seq: int, ordinal: int) -> None:
        """See `crush_trio.store.contract.Transaction.put_message`."""
        tables = self._tables
        old = tables.messages.get(message.id)
        if old is not None and old.message.session_id != message.session_id:
            raise ConstraintError(f"message {message.id} belongs to another session")
        if old is not None:
            tables.messages.put(message.id, attrs.evolve(old, message=message))
            return
        session = self._need_session(message.session_id)
        tables.messages.put(message.id, StoredMessage(message, accept_seq, ordinal))
        counted = attrs.evolve(session, message_count=session.message_count + 1)
        tables.sessions.put(message.session_id, counted)

    def remove_message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Transaction.remove_message`."""
        message = self.message(message_id)
        if message is None or self.session(message.session_id) is None:
            return None
        session = self._need_session(message.session_id)
        self._tables.messages.remove(message_id)
        counted = attrs.evolve(session, message_count=session.message_count - 1)
        self._tables.sessions.put(message.session_id, counted)
        return message

    def run(self, run_id: RunId) -> RunRow | None:
        """See `crush_trio.store.contract.Transaction.run`."""
        entry = self._tables.runs.get(run_id)
        return None if entry is None else entry.row

    def insert_run(self, row: RunRow) -> None:
        """See `crush_trio.store.contract.Transaction.insert_run`."""
        if self._tables.runs.get(row.record.id) is not None:
            raise DuplicateRunError(f"run id {row.record.id} is taken")
        self._need_workspace(row.record.workspace_id)
        self._tables.runs.put(row.record.id, RunEntry(row, self.next_seq()))
        if row.record.workspace_id == self._workspace_id:
            self._accepted(row.record.accept_seq)

    def put_run(self, row: RunRow) -> None:
        """See `crush_trio.store.contract.Transaction.put_run`."""
        old = self._tables.runs.get(row.record.id)
        if old is None or old.row.record.workspace_id != row.record.workspace_id:
            raise ConstraintError(f"there is no run {row.record.id} in {row.record.workspace_id}")
        ended = old.row.record.state is RunState.FINISHED
        if ended and row.record.state is not RunState.FINISHED:
            raise ConstraintError(f"run {row.record.id} has ended and cannot go on")
        self._tables.runs.put(row.record.id, attrs.evolve(old, row=row))

    def add_file_change(
        self, session_id: SessionId, path: str, before: str | None, after: str
    ) -> tuple[FileVersion, ...]:
        """See `crush_trio.store.contract.Transaction.add_file_change`."""
        self._need_session(session_id)
        stored = [
            item
            for item in self._tables.files.rows.values()
            if item.session_id == session_id and item.path == path
        ]
        last, version = (stored[-1].content, stored[-1].version) if stored else (None, -1)
        now = self._now_ms // 1000
        added = tuple(
            FileVersion(new_id(), session_id, path, content, version + i, now, now)
            for i, content in enumerate(rules.contents_to_add(last, before, after), start=1)
        )
        for item in added:
            self._tables.files.put(item.id, item)
        return added

    def mark_read(self, session_id: SessionId, path: str, at_ns: int) -> None:
        """See `crush_trio.store.contract.Transaction.mark_read`."""
        self._need_session(session_id)
        self._tables.reads.put((session_id, path), at_ns)

    def ask(self, ask_id: str) -> AskRow | None:
        """See `crush_trio.store.asks.AskWrites.ask`."""
        return self._tables.asks.get(ask_id)

    def pending_asks(self, run_id: RunId) -> tuple[AskRow, ...]:
        """See `crush_trio.store.asks.AskWrites.pending_asks`."""
        return tuple(row for row in self._tables.pending_asks() if row.run_id == run_id)

    def put_ask(self, row: AskRow) -> None:
        """See `crush_trio.store.asks.AskWrites.put_ask`."""
        old = self._tables.asks.get(row.id)
        if old is not None and old.ending is not None:
            raise ConstraintError(f"{self._workspace_id}: this request has ended already")
        self._need_session(row.session_id)
        self._tables.asks.put(row.id, row)

    def put_job(self, row: JobRow) -> None:
        """See `crush_trio.store.jobs.JobWrites.put_job`."""
        self._need_session(row.record.session_id)
        memory_jobs.put(self._tables, self._workspace_id, row)

    def remove_job(self, job_id: str) -> None:
        """See `crush_trio.store.jobs.JobWrites.remove_job`."""
        memory_jobs.remove(self._tables, self._workspace_id, job_id)

    def add_grant(self, session_id: SessionId, grant: Grant) -> None:
        """See `crush_trio.store.asks.AskWrites.add_grant`."""
        self._need_session(session_id)
        if (session_id, grant) not in self._tables.grants.rows:  # who gave it first stays named
            self._tables.grants.put((session_id, grant), None)

    def remove_grant(self, session_id: SessionId, grant: Grant) -> None:
        """See `crush_trio.store.asks.AskWrites.remove_grant`."""
        if (session_id, grant) in self._tables.grants.rows:
            self._tables.grants.remove((session_id, grant))

    def _remove_rows(self, session_id: SessionId) -> None:
        tables = self._tables
        tables.sessions.remove(session_id)
        for row in tables.messages_of(session_id):
            tables.messages.remove(row.message.id)
        for item in list(tables.files.rows.values()):
            if item.session_id == session_id:
                tables.files.remove(item.id)
        for key in [key for key in tables.reads.rows if key[0] == session_id]:
            tables.reads.remove(key)
        for ask in [ask for ask in tables.asks.rows.values() if ask.session_id == session_id]:
            tables.asks.remove(ask.id)
        for granted in [key for key in tables.grants.rows if key[0] == session_id]:
            tables.grants.remove(granted)
        memory_jobs.remove_of_session(tables, session_id)

    def _with_ancestors(self, session_id: SessionId) -> tuple[SessionId, ...]:
        known = self._removed.get(session_id)
        if known is not None:
            return known
        found = [session_id]
        while (row := self._tables.sessions.get(found[-1])) is not None:
            parent = SessionId(row.session.parent_session_id)
            if not parent or parent in found:
                break
            found.append(parent)
        return tuple(found)

    def _need_workspace(self, workspace_id: WorkspaceId) -> None:
        if self._tables.workspaces.get(workspace_id) is None:
            raise ConstraintError(f"there is no workspace {workspace_id}")

    def _need_session(self, session_id: SessionId) -> SessionRow:
        row = self._tables.sessions.get(session_id)
        if row is None:
            raise ConstraintError(f"there is no session {session_id}")
        return row

    def _accepted(self, accept_seq: int) -> None:
        newest = self._tables.counters_of(self._workspace_id).last_accept
        self._count(last_accept=max(newest, accept_seq))

    def _count(self, **changes: int) -> None:
        old: Counters = self._tables.counters_of(self._workspace_id)
        self._tables.counters.put(self._workspace_id, attrs.evolve(old, **changes))
