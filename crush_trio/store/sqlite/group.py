"""One group of commits as one transaction, each commit in a savepoint of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Committed, StoredEvent
from crush_trio.store.sqlite import errors, rows
from crush_trio.store.sqlite.transaction import Counters, SqliteTransaction
from crush_trio.store.ticket import PendingCommit


@attrs.define
class Done:
    """What became of one commit: a result with its events, or the error of its caller."""

    commit: PendingCommit[Any]
    result: Committed[Any] | None = None
    events: Sequence[StoredEvent] = ()
    error: Exception | None = None


class GroupCommitter:
    """Applies groups to the writing connection and keeps what workspaces have handed out.

    A commit whose function raises undoes only itself. When the storage fails in the middle, SQLite
    takes back the whole transaction, so all of its group have failed: nobody's function is called
    twice. After a fatal error (``fatal`` is set) it must not be used again: what a failed sync
    left in the cache of the operating system is unknown, so it is never retried.
    """

    def __init__(
        self, conn: sqlite3.Connection, path: Path, durability: str, now_ms: Callable[[], int]
    ) -> None:
        self._conn = conn
        self._path = path
        self._now_ms = now_ms
        self._strict = durability == "full"
        self._synced = self._strict
        self._counters: dict[WorkspaceId, Counters] = {}
        self.fatal: StoreError | None = None

    def apply(self, group: Sequence[PendingCommit[Any]]) -> list[Done]:
        """Apply all commits of the group durably, in order; each result tells its own fate."""
        try:
            self._sync(not all(commit.relaxed for commit in group))
            self._conn.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            return self._all_failed(group, exc)
        fresh: dict[WorkspaceId, Counters] = {}
        try:
            done = [self._apply_one(commit, fresh) for commit in group]
            self._store_counters(fresh)
            self._conn.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            return self._all_failed(group, exc)
        self._counters.update(fresh)
        return done

    def _apply_one(self, commit: PendingCommit[Any], fresh: dict[WorkspaceId, Counters]) -> Done:
        workspace_id = commit.workspace_id
        before = fresh.get(workspace_id) or self._known(workspace_id)
        self._conn.execute("SAVEPOINT one")
        transaction = SqliteTransaction(self._conn, workspace_id, before, self._now_ms())
        try:
            value = commit.commit(transaction)
        except Exception as exc:  # whatever the commit's function raises is its caller's
            if not self._conn.in_transaction:
                raise self._lost_transaction(exc) from exc
            self._conn.execute("ROLLBACK TO one")
            self._conn.execute("RELEASE one")
            return Done(commit, error=self._own_error(exc))
        self._conn.execute("RELEASE one")
        after = transaction.counters
        if after != before:
            fresh[workspace_id] = after
        result = Committed(value, before.last_seq + 1, after.last_seq)
        return Done(commit, result, transaction.events)

    def _own_error(self, exc: Exception) -> Exception:
        """What one commit's caller is told; a fatal error ends the whole group instead."""
        if not errors.is_storage_error(exc):
            return exc
        assert isinstance(exc, sqlite3.Error)
        if errors.is_fatal(exc, self._path):
            raise exc
        return errors.store_error(exc, self._path)

    def _lost_transaction(self, exc: Exception) -> sqlite3.Error:
        """SQLite rolled everything back by itself, which it does after some storage errors."""
        if isinstance(exc, sqlite3.Error):
            return exc
        return sqlite3.OperationalError(f"a commit ended the transaction it was in: {exc!r}")

    def _all_failed(self, group: Sequence[PendingCommit[Any]], exc: sqlite3.Error) -> list[Done]:
        error = errors.store_error(exc, self._path)
        if errors.is_fatal(exc, self._path):
            self.fatal = StoreError("store_failed", error.message)
        elif error.code not in ("disk_full", "store_failed"):
            error = StoreError("store_failed", error.message)
        return [Done(commit, error=self.fatal or error) for commit in group]

    def _roll_back(self) -> None:
        if not self._conn.in_transaction:
            return
        try:
            self._conn.execute("ROLLBACK")
        except sqlite3.Error as exc:
            self.fatal = errors.store_error(exc, self._path)

    def _sync(self, strictly: bool) -> None:
        # A later synced commit also syncs what relaxed ones before it wrote to the log.
        wanted = self._strict and strictly
        if wanted != self._synced:
            self._conn.execute(f"PRAGMA synchronous = {2 if wanted else 1}")
            if self._conn.execute("PRAGMA synchronous").fetchone()[0] != (2 if wanted else 1):
                raise sqlite3.OperationalError("SQLite refused the setting synchronous")
            self._synced = wanted

    def _known(self, workspace_id: WorkspaceId) -> Counters:
        known = self._counters.get(workspace_id)
        if known is None:
            last_seq, _, last_accept = rows.counters_of(self._conn, workspace_id)
            known = self._counters[workspace_id] = Counters(last_seq, last_accept)
        return known

    def _store_counters(self, fresh: dict[WorkspaceId, Counters]) -> None:
        self._conn.executemany(
            "INSERT INTO counters (workspace_id, last_seq, last_accept) VALUES (?, ?, ?)"
            " ON CONFLICT (workspace_id) DO UPDATE SET last_seq = excluded.last_seq,"
            " last_accept = excluded.last_accept",
            [(key, item.last_seq, item.last_accept) for key, item in fresh.items()],
        )
