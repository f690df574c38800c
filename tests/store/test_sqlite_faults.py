"""What the store does when the machine fails it (contract 3, "When the store fails")."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Selection, StoredEvent, Transaction
from crush_trio.store.sqlite import SqliteStore, open_store
from crush_trio.store.sqlite.group import Done
from crush_trio.store.sqlite.opening import DATABASE_NAME
from tests.store.samples import S, W, founding, message, notice


def ignore(*_: object) -> None:
    """Events nobody wants."""


def putting(name: str, size: int) -> Callable[[Transaction], int]:
    def commit(tx: Transaction) -> int:
        tx.put_message(message(name, "x" * size), accept_seq=1, ordinal=0)
        return tx.emit("message", "created", {"id": name}, session_id=S)

    return commit


async def outcome(ticket: Any) -> str:
    """``ok`` or the code of the error."""
    try:
        await ticket.wait()
    except StoreError as exc:
        return exc.code
    return "ok"


async def no_gap(store: SqliteStore) -> int:
    """The newest event, after a look at all of them."""
    newest = await store.last_seq(W)
    page = await store.events(W, after=0, upto=newest, selection=Selection(), limit=10_000)
    assert [event.seq for event in page.events] == list(range(1, newest + 1))
    return newest


async def test_a_commit_that_finds_the_disk_full_applies_nothing_and_the_store_goes_on(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        conn = store._writer._conn
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {pages + 8}")
        codes = [
            await outcome(store.commit_nowait(W, putting(name, size)))
            for name, size in (("a", 100), ("large", 500_000), ("b", 100))
        ]
        assert codes == ["ok", "disk_full", "ok"]
        assert [m.id for m in await store.messages(S)] == ["a", "b"]
        assert await no_gap(store) == 2
        assert not store.failed.is_set()
        conn.execute("PRAGMA max_page_count = 1000000")
        assert await outcome(store.commit_nowait(W, putting("large", 500_000))) == "ok"


@contextmanager
def small_disk(where: Path) -> Iterator[None]:
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(where)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


async def test_a_full_disk_refuses_writes_and_answers_reads_until_there_is_room(
    tmp_path: Path,
) -> None:
    where = tmp_path / "disk"
    with small_disk(where):
        async with open_store(where / "data", publish=ignore) as store:
            await store.commit_nowait(W, founding).wait()
            ballast = where / "ballast"
            ballast.write_bytes(b"x" * 1_100_000)
            done: list[str] = []
            while "disk_full" not in done[-3:]:
                name = f"m{len(done)}"
                done.append(await outcome(store.commit_nowait(W, putting(name, 20_000))))
            assert set(done) == {"ok", "disk_full"}
            acknowledged = [f"m{n}" for n, code in enumerate(done) if code == "ok"]
            assert {m.id for m in await store.messages(S)} == set(acknowledged)
            assert await no_gap(store) == len(acknowledged)
            assert not store.failed.is_set()
            ballast.unlink()
            assert await outcome(store.commit_nowait(W, putting("room again", 20_000))) == "ok"
        async with open_store(where / "data", publish=ignore) as store:
            assert await no_gap(store) == len(acknowledged) + 1


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Writes beyond this size of a file fail with an error that is not a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_any_other_write_error_fails_everything_after_it_and_says_so(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        wal = tmp_path / f"{DATABASE_NAME}-wal"
        with files_at_most(wal.stat().st_size):
            tickets = [store.commit_nowait(W, putting(f"m{n}", 10)) for n in range(3)]
            assert [await outcome(ticket) for ticket in tickets] == ["store_failed"] * 3
        with trio.fail_after(1):
            await store.failed.wait()
        assert store.failure is not None
        assert DATABASE_NAME in store.failure.message
        for refused in (lambda: store.commit_nowait(W, notice("x")), store.check_room):
            with pytest.raises(StoreError) as caught:
                refused()
            assert caught.value.code == "store_failed"
        assert await store.messages(S) == ()  # reads go on
    async with open_store(tmp_path, publish=ignore) as store:  # the next start decides
        assert await no_gap(store) == 0
        assert await outcome(store.commit_nowait(W, putting("m", 10))) == "ok"


async def test_commits_queued_behind_a_fatal_error_are_answered_too(tmp_path: Path) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        wal = tmp_path / f"{DATABASE_NAME}-wal"
        count = limits.GROUP_COMMIT_MAX * 3
        with files_at_most(wal.stat().st_size):
            tickets = [store.commit_nowait(W, putting(f"m{n}", 10)) for n in range(count)]
            with trio.fail_after(10):
                outcomes = []
                for ticket in tickets:
                    outcomes.append(await outcome(ticket))  # noqa: PERF401  # flake8-async sees no await in a comprehension
                assert set(outcomes) == {"store_failed"}
        assert await no_gap(store) == 0


async def test_a_database_locked_by_another_program_is_waited_for_and_then_named(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        assert store._writer._conn.execute("PRAGMA busy_timeout").fetchone() == (5000,)
        store._writer._conn.execute("PRAGMA busy_timeout = 100")
        other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ticket = store.commit_nowait(W, notice("a"))
        with pytest.raises(StoreError, match="locked by another program") as caught:
            await ticket.wait()
        assert caught.value.code == "store_failed"
        assert not store.failed.is_set()
        store._writer._conn.execute("PRAGMA busy_timeout = 5000")
        waits = store.commit_nowait(W, notice("b"))
        await trio.to_thread.run_sync(os.sched_yield)
        other.execute("ROLLBACK")
        other.close()
        assert (await waits.wait()).value == 1


async def test_a_commit_that_ends_its_own_transaction_fails_the_group_and_not_the_writer(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()

        def rolls_back(tx: Any) -> None:
            tx._conn.execute("ROLLBACK")  # as SQLite does by itself after some errors
            raise ValueError("lost")

        with pytest.raises(StoreError) as caught:
            await store.commit_nowait(W, rolls_back).wait()
        assert caught.value.code == "store_failed"
        assert (await store.commit_nowait(W, notice("a")).wait()).value == 1


async def test_relaxed_commits_are_not_synced_and_all_others_are(tmp_path: Path) -> None:
    """Contract 5: every commit but checkpoints of open text is synced before it counts."""

    def synchronous(tx: Any) -> int:
        level: int = tx._conn.execute("PRAGMA synchronous").fetchone()[0]
        return level

    for durability, strict in (("full", 2), ("normal", 1)):
        async with open_store(
            tmp_path / durability, durability=durability, publish=ignore
        ) as store:
            for relaxed, level in ((True, 1), (False, strict), (True, 1), (False, strict)):
                ticket = store.commit_nowait(W, synchronous, relaxed=relaxed)
                assert (await ticket.wait()).value == level


async def test_one_strict_commit_makes_its_whole_group_strict(tmp_path: Path) -> None:
    def synchronous(tx: Any) -> int:
        level: int = tx._conn.execute("PRAGMA synchronous").fetchone()[0]
        return level

    async with open_store(tmp_path, publish=ignore) as store:
        hold = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        hold.execute("BEGIN IMMEDIATE")  # so that all of them wait for one group
        tickets = [
            store.commit_nowait(W, synchronous, relaxed=relaxed)
            for relaxed in (False, True, True, False, True)
        ]
        hold.execute("ROLLBACK")
        hold.close()
        levels = [(await ticket.wait()).value for ticket in tickets]
    assert levels[0] == levels[3] == 2


async def test_what_waits_while_a_group_is_written_is_the_next_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction for all of them, and one visit to the Trio thread."""
    visits: list[int] = []

    def publish(_: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        visits.append(events[0].seq)

    async with open_store(tmp_path, publish=publish) as store:
        await store.commit_nowait(W, founding).wait()
        settled: list[int] = []
        settle = store._writer._settle

        def counting(done: list[Done], fatal: StoreError | None) -> None:
            settled.append(len(done))
            settle(done, fatal)

        monkeypatch.setattr(store._writer, "_settle", counting)
        tickets = [store.commit_nowait(W, notice(str(n))) for n in range(200)]
        for ticket in tickets:
            await ticket.wait()
    assert sum(settled) == 200
    assert len(settled) < 50
    assert max(settled) <= limits.GROUP_COMMIT_MAX
    assert visits == list(range(1, 201))


async def test_reads_go_on_while_many_commits_are_made(tmp_path: Path) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        last = None
        for n in range(2_000):
            last = store.commit_nowait(W, notice(str(n)))
        seen = [await store.last_seq(W) for _ in range(20)]
        assert last is not None
        await last.wait()
        assert seen == sorted(seen)
        assert await store.last_seq(W) == 2_000


async def test_a_cancelled_read_does_not_leave_its_thread_behind(tmp_path: Path) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.sessions(W)
        assert store._limiter.borrowed_tokens == 0
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(store.sessions, W)
        assert len(store._readers) <= limits.READER_THREADS
