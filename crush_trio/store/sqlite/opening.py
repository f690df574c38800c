"""Opening a data directory: make it, lock it, migrate it, decide on the epoch."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

import attrs

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.store.sqlite import epoch, errors
from crush_trio.store.sqlite.connect import connect_writer
from crush_trio.store.sqlite.lock import LOCK_NAME, DirectoryLock
from crush_trio.store.sqlite.migrate import migrate

DATABASE_NAME = "crush.db"


@attrs.frozen
class Opened:
    """A locked data directory and its database, ready for the writer."""

    path: Path
    lock: DirectoryLock
    conn: sqlite3.Connection
    marks: epoch.Marks


def open_directory(data_dir: Path, *, durability: str, migrations: Sequence[str]) -> Opened:
    """Open the database of a data directory; everything that may block happens here.

    Raises:
        StoreError: In use, damaged, newer than this program, not writable, or full. What was
            there was not changed.
    """
    _make_private(data_dir)
    lock = DirectoryLock.take(data_dir)
    path = data_dir / DATABASE_NAME
    try:
        conn = _open_database(path, durability)
        try:
            migrate(conn, path, migrations)
            _check_after_a_crash(conn, path)
            noted = None if lock.previous is None else lock.previous.opens
            marks = epoch.begin(conn, noted)
            lock.note(opens=marks.opens)
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as exc:
        lock.release()
        raise errors.store_error(exc, path) from exc
    except OSError as exc:
        lock.release()
        raise StoreError("store_unwritable", f"{path} cannot be opened: {exc.strerror}") from exc
    except BaseException:
        lock.release()
        raise
    return Opened(path, lock, conn, marks)


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.stat()
        entries = os.listdir(directory)
    except OSError as exc:
        raise StoreError(
            "store_unwritable",
            f"the data directory {directory} cannot be made or read: {exc.strerror}; "
            "choose another with --data-dir",
        ) from exc
    loose = stat.S_IMODE(info.st_mode) & 0o077
    # A directory that also holds other things keeps its mode; our files in it are 0600 anyway.
    if loose and info.st_uid == os.geteuid() and (not entries or LOCK_NAME in entries):
        directory.chmod(0o700)


def _open_database(path: Path, durability: str) -> sqlite3.Connection:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreError("store_corrupt", f"{path} is not a plain file; move it away")
    return connect_writer(path, durability)


def _check_after_a_crash(conn: sqlite3.Connection, path: Path) -> None:
    """Look for damage where it may be: after an end without a close. Large files take too long."""
    if epoch.read_marks(conn).clean or path.stat().st_size > limits.QUICK_CHECK_BYTES:
        return
    found = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise sqlite3.DatabaseError(found)
