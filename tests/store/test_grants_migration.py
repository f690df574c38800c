"""What becomes of grants that were given when they covered more (T24)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from crush_trio.store.sqlite import migrate

MIGRATIONS = sorted((Path(migrate.__file__).parent / "migrations").glob("*.sql"))


def test_older_grants_of_files_are_kept_and_those_of_commands_are_not() -> None:
    at = next(i for i, file in enumerate(MIGRATIONS) if file.stem == "0005_grants")
    conn = sqlite3.connect(":memory:")
    for file in MIGRATIONS[:at]:
        conn.executescript(file.read_text("utf-8"))
    conn.execute("PRAGMA foreign_keys = OFF")  # only the two tables count here
    old = [("s", "bash", "execute", "/w"), ("s", "edit", "write", "/w"), ("s", "mcp", "x", "/w")]
    conn.executemany("INSERT INTO grants VALUES (?, ?, ?, ?)", old)
    conn.execute(
        "INSERT INTO asks VALUES (1, 'a', 'permission', 'w', 's', 'r', 0, NULL, '', NULL, '')"
    )
    conn.executescript(MIGRATIONS[at].read_text("utf-8"))
    assert conn.execute("SELECT * FROM grants").fetchall() == [
        ("s", "edit", "write", "/w", "", "", 0)
    ]
    assert conn.execute("SELECT deadline_s FROM asks").fetchall() == [(600,)]
    conn.close()
