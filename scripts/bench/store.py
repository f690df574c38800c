"""How much the store costs over the bare SQL it runs, measured side by side.

    python scripts/bench/store.py [--json] [--dir DIRECTORY] [--seconds S]

Two figures, each beside a loop that runs the same statements on a connection with the same
settings and does nothing else: the latency of one commit at a time, and commits per second when
ten tasks commit at once. The ceiling of the second joins as many commits in a transaction as the
store did. Three interleaved rounds, medians. What counts are the ratios: absolute figures move
with the machine. `goal 16`: at least 60 % of the grouped ceiling.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio.protocol.ids import MessageId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message, TextPart
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Transaction, WorkspaceRow
from crush_trio.store.sqlite import SqliteStore, open_store
from crush_trio.store.sqlite.connect import connect_writer

ROUNDS = 3
WRITERS = 10
W = WorkspaceId("w")
S = SessionId("s")
MESSAGE = Message(MessageId("m"), "assistant", S, (TextPart("x" * 200),))


@attrs.define
class Figures:
    """One kind of figure, store and ceiling of each round."""

    store: list[float] = attrs.field(factory=list)
    ceiling: list[float] = attrs.field(factory=list)


def founding(tx: Transaction) -> None:
    """The rows that a message needs."""
    tx.put_workspace(WorkspaceRow(W, "/w", 1))
    tx.put_session(Session(S))
    tx.put_message(MESSAGE, accept_seq=1, ordinal=0)


def one_change(tx: Transaction) -> None:
    """A message rewritten, and the event that says so: what most commits do."""
    tx.put_message(MESSAGE, accept_seq=1, ordinal=0)
    tx.emit("message", "updated", MESSAGE, session_id=S)


def recorded(directory: Path, workspace_id: WorkspaceId) -> list[tuple[str, Any]]:
    """The statements of `one_change` as SQLite gets them."""
    from crush_trio.store.sqlite.transaction import Counters, SqliteTransaction

    class Recorder(sqlite3.Connection):
        def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
            said.append((sql, values))
            return super().execute(sql, values)

    said: list[tuple[str, Any]] = []
    conn = sqlite3.connect(directory / "crush.db", factory=Recorder, isolation_level=None)
    conn.execute("BEGIN")
    said.clear()
    one_change(SqliteTransaction(conn, workspace_id, Counters(9_999_998, 0), 1))
    statements = said[:]
    conn.execute("ROLLBACK")
    conn.close()
    return statements


class Bare:
    """The same statements in a loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seq = 10_000_000

    def run(self, seconds: float, group: int) -> tuple[float, float]:
        """(median seconds of a transaction, commits a second), ``group`` commits in each."""
        statements = recorded(self._directory, W)
        conn = connect_writer(self._directory / "crush.db", "full")
        times = []
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            before = time.perf_counter()
            conn.execute("BEGIN IMMEDIATE")
            for _ in range(group):
                self._seq += 1
                for sql, values in statements:
                    bound = (values[0], self._seq, *values[2:]) if "events" in sql else values
                    conn.execute(sql, bound)
            conn.execute("UPDATE counters SET last_accept = ?", (self._seq,))
            conn.execute("COMMIT")
            times.append(time.perf_counter() - before)
        elapsed = time.perf_counter() - started
        conn.execute("DELETE FROM events WHERE seq > 10000000")
        conn.close()
        return statistics.median(times), len(times) * group / elapsed


async def single(store: SqliteStore, seconds: float) -> float:
    """Median seconds of one commit, one after another."""
    times = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        await store.commit_nowait(W, one_change).wait()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


async def grouped(store: SqliteStore, seconds: float) -> float:
    """Commits a second of ten tasks, each waiting for its own."""
    count = 0
    started = time.perf_counter()

    async def write() -> None:
        nonlocal count
        while time.perf_counter() - started < seconds:
            await store.commit_nowait(W, one_change).wait()
            count += 1

    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(write)
    return count / (time.perf_counter() - started)


async def measure(directory: Path, seconds: float) -> tuple[Figures, Figures]:
    """All rounds; the store is closed while the bare loop has the database."""
    latency, rate = Figures(), Figures()
    bare = Bare(directory)
    async with open_store(directory, publish=lambda *_: None) as store:
        await store.commit_nowait(W, founding).wait()
    for _ in range(ROUNDS):
        async with open_store(directory, publish=lambda *_: None) as store:
            latency.store.append(await single(store, seconds))
            rate.store.append(await grouped(store, seconds))
        latency.ceiling.append(bare.run(seconds, 1)[0])
        rate.ceiling.append(bare.run(seconds, WRITERS)[1])
    return latency, rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dir", type=Path, help="where to put the database (a real disk)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        latency, rate = trio.run(measure, Path(name), args.seconds)
    single_store, single_bare = map(statistics.median, (latency.store, latency.ceiling))
    rate_store, rate_bare = map(statistics.median, (rate.store, rate.ceiling))
    result = {
        "single_commit_ms": round(single_store * 1000, 3),
        "single_commit_bare_ms": round(single_bare * 1000, 3),
        "single_commit_ratio": round(single_store / single_bare, 2),
        "grouped_commits_per_s": round(rate_store),
        "grouped_bare_per_s": round(rate_bare),
        "grouped_share": round(rate_store / rate_bare, 2),
    }
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:24} {value:>10}")


if __name__ == "__main__":
    main()
