"""Connections with every setting checked: one that writes, some that only read."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

from crush_trio import limits
from crush_trio.protocol.errors import StoreError

SYNCHRONOUS = {"full": 2, "normal": 1}


def connect_writer(path: Path, durability: str) -> sqlite3.Connection:
    """The one connection that writes; the file is created 0600 if there is none.

    Raises:
        sqlite3.Error: Not a database, or it cannot be written.
        StoreError: A setting was refused, which happens on file systems without shared memory.
    """
    _create(path)
    conn = _connect(path, "rw")
    try:
        _set(conn, path, "journal_mode", "WAL", "wal")
        _set(conn, path, "synchronous", SYNCHRONOUS[durability], SYNCHRONOUS[durability])
        _set(conn, path, "foreign_keys", 1, 1)
        _set(conn, path, "journal_size_limit", limits.WAL_KEEP_BYTES, limits.WAL_KEEP_BYTES)
        if sys.platform == "darwin" and durability == "full":
            # There a plain fsync leaves the data in the drive's cache.
            _set(conn, path, "fullfsync", 1, 1)
            _set(conn, path, "checkpoint_fullfsync", 1, 1)
    except BaseException:
        conn.close()
        raise
    return conn


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, to be used by one thread at a time."""
    conn = _connect(path, "ro")
    try:
        _set(conn, path, "query_only", 1, 1)
    except BaseException:
        conn.close()
        raise
    return conn


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=limits.BUSY_TIMEOUT_S,
        isolation_level=None,  # transactions are begun and ended by us alone
        check_same_thread=False,  # handed from thread to thread, never used by two at once
        cached_statements=256,
    )
    try:
        wanted = int(limits.BUSY_TIMEOUT_S * 1000)
        _set(conn, path, "busy_timeout", wanted, wanted)
        _set(conn, path, "trusted_schema", 0, 0)
        # A process that is killed between making and unlinking a temporary file would leave it.
        _set(conn, path, "temp_store", 2, 2)
    except BaseException:
        conn.close()
        raise
    return conn


def _set(
    conn: sqlite3.Connection, path: Path, name: str, value: str | int, result: str | int
) -> None:
    conn.execute(f"PRAGMA {name} = {value}").fetchall()
    row = conn.execute(f"PRAGMA {name}").fetchone()
    if row is None or row[0] != result:
        found = None if row is None else row[0]
        raise StoreError(
            "store_unwritable",
            f"{path}: SQLite setting {name} is {found!r} instead of {result!r}; "
            "use a --data-dir on a local disk",
        )


def _create(path: Path) -> None:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(fd)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the file's name must survive a power cut as its content does
    finally:
        os.close(directory)
