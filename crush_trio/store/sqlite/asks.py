"""Requests to a person and grants, as rows: the SQL of both halves of the store."""

from __future__ import annotations

import sqlite3
from typing import Any

from crush_trio.protocol.codec import decode, encode
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.store.asks import REQUEST_CLASS, AskRow, Grant
from crush_trio.store.sqlite.rows import Row

_ASK = (
    "id, kind, workspace_id, session_id, run_id, data, created_at_ms, ending, decided_by,"
    " decided_at_ms, deadline_s"
)
PUT = (
    f"INSERT INTO asks ({_ASK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
    " SET data = excluded.data, ending = excluded.ending, decided_by = excluded.decided_by,"
    " decided_at_ms = excluded.decided_at_ms"
)
ADD_GRANT = (
    "INSERT OR IGNORE INTO grants (session_id, tool_name, action, path, scope, granted_by,"
    " granted_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
REMOVE_GRANT = (
    "DELETE FROM grants WHERE session_id = ? AND tool_name = ? AND action = ? AND path = ?"
    " AND scope = ?"
)


def columns(row: AskRow) -> tuple[Any, ...]:
    """The values of `PUT`."""
    return (
        row.id,
        row.kind,
        row.workspace_id,
        row.session_id,
        row.run_id,
        encode(row.request),
        row.created_at_ms,
        row.ending,
        row.decided_by,
        row.decided_at_ms,
        row.deadline_s,
    )


def grant_key(session_id: SessionId, grant: Grant) -> tuple[Any, ...]:
    """The values of `REMOVE_GRANT`, and the first ones of `ADD_GRANT`."""
    return (session_id, grant.tool_name, grant.action, grant.path, grant.scope)


def one(conn: sqlite3.Connection, ask_id: str) -> AskRow | None:
    """One request."""
    row = conn.execute(f"SELECT {_ASK} FROM asks WHERE id = ?", (ask_id,)).fetchone()
    return None if row is None else _ask_of(row)


def pending_of_run(conn: sqlite3.Connection, run_id: RunId) -> tuple[AskRow, ...]:
    """The requests of a run that wait, oldest first."""
    found = conn.execute(
        f"SELECT {_ASK} FROM asks WHERE ending IS NULL AND run_id = ?"
        " AND workspace_id = (SELECT workspace_id FROM runs WHERE id = ?) ORDER BY n",
        (run_id, run_id),
    )
    return tuple(_ask_of(row) for row in found.fetchall())


def pending(conn: sqlite3.Connection, workspace_id: WorkspaceId | None) -> tuple[AskRow, ...]:
    """The requests that wait, oldest first."""
    found = conn.execute(
        f"SELECT {_ASK} FROM asks WHERE ending IS NULL AND (? IS NULL OR workspace_id = ?)"
        " ORDER BY n",
        (workspace_id, workspace_id),
    )
    return tuple(_ask_of(row) for row in found.fetchall())


def grants(conn: sqlite3.Connection, session_id: SessionId) -> frozenset[Grant]:
    """What a session may do without asking."""
    found = conn.execute(
        "SELECT tool_name, action, path, scope, granted_by, granted_at_ms FROM grants"
        " WHERE session_id = ?",
        (session_id,),
    )
    return frozenset(Grant(*row) for row in found.fetchall())


def _ask_of(row: Row) -> AskRow:
    return AskRow(
        id=row[0],
        kind=row[1],
        workspace_id=row[2],
        session_id=row[3],
        run_id=row[4],
        request=decode(row[5], REQUEST_CLASS[row[1]]),
        created_at_ms=row[6],
        ending=row[7],
        decided_by=row[8],
        decided_at_ms=row[9],
        deadline_s=row[10],
    )
