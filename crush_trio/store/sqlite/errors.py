"""What SQLite's error codes mean for us."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from crush_trio import limits
from crush_trio.protocol.errors import StoreError

_FATAL = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_INTERNAL,
    }
)


def primary_code(exc: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for errors of the Python module itself."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def is_storage_error(exc: Exception) -> bool:
    """Whether the storage failed, rather than the statement being wrong."""
    if not isinstance(exc, sqlite3.Error):
        return False
    code = primary_code(exc)
    return code in _FATAL or code in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_fatal(exc: sqlite3.Error, path: Path) -> bool:
    """Whether nothing may be written any more: a failed sync must never be retried."""
    return primary_code(exc) in _FATAL and not _is_full(exc, path)


def store_error(exc: sqlite3.Error, path: Path) -> StoreError:
    """The error a caller sees, with the file's name and what to do."""
    code = primary_code(exc)
    if _is_full(exc, path):
        return StoreError(
            "disk_full", f"the disk that holds {path} is full; free some space and try again"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            "store_failed",
            f"{path} is locked by another program; close what has it open and try again",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            "store_corrupt",
            f"{path} is damaged ({exc}); it was left as it is: restore a copy in its place, "
            "or start with another --data-dir",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(
            "store_unwritable",
            f"{path} cannot be written ({exc}); check its permissions and its directory's",
        )
    return StoreError("store_failed", f"writing {path} failed: {exc}")


def _is_full(exc: sqlite3.Error, path: Path) -> bool:
    if primary_code(exc) == sqlite3.SQLITE_FULL:
        return True
    # The index of the write-ahead log is grown by its own path in SQLite, which reports a full
    # disk as an I/O error of that step. Any other I/O error stays one, however full the disk is.
    extended = getattr(exc, "sqlite_errorcode", 0)
    if extended not in (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP):
        return False
    try:
        info = os.statvfs(path.parent)
    except OSError:
        return False
    return info.f_bavail * info.f_frsize < limits.NO_SPACE_BYTES
