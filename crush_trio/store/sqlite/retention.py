"""Removing old events, a bounded number at a time."""

from __future__ import annotations

import sqlite3

import attrs

from crush_trio import limits
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store import rules
from crush_trio.store.sqlite import rows


@attrs.define
class Retention:
    """Says when the writer looks for old events of a workspace: at its first event, then often
    enough that more go than come."""

    _since: dict[WorkspaceId, int] = attrs.field(factory=dict, init=False)

    def count(self, workspace_id: WorkspaceId, emitted: int) -> None:
        """Note events of a commit."""
        self._since[workspace_id] = self._since.get(workspace_id, limits.RETENTION_EVERY) + emitted

    def take_due(self) -> WorkspaceId | None:
        """A workspace to look at now; its count begins anew."""
        for workspace_id, emitted in self._since.items():
            if emitted >= limits.RETENTION_EVERY:
                self._since[workspace_id] = 0
                return workspace_id
        return None


def remove_old_events(conn: sqlite3.Connection, workspace_id: WorkspaceId, now_ms: int) -> int:
    """Remove at most `limits.RETENTION_BATCH` of a workspace's oldest events; returns how many.

    An open run's events and all after them are kept (G8).
    """
    last_seq, oldest, _ = rows.counters_of(conn, workspace_id)
    open_from = conn.execute(
        "SELECT min(born_seq) FROM runs WHERE workspace_id = ? AND state <> 'finished'",
        (workspace_id,),
    ).fetchone()[0]
    upto = 0
    for batch in (1, limits.RETENTION_BATCH):  # mostly the oldest event alone says no
        candidates = conn.execute(
            "SELECT seq, ts_ms FROM events WHERE workspace_id = ? AND seq >= ?"
            " ORDER BY seq LIMIT ?",
            (workspace_id, oldest, batch),
        ).fetchall()
        upto = rules.expired_upto(candidates, last_seq=last_seq, now_ms=now_ms, open_from=open_from)
        if not upto:
            return 0
    conn.execute("BEGIN IMMEDIATE")
    try:
        done = conn.execute(
            "DELETE FROM events WHERE workspace_id = ? AND seq <= ?", (workspace_id, upto)
        )
        conn.execute(
            "UPDATE counters SET oldest = ? WHERE workspace_id = ?", (upto + 1, workspace_id)
        )
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return done.rowcount
