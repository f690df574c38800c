"""Every read of the store, as a plain function on a reading connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from crush_trio import limits
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import RunRecord
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store.contract import (
    EventPage,
    RunRow,
    Selection,
    SnapshotRows,
    StoredEvent,
    WorkspaceRow,
)
from crush_trio.store.jobs import running
from crush_trio.store.sqlite import asks, jobs, rows

_FAMILY = (
    "WITH RECURSIVE family (id) AS (VALUES (?) UNION SELECT c.id FROM sessions c"
    " JOIN family f ON c.parent_id = f.id WHERE c.parent_id <> '') SELECT id FROM family"
)
_NEWEST_PLACE_FIRST = "ORDER BY m.accept_seq DESC, m.ordinal DESC, m.n DESC"


@contextmanager
def one_view(conn: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one moment."""
    conn.execute("BEGIN")
    try:
        yield
    finally:
        conn.execute("ROLLBACK")


def workspaces(conn: sqlite3.Connection) -> tuple[WorkspaceRow, ...]:
    """All known workspaces."""
    found = conn.execute(
        "SELECT w.id, w.path, w.created_at_ms, coalesce(c.last_accept, 0) FROM workspaces w"
        " LEFT JOIN counters c ON c.workspace_id = w.id ORDER BY w.rowid"
    )
    return tuple(WorkspaceRow(*row) for row in found)


def sessions(conn: sqlite3.Connection, workspace_id: WorkspaceId) -> tuple[Session, ...]:
    """Top-level sessions, newest first."""
    found = conn.execute(
        f"SELECT {rows.SESSION} FROM sessions s WHERE s.workspace_id = ? AND s.parent_id = ''"
        " ORDER BY s.updated_at DESC, s.n DESC",
        (workspace_id,),
    )
    return tuple(rows.session_of(row) for row in found)


def session(conn: sqlite3.Connection, session_id: SessionId) -> tuple[WorkspaceId, Session] | None:
    """One session and its workspace."""
    row = conn.execute(
        f"SELECT {rows.SESSION}, s.workspace_id FROM sessions s WHERE s.id = ?", (session_id,)
    ).fetchone()
    return None if row is None else (row[2], rows.session_of(row))


def messages(
    conn: sqlite3.Connection, session_id: SessionId, limit: int | None, before: MessageId | None
) -> tuple[Message, ...]:
    """The newest messages, in order; none if there is no message ``before``."""
    where = "m.session_id = ?"
    values: list[str] = [session_id]
    if before is not None:
        where += (
            " AND (m.accept_seq, m.ordinal, m.n) < (SELECT b.accept_seq, b.ordinal, b.n"
            " FROM messages b WHERE b.id = ? AND b.session_id = ?)"
        )
        values += [before, session_id]
    found = conn.execute(
        f"SELECT {rows.MESSAGE} FROM messages m WHERE {where} {_NEWEST_PLACE_FIRST} LIMIT ?",
        (*values, -1 if limit is None else limit),
    ).fetchall()
    return tuple(rows.message_of(row) for row in reversed(found))


def user_messages(
    conn: sqlite3.Connection, workspace_id: WorkspaceId, session_id: SessionId | None
) -> tuple[Message, ...]:
    """User messages, newest first."""
    values: tuple[Any, ...] = (workspace_id, session_id, session_id)
    found = conn.execute(
        f"SELECT {rows.MESSAGE} FROM sessions s JOIN messages m ON m.session_id = s.id"
        " WHERE s.workspace_id = ? AND m.role = 'user' AND (? IS NULL OR s.id = ?)"
        f" {_NEWEST_PLACE_FIRST}",
        values,
    )
    return tuple(rows.message_of(row) for row in found)


def run(conn: sqlite3.Connection, run_id: RunId) -> RunRow | None:
    """One run."""
    row = conn.execute(
        f"SELECT {rows.RUN} FROM {rows.RUN_FROM} WHERE r.id = ?", (run_id,)
    ).fetchone()
    return None if row is None else rows.run_of(row)


def runs(
    conn: sqlite3.Connection,
    workspace_id: WorkspaceId | None,
    session_id: SessionId | None,
    state: str | None,
    limit: int,
    before: RunId | None,
) -> tuple[RunRecord, ...]:
    """Records, newest first; none if there is no run ``before``."""
    where, values = ["1"], []
    for column, value in (
        ("workspace_id", workspace_id),
        ("session_id", session_id),
        ("state", state),
    ):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if before is not None:
        where.append("n < (SELECT b.n FROM runs b WHERE b.id = ?)")
        values.append(before)
    found = conn.execute(
        f"SELECT record FROM runs WHERE {' AND '.join(where)} ORDER BY n DESC LIMIT ?",
        (*values, limit),
    )
    return tuple(rows.record_of(row) for row in found)


def open_runs(conn: sqlite3.Connection) -> tuple[RunRow, ...]:
    """Runs that are not finished, by (workspace, accept sequence)."""
    found = conn.execute(
        f"SELECT {rows.RUN} FROM {rows.RUN_FROM} WHERE r.state <> 'finished'"
        " ORDER BY r.workspace_id, r.accept_seq, r.n"
    )
    return tuple(rows.run_of(row) for row in found)


def message(conn: sqlite3.Connection, message_id: MessageId) -> Message | None:
    """One message."""
    row = conn.execute(
        f"SELECT {rows.MESSAGE} FROM messages m WHERE m.id = ?", (message_id,)
    ).fetchone()
    return None if row is None else rows.message_of(row)


def file_version(conn: sqlite3.Connection, version_id: str) -> FileVersion | None:
    """One file version."""
    row = conn.execute(f"SELECT {rows.FILE} FROM files WHERE id = ?", (version_id,)).fetchone()
    return None if row is None else rows.file_of(row)


def file_versions(conn: sqlite3.Connection, session_id: SessionId) -> tuple[FileVersion, ...]:
    """File versions by (path, version)."""
    found = conn.execute(
        f"SELECT {rows.FILE} FROM files WHERE session_id = ? ORDER BY path, version", (session_id,)
    )
    return tuple(rows.file_of(row) for row in found)


def read_marks(conn: sqlite3.Connection, session_id: SessionId) -> dict[str, int]:
    """Path → unix ns of the last read, newest first."""
    found = conn.execute(
        "SELECT path, at_ns FROM reads WHERE session_id = ? ORDER BY at_ns DESC, path",
        (session_id,),
    )
    return dict(found.fetchall())


def last_seq(conn: sqlite3.Connection, workspace_id: WorkspaceId) -> int:
    """The newest event's sequence number."""
    return rows.counters_of(conn, workspace_id)[0]


def events(
    conn: sqlite3.Connection,
    workspace_id: WorkspaceId,
    after: int,
    upto: int,
    selection: Selection,
    limit: int,
) -> EventPage:
    """A page of events, bounded by number, by size and by how many are looked at."""
    with one_view(conn):
        newest, oldest, _ = rows.counters_of(conn, workspace_id)
        upto = min(upto, newest)
        after = max(after, oldest - 1)  # nothing is there; the caller sees it by ``oldest``
        last = min(upto, after + limits.EVENT_SCAN)
        where, values = _selected(selection)
        cursor = conn.execute(
            f"SELECT {rows.EVENT} FROM events WHERE workspace_id = ? AND seq > ? AND seq <= ?"
            f"{where} ORDER BY seq LIMIT ?",
            (workspace_id, after, last, *values, limit),
        )
        found: list[StoredEvent] = []
        size = 0
        for row in cursor:
            found.append(rows.event_of(row))
            size += len(found[-1].data)
            if len(found) == limit or size >= limits.EVENT_PAGE_BYTES:
                last = found[-1].seq
                break
        cursor.close()  # before the view ends, or it could not
    return EventPage(tuple(found), max(after, last), oldest)


def _selected(selection: Selection) -> tuple[str, list[Any]]:
    where, values = "", []
    if selection.kinds is not None:
        where += f" AND kind IN ({', '.join('?' * len(selection.kinds))})"
        values += sorted(selection.kinds)
    if selection.session_id is not None:
        # In JSON an id in quotes after a bracket or comma can only be a whole element: inside of
        # an id a quote has a backslash before it.
        where += (
            " AND (session_ids = '[]' OR instr(session_ids, '[' || ?) > 0"
            " OR instr(session_ids, ',' || ?) > 0)"
        )
        values += [orjson.dumps(selection.session_id).decode()] * 2
    return where, values


def snapshot(
    conn: sqlite3.Connection,
    workspace_id: WorkspaceId,
    session_id: SessionId | None,
    limit: int,
    before: MessageId | None,
) -> SnapshotRows:
    """Sessions, messages and open runs (sub-sessions' too) as of one event."""
    chosen = "s.workspace_id = ?"
    values: list[str] = [workspace_id]
    of_runs = "workspace_id = ? AND state <> 'finished'"
    if session_id is not None:
        chosen += " AND s.id = ?"
        of_runs += f" AND session_id IN ({_FAMILY})"
        values.append(session_id)
    with one_view(conn):
        found = conn.execute(
            f"SELECT {rows.SESSION} FROM sessions s WHERE {chosen}"
            " ORDER BY s.updated_at DESC, s.n DESC",
            values,
        ).fetchall()
        opened = conn.execute(
            f"SELECT record FROM runs WHERE {of_runs} ORDER BY accept_seq, n", values
        ).fetchall()
        kept = messages(conn, session_id, limit, before) if session_id and found else ()
        family = session_id and {row[0] for row in conn.execute(_FAMILY, (session_id,))}
        waiting = asks.pending(conn, workspace_id)
        begun = jobs.listed(conn, workspace_id, None)
        seq = last_seq(conn, workspace_id)
    return SnapshotRows(
        seq=seq,
        sessions=tuple(rows.session_of(row) for row in found),
        messages=kept,
        runs=tuple(rows.record_of(row) for row in opened),
        asks=tuple(row for row in waiting if not family or row.session_id in family),
        jobs=running(begun, family or None),
    )
