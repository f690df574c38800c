"""When a numbering of events is unbroken, and when a new one begins (contract 4)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import attrs

from crush_trio.protocol.ids import new_id


@attrs.frozen
class Marks:
    """What the database remembers of the last time it was open. Nothing for a new one."""

    epoch: str = ""
    boot: str = ""
    clean: bool = False
    opens: int = 0


def epoch_goes_on(marks: Marks, *, boot: str, noted_opens: int | None) -> bool:
    """Whether the numbering is the one clients know.

    Args:
        marks: As found in the database.
        boot: This boot of the machine; empty if it cannot be known.
        noted_opens: How often the directory was opened according to the lock file, which is not
            part of a restored database; ``None`` if there is no lock file. It is written right
            after the database, so a kill in between leaves it one behind; a restored copy is
            behind it, never ahead.
    """
    if not marks.epoch or noted_opens not in (marks.opens, marks.opens - 1):
        return False  # new, or another state of the file than the one opened last
    # After a power cut the last commits of durability "normal" may be gone, and their numbers
    # would be given again. A process that died alone loses nothing.
    return marks.clean or (bool(boot) and marks.boot == boot)


def read_marks(conn: sqlite3.Connection) -> Marks:
    """The marks of the last opening."""
    rows = dict(conn.execute("SELECT key, value FROM meta").fetchall())
    return Marks(
        epoch=rows.get("epoch", ""),
        boot=rows.get("boot", ""),
        clean=rows.get("clean") == "1",
        opens=int(rows.get("opens", "0")),
    )


def begin(conn: sqlite3.Connection, noted_opens: int | None) -> Marks:
    """Mark the database as open, in one transaction; returns the marks now in force."""
    boot = boot_id()
    found = read_marks(conn)
    goes_on = epoch_goes_on(found, boot=boot, noted_opens=noted_opens)
    # One more than the lock file says, so that any number of kills before it is written leave it
    # one behind and not further.
    opens = noted_opens + 1 if goes_on and noted_opens is not None else found.opens + 1
    epoch = found.epoch if goes_on else new_id()
    marks = Marks(epoch, boot, clean=False, opens=opens)
    _write(conn, marks)
    return marks


def end(conn: sqlite3.Connection, marks: Marks) -> None:
    """Mark the database as closed in order."""
    _write(conn, attrs.evolve(marks, clean=True))


def _write(conn: sqlite3.Connection, marks: Marks) -> None:
    values = {
        "epoch": marks.epoch,
        "boot": marks.boot,
        "clean": "1" if marks.clean else "0",
        "opens": str(marks.opens),
    }
    conn.execute("BEGIN IMMEDIATE")
    try:
        conn.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values.items())
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def boot_id() -> str:
    """What changes whenever the machine starts; empty if that cannot be known."""
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
            return done.stdout.strip()
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
