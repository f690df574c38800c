"""One commit on the writing connection: changes to rows, and the events that report them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from crush_trio.protocol.codec import encode
from crush_trio.protocol.events import Payload
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId, new_id
from crush_trio.protocol.messages import Message
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store import rules
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
from crush_trio.store.sqlite import asks, jobs, rows

R = TypeVar("R")


@attrs.define
class Counters:
    """What a workspace has handed out: kept by the writer, stored once per group."""

    last_seq: int
    last_accept: int


class SqliteTransaction:
    """A `Transaction` inside the writer's savepoint; used up when its function returns."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        workspace_id: WorkspaceId,
        counters: Counters,
        now_ms: int,
    ) -> None:
        self._conn = conn
        self._workspace_id = workspace_id
        self._now_ms = now_ms
        self._first_seq = counters.last_seq + 1
        self._removed: dict[SessionId, tuple[SessionId, ...]] = {}
        self.counters = attrs.evolve(counters)
        """As they will be if this commit holds."""
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
        return self.counters.last_seq + 1

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
        session_ids = () if session_id is None else self._with_ancestors(session_id)
        seq = self.next_seq()
        rest = encode_rest(kind, change, payload, self._workspace_id)
        event = StoredEvent(
            seq, self._now_ms, kind, session_ids, run_id, stamp(rest, seq, self._now_ms)
        )
        self._write(
            "INSERT INTO events (workspace_id, seq, ts_ms, kind, session_id, session_ids, run_id,"
            " data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._workspace_id,
                seq,
                self._now_ms,
                kind,
                session_id,
                rows.session_ids_text(session_ids),
                run_id,
                event.data,
            ),
        )
        self.counters.last_seq = seq
        self.events.append(event)
        return seq

    def put_workspace(self, row: WorkspaceRow) -> None:
        """See `crush_trio.store.contract.Transaction.put_workspace`."""
        self._write(
            "INSERT INTO workspaces (id, path, created_at_ms) VALUES (?, ?, ?) ON CONFLICT (id)"
            " DO UPDATE SET path = excluded.path, created_at_ms = excluded.created_at_ms",
            (row.id, row.path, row.created_at_ms),
        )
        if row.id == self._workspace_id:
            self.counters.last_accept = max(self.counters.last_accept, row.last_accept)

    def remove_workspace(self) -> None:
        """See `crush_trio.store.contract.Transaction.remove_workspace`."""
        self._write("DELETE FROM workspaces WHERE id = ?", (self._workspace_id,))
        self._write("DELETE FROM events WHERE workspace_id = ?", (self._workspace_id,))
        self._write(
            "INSERT INTO counters (workspace_id, oldest) VALUES (?, ?)"
            " ON CONFLICT (workspace_id) DO UPDATE SET oldest = excluded.oldest",
            (self._workspace_id, self.next_seq()),
        )

    def session(self, session_id: SessionId) -> Session | None:
        """See `crush_trio.store.contract.Transaction.session`."""
        return self._one(
            f"SELECT {rows.SESSION} FROM sessions s WHERE s.id = ? AND s.workspace_id = ?",
            (session_id, self._workspace_id),
            rows.session_of,
        )

    def put_session(self, session: Session) -> None:
        """See `crush_trio.store.contract.Transaction.put_session`."""
        done = self._write(
            "INSERT INTO sessions (id, workspace_id, parent_id, updated_at, data)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " parent_id = excluded.parent_id, updated_at = excluded.updated_at,"
            " data = excluded.data WHERE workspace_id = excluded.workspace_id",
            (
                session.id,
                self._workspace_id,
                session.parent_session_id,
                session.updated_at,
                encode(session),
            ),
        )
        if done.rowcount == 0:
            raise ConstraintError(f"session {session.id} belongs to another workspace")

    def sub_sessions(self, session_id: SessionId) -> tuple[SessionId, ...]:
        """See `crush_trio.store.contract.Transaction.sub_sessions`."""
        found = self._conn.execute(
            "WITH RECURSIVE below (id) AS ("
            " SELECT id FROM sessions WHERE parent_id = ? AND parent_id <> ''"
            " UNION SELECT s.id FROM sessions s JOIN below b ON s.parent_id = b.id"
            "  WHERE s.parent_id <> ''"
            ") SELECT id FROM below",
            (session_id,),
        )
        return tuple(row[0] for row in found)

    def remove_session(self, session_id: SessionId) -> None:
        """See `crush_trio.store.contract.Transaction.remove_session`."""
        self._removed[session_id] = self._with_ancestors(session_id)
        self._write(
            "DELETE FROM sessions WHERE id = ? AND workspace_id = ?",
            (session_id, self._workspace_id),
        )
        self._write(
            "DELETE FROM events WHERE workspace_id = ? AND session_id = ? AND seq < ?",
            (self._workspace_id, session_id, self._first_seq),
        )
        for row in self._all(
            f"SELECT {rows.RUN} FROM {rows.RUN_FROM} WHERE r.session_id = ? AND r.workspace_id = ?",
            (session_id, self._workspace_id),
            rows.run_of,
        ):
            self.put_run(rules.tombstone(row))

    def message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Transaction.message`."""
        return self._one(
            f"SELECT {rows.MESSAGE} FROM messages m WHERE m.id = ?", (message_id,), rows.message_of
        )

    def messages(self, session_id: SessionId) -> tuple[StoredMessage, ...]:
        """See `crush_trio.store.contract.Transaction.messages`."""
        return self._all(
            f"SELECT {rows.PLACED_MESSAGE} FROM messages m WHERE m.session_id = ?"
            " ORDER BY m.accept_seq, m.ordinal, m.n",
            (session_id,),
            rows.placed_message_of,
        )

    def put_message(self, message: Message, *, accept_seq: int, ordinal: int) -> None:
        """See `crush_trio.store.contract.Transaction.put_message`."""
        data = encode(message)
        changed = self._write(
            "UPDATE messages SET role = ?, data = ? WHERE id = ? AND session_id = ?",
            (message.role, data, message.id, message.session_id),
        )
        if changed.rowcount:
            return
        self._write(
            "INSERT INTO messages (id, session_id, accept_seq, ordinal, role, data)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (message.id, message.session_id, accept_seq, ordinal, message.role, data),
        )
        self._write(
            "UPDATE sessions SET message_count = message_count + 1 WHERE id = ?",
            (message.session_id,),
        )

    def remove_message(self, message_id: MessageId) -> Message | None:
        """See `crush_trio.store.contract.Transaction.remove_message`."""
        message = self.message(message_id)
        if message is None or self.session(message.session_id) is None:
            return None
        self._write("DELETE FROM messages WHERE id = ?", (message_id,))
        self._write(
            "UPDATE sessions SET message_count = message_count - 1 WHERE id = ?",
            (message.session_id,),
        )
        return message

    def run(self, run_id: RunId) -> RunRow | None:
        """See `crush_trio.store.contract.Transaction.run`."""
        return self._one(
            f"SELECT {rows.RUN} FROM {rows.RUN_FROM} WHERE r.id = ?", (run_id,), rows.run_of
        )

    def insert_run(self, row: RunRow) -> None:
        """See `crush_trio.store.contract.Transaction.insert_run`."""
        if self._conn.execute("SELECT 1 FROM runs WHERE id = ?", (row.record.id,)).fetchone():
            raise DuplicateRunError(f"run id {row.record.id} is taken")
        self._write(
            "INSERT INTO runs (id, workspace_id, session_id, accept_seq, state, born_seq, digest,"
            " principal, record, receipt, processes, turn) VALUES (:id, :workspace_id, :session_id,"
            " :accept_seq, :state, :born_seq, :digest, :principal, :record, :receipt, :processes,"
            " :turn)",
            {**rows.run_columns(row), "born_seq": self.next_seq()},
        )
        self._write(
            "INSERT INTO run_requests (run_id, data) VALUES (?, ?)",
            (row.record.id, encode(row.request)),
        )
        if row.record.workspace_id == self._workspace_id:
            self.counters.last_accept = max(self.counters.last_accept, row.record.accept_seq)

    def put_run(self, row: RunRow) -> None:
        """See `crush_trio.store.contract.Transaction.put_run`."""
        changed = self._write(
            "UPDATE runs SET session_id = :session_id, accept_seq = :accept_seq, state = :state,"
            " digest = :digest, principal = :principal, record = :record, receipt = :receipt,"
            " processes = :processes, turn = :turn WHERE id = :id AND workspace_id = :workspace_id",
            rows.run_columns(row),
        )
        if changed.rowcount == 0:
            raise ConstraintError(f"there is no run {row.record.id} in {row.record.workspace_id}")
        request = encode(row.request)  # written only if it differs: it may hold megabytes
        self._write(
            "UPDATE run_requests SET data = ? WHERE run_id = ? AND data <> ?",
            (request, row.record.id, request),
        )

    def add_file_change(
        self, session_id: SessionId, path: str, before: str | None, after: str
    ) -> tuple[FileVersion, ...]:
        """See `crush_trio.store.contract.Transaction.add_file_change`."""
        newest = self._conn.execute(
            "SELECT content, version FROM files WHERE session_id = ? AND path = ?"
            " ORDER BY version DESC LIMIT 1",
            (session_id, path),
        ).fetchone()
        last, version = (None, -1) if newest is None else newest
        now = self._now_ms // 1000
        added = tuple(
            FileVersion(new_id(), session_id, path, content, version + i, now, now)
            for i, content in enumerate(rules.contents_to_add(last, before, after), start=1)
        )
        for item in added:
            self._write(
                f"INSERT INTO files ({rows.FILE}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (item.id, session_id, path, item.content, item.version, now, now),
            )
        return added

    def mark_read(self, session_id: SessionId, path: str, at_ns: int) -> None:
        """See `crush_trio.store.contract.Transaction.mark_read`."""
        self._write(
            "INSERT OR REPLACE INTO reads (session_id, path, at_ns) VALUES (?, ?, ?)",
            (session_id, path, at_ns),
        )

    def ask(self, ask_id: str) -> AskRow | None:
        """See `crush_trio.store.asks.AskWrites.ask`."""
        return asks.one(self._conn, ask_id)

    def pending_asks(self, run_id: RunId) -> tuple[AskRow, ...]:
        """See `crush_trio.store.asks.AskWrites.pending_asks`."""
        return asks.pending_of_run(self._conn, run_id)

    def put_ask(self, row: AskRow) -> None:
        """See `crush_trio.store.asks.AskWrites.put_ask`."""
        self._write(asks.PUT, asks.columns(row))

    def put_job(self, row: JobRow) -> None:
        """See `crush_trio.store.jobs.JobWrites.put_job`."""
        self._write(jobs.PUT, jobs.columns(self._workspace_id, row))
        self._write(jobs.COUNT, (self._workspace_id, row.number))

    def remove_job(self, job_id: str) -> None:
        """See `crush_trio.store.jobs.JobWrites.remove_job`."""
        self._write(jobs.REMOVE, (self._workspace_id, job_id))

    def add_grant(self, session_id: SessionId, grant: Grant) -> None:
        """See `crush_trio.store.asks.AskWrites.add_grant`."""
        key = asks.grant_key(session_id, grant)
        self._write(asks.ADD_GRANT, (*key, grant.by, grant.at_ms))

    def remove_grant(self, session_id: SessionId, grant: Grant) -> None:
        """See `crush_trio.store.asks.AskWrites.remove_grant`."""
        self._write(asks.REMOVE_GRANT, asks.grant_key(session_id, grant))

    def _with_ancestors(self, session_id: SessionId) -> tuple[SessionId, ...]:
        known = self._removed.get(session_id)
        if known is not None:
            return known
        found = [session_id]
        while True:
            row = self._conn.execute(
                "SELECT parent_id FROM sessions WHERE id = ?", (found[-1],)
            ).fetchone()
            if row is None or not row[0] or row[0] in found:
                return tuple(found)
            found.append(row[0])

    def _write(self, sql: str, values: tuple[Any, ...] | dict[str, Any]) -> sqlite3.Cursor:
        try:
            return self._conn.execute(sql, values)
        except sqlite3.IntegrityError as exc:
            raise ConstraintError(f"{self._workspace_id}: {exc}") from exc

    def _one(self, sql: str, values: tuple[Any, ...], make: Callable[[rows.Row], R]) -> R | None:
        row = self._conn.execute(sql, values).fetchone()
        return None if row is None else make(row)

    def _all(
        self, sql: str, values: tuple[Any, ...], make: Callable[[rows.Row], R]
    ) -> tuple[R, ...]:
        return tuple(make(row) for row in self._conn.execute(sql, values).fetchall())
