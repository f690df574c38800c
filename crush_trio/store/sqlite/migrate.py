"""The schema's version, and the steps from an older one, each after a copy of the file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from crush_trio.protocol.errors import StoreError

APPLICATION_ID = 0x43525452  # "CRTR": tells our files from other programs' databases


def shipped_migrations() -> tuple[str, ...]:
    """The SQL of every step, the first one creating the tables; step n leads to version n."""
    files = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


def migrate(conn: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> int:
    """Bring the open database at ``path`` to the newest version; returns the version found.

    A database that is not new is first copied to ``<name>.before-v<newest>`` beside it.

    Raises:
        StoreError: Another program's database, or one written by a newer crush-trio. It was not
            changed.
    """
    found = int(conn.execute("PRAGMA user_version").fetchone()[0])
    _refuse_strangers(conn, path, found)
    newest = len(migrations)
    if found > newest:
        raise StoreError(
            "store_newer",
            f"{path} was written by a newer crush-trio (schema {found}, this one knows "
            f"{newest}); upgrade crush-trio, or choose another --data-dir",
        )
    if 0 < found < newest:
        _copy(conn, path.with_name(f"{path.name}.before-v{newest}"))
    for version in range(found + 1, newest + 1):
        _step(conn, version, migrations[version - 1])
    return found


def _refuse_strangers(conn: sqlite3.Connection, path: Path, version: int) -> None:
    application = int(conn.execute("PRAGMA application_id").fetchone()[0])
    if application == APPLICATION_ID:
        return
    tables = int(conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application or tables or version:
        raise StoreError(
            "store_corrupt",
            f"{path} is not a database of crush-trio; it was left as it is: move it away, "
            "or choose another --data-dir",
        )


def _step(conn: sqlite3.Connection, version: int, sql: str) -> None:
    # One transaction: a process killed in the middle leaves the old version whole.
    try:
        conn.executescript(
            f"BEGIN IMMEDIATE;\n{sql}\n;PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {version};COMMIT;"
        )
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _copy(conn: sqlite3.Connection, target: Path) -> None:
    # Written under another name first: a copy that a kill cut short is never taken for one.
    unfinished = target.with_name(target.name + ".part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    copy = sqlite3.connect(unfinished)
    try:
        conn.backup(copy)
    finally:
        copy.close()
    os.replace(unfinished, target)
