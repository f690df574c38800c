"""How our objects lie in rows: shared by the writing and the reading half."""

from __future__ import annotations

import sqlite3
from typing import Any

import attrs
import orjson

from crush_trio.protocol.codec import decode, encode
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import LeftProcess, Receipt, RunRecord
from crush_trio.protocol.sessions import FileVersion, Session
from crush_trio.store.contract import RunRow, StoredEvent, StoredMessage

Row = tuple[Any, ...]

SESSION = "s.data, s.message_count"
MESSAGE = "m.data"
PLACED_MESSAGE = "m.data, m.accept_seq, m.ordinal"
RUN = "r.record, q.data, r.digest, r.receipt, r.principal, r.processes, r.turn"
RUN_FROM = "runs r JOIN run_requests q ON q.run_id = r.id"
FILE = "id, session_id, path, content, version, created_at, updated_at"
EVENT = "seq, ts_ms, kind, session_ids, run_id, data"


def session_of(row: Row) -> Session:
    """A row of `SESSION`."""
    return attrs.evolve(decode(row[0], Session), message_count=row[1])


def message_of(row: Row) -> Message:
    """A row of `MESSAGE`."""
    return decode(row[0], Message)


def placed_message_of(row: Row) -> StoredMessage:
    """A row of `PLACED_MESSAGE`."""
    return StoredMessage(decode(row[0], Message), row[1], row[2])


def record_of(row: Row) -> RunRecord:
    """A row that begins with a run's record."""
    return decode(row[0], RunRecord)


def run_of(row: Row) -> RunRow:
    """A row of `RUN`."""
    return RunRow(
        record=decode(row[0], RunRecord),
        request=decode(row[1], PromptRequest),
        digest=row[2],
        receipt=decode(row[3], Receipt),
        principal=row[4],
        processes=decode(row[5], tuple[LeftProcess, ...]),
        turn=row[6],
    )


def run_columns(row: RunRow) -> dict[str, Any]:
    """The columns of ``runs`` that may change, and those that only an insert sets."""
    record = row.record
    return {
        "id": record.id,
        "workspace_id": record.workspace_id,
        "session_id": record.session_id,
        "accept_seq": record.accept_seq,
        "state": record.state.value,
        "digest": row.digest,
        "principal": row.principal,
        "record": encode(record),
        "receipt": encode(row.receipt),
        "processes": encode(row.processes),
        "turn": row.turn,
    }


def file_of(row: Row) -> FileVersion:
    """A row of `FILE`."""
    return FileVersion(
        id=row[0],
        session_id=row[1],
        path=row[2],
        content=row[3],
        version=row[4],
        created_at=row[5],
        updated_at=row[6],
    )


def event_of(row: Row) -> StoredEvent:
    """A row of `EVENT`."""
    ids = row[3]
    return StoredEvent(
        seq=row[0],
        ts_ms=row[1],
        kind=row[2],
        session_ids=() if ids == "[]" else tuple(SessionId(item) for item in orjson.loads(ids)),
        run_id=None if row[4] is None else RunId(row[4]),
        data=row[5],
    )


def session_ids_text(session_ids: tuple[SessionId, ...]) -> str:
    """The column ``session_ids``."""
    return orjson.dumps(session_ids).decode() if session_ids else "[]"


def counters_of(conn: sqlite3.Connection, workspace_id: WorkspaceId) -> tuple[int, int, int]:
    """(last_seq, oldest, last_accept) of a workspace; (0, 1, 0) if it never had an event."""
    row = conn.execute(
        "SELECT last_seq, oldest, last_accept FROM counters WHERE workspace_id = ?",
        (workspace_id,),
    ).fetchone()
    return (0, 1, 0) if row is None else row
