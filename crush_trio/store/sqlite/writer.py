"""The one thread that writes: takes all commits that wait, makes them durable, tells Trio."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.store.contract import Publish
from crush_trio.store.sqlite import epoch, errors
from crush_trio.store.sqlite.group import Done, GroupCommitter
from crush_trio.store.sqlite.retention import Retention, remove_old_events
from crush_trio.store.ticket import PendingCommit

log = logging.getLogger(__name__)


class Writer:
    """Owns the writing connection from `start` until ``closed`` is set.

    The thread is no daemon: the process does not end under a commit. All methods are called in
    the Trio thread. Commits are taken in the order in which they were queued, and each wait is
    for the disk alone: what has come while one group was written is the next group.
    """

    def __init__(
        self,
        conn: sqlite3.Connection,
        path: Path,
        marks: epoch.Marks,
        *,
        durability: str,
        publish: Publish,
        now_ms: Callable[[], int],
    ) -> None:
        self._conn = conn
        self._path = path
        self._marks = marks
        self._publish = publish
        self._now_ms = now_ms
        self._groups = GroupCommitter(conn, path, durability, now_ms)
        self._retention = Retention()
        self._queue: queue.SimpleQueue[PendingCommit[Any] | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._main, name="crush-trio store")
        self._stopping = False
        self.waiting = 0
        """Commits queued and not yet known; changed in the Trio thread alone."""
        self.failed = trio.Event()
        """Set when nothing can be written any more; ``failure`` says why."""
        self.failure: StoreError | None = None
        self.closed = trio.Event()
        """Set when everything queued is done and the connection is closed."""

    def start(self) -> None:
        """Begin; to be called once."""
        self._thread.start()

    def put(self, commit: PendingCommit[Any]) -> None:
        """Queue a commit. Raises `StoreError` instead if it cannot be taken."""
        self.check_room()
        self.waiting += 1
        self._queue.put(commit)

    def check_room(self) -> None:
        """Raises `StoreError` if a commit could not be taken now."""
        if self.failure is not None:
            raise self.failure
        if self._stopping:
            raise StoreError("store_failed", f"{self._path} is closed: the server is stopping")
        if self.waiting >= limits.WRITER_QUEUE_MAX:
            raise StoreError(
                "overloaded", f"{self.waiting} changes wait for the disk; try again in a moment"
            )

    def stop(self) -> None:
        """Take no more; ``closed`` follows when all that was queued is done."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread's last instructions; only after ``closed``."""
        self._thread.join()

    # --- in the writer's thread ---------------------------------------------------------------

    def _main(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._handle(group)
        finally:
            self._close()
            with suppress(trio.RunFinishedError):  # nobody is left to be told
                self._token.run_sync_soon(self.closed.set)

    def _next_group(self) -> list[PendingCommit[Any]] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < limits.GROUP_COMMIT_MAX:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:  # always the last one: after this group comes the end
                self._queue.put(None)
                break
            group.append(item)
        return group

    def _handle(self, group: list[PendingCommit[Any]]) -> None:
        fatal = self._groups.fatal
        if fatal is not None:
            self._tell([Done(commit, error=fatal) for commit in group])
            return
        try:
            done = self._groups.apply(group)
        except Exception as exc:  # a bug of ours must not leave callers waiting for ever
            log.exception("the writer failed")
            error = StoreError("store_failed", f"writing {self._path} failed: {exc!r}")
            self._groups.fatal = error
            done = [Done(commit, error=error) for commit in group]
        self._tell(done)
        if self._groups.fatal is None:
            self._remove_old(done)

    def _tell(self, done: list[Done]) -> None:
        with suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(self._settle, done, self._groups.fatal)

    def _remove_old(self, done: list[Done]) -> None:
        for item in done:
            if item.events:
                self._retention.count(item.commit.workspace_id, len(item.events))
        due = self._retention.take_due()
        if due is None:
            return
        try:
            remove_old_events(self._conn, due, self._now_ms())
        except sqlite3.Error as exc:
            error = errors.store_error(exc, self._path)
            log.warning("old events stay: %s", error.message)
            if errors.is_fatal(exc, self._path):
                self._groups.fatal = StoreError("store_failed", error.message)
                self._tell([])

    def _close(self) -> None:
        try:
            if self._groups.fatal is None:
                self._conn.execute(f"PRAGMA busy_timeout = {int(limits.CLOSING_BUSY_S * 1000)}")
                epoch.end(self._conn, self._marks)
                self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            # Nothing is lost: the next start finds everything in the write-ahead log.
            log.warning("closing: %s", errors.store_error(exc, self._path).message)
        finally:
            self._conn.close()

    # --- in the Trio thread again -------------------------------------------------------------

    def _settle(self, done: list[Done], fatal: StoreError | None) -> None:
        """Show a group's events, then answer its callers."""
        self.waiting -= len(done)
        for item in done:
            if item.events:
                self._publish(item.commit.workspace_id, item.events)
        if fatal is not None and self.failure is None:
            log.error("the store has failed: %s", fatal.message)
            self.failure = fatal
            self.failed.set()
        for item in done:
            if item.result is not None:
                item.commit.resolve(item.result)
            else:
                assert item.error is not None  # one of both is set
                item.commit.fail(item.error)
