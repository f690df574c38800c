"""Background jobs as rows: the SQL of both halves of the store."""

from __future__ import annotations

import sqlite3
from typing import Any

from crush_trio.protocol.codec import decode, encode
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.jobs import JobRecord
from crush_trio.protocol.runs import LeftProcess
from crush_trio.store.jobs import JobRow
from crush_trio.store.sqlite.rows import Row

_JOB = "record, number, listed, processes"
PUT = (
    "INSERT INTO jobs (workspace_id, number, id, session_id, state, listed, record, processes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, number) DO UPDATE SET"
    " state = excluded.state, listed = excluded.listed, record = excluded.record,"
    " processes = excluded.processes"
)
COUNT = (
    "INSERT INTO job_counters (workspace_id, last) VALUES (?, ?) ON CONFLICT (workspace_id)"
    " DO UPDATE SET last = max(last, excluded.last)"
)
REMOVE = "DELETE FROM jobs WHERE workspace_id = ? AND id = ?"


def columns(workspace_id: WorkspaceId, row: JobRow) -> tuple[Any, ...]:
    """The values of `PUT`."""
    return (
        workspace_id,
        row.number,
        row.record.job_id,
        row.record.session_id,
        row.record.state.value,
        int(row.listed),
        encode(row.record),
        encode(row.processes),
    )


def listed(
    conn: sqlite3.Connection, workspace_id: WorkspaceId, session_id: SessionId | None
) -> tuple[JobRow, ...]:
    """The listed jobs, oldest first."""
    found = conn.execute(
        f"SELECT {_JOB} FROM jobs WHERE workspace_id = ? AND listed"
        " AND (? IS NULL OR session_id = ?) ORDER BY number",
        (workspace_id, session_id, session_id),
    )
    return tuple(_job_of(row) for row in found.fetchall())


def running(conn: sqlite3.Connection) -> tuple[JobRow, ...]:
    """Every job that has not ended."""
    found = conn.execute(
        f"SELECT {_JOB} FROM jobs WHERE state = 'running' ORDER BY workspace_id, number"
    )
    return tuple(_job_of(row) for row in found.fetchall())


def last_number(conn: sqlite3.Connection, workspace_id: WorkspaceId) -> int:
    """The highest number ever given in a workspace."""
    row = conn.execute(
        "SELECT last FROM job_counters WHERE workspace_id = ?", (workspace_id,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def _job_of(row: Row) -> JobRow:
    return JobRow(
        record=decode(row[0], JobRecord),
        number=row[1],
        listed=bool(row[2]),
        processes=decode(row[3], tuple[LeftProcess, ...]),
    )
