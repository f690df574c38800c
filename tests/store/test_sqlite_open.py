"""Opening a data directory: who may, what is refused and left alone, which epoch it has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.store.contract import Transaction
from crush_trio.store.sqlite import SqliteStore, open_store
from crush_trio.store.sqlite.connect import connect_reader, connect_writer
from crush_trio.store.sqlite.epoch import Marks, epoch_goes_on
from crush_trio.store.sqlite.lock import LOCK_NAME, DirectoryLock
from crush_trio.store.sqlite.migrate import shipped_migrations
from crush_trio.store.sqlite.opening import DATABASE_NAME
from tests.store.samples import S, W, founding, message, notice


def ignore(*_: object) -> None:
    """Events nobody wants."""


async def visit(directory: Path, migrations: tuple[str, ...] | None = None) -> str:
    """Open, commit an event and close; gives the epoch."""
    async with open_store(directory, publish=ignore, migrations=migrations) as store:
        await store.commit_nowait(W, founding).wait()
        await store.commit_nowait(W, notice("a")).wait()
        return store.epoch


async def refusal(directory: Path, migrations: tuple[str, ...] | None = None) -> StoreError:
    """The error of opening, which must change nothing."""
    with pytest.raises(StoreError) as caught:
        await visit(directory, migrations)
    assert str(directory) in caught.value.message
    return caught.value


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != LOCK_NAME}


async def test_a_new_directory_is_private_and_so_is_every_file_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    os.umask(0o022)
    async with open_store(directory, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()
        assert mode(directory) == 0o700
        names = {path.name for path in directory.iterdir()}
        assert names == {"lock", "crush.db", "crush.db-wal", "crush.db-shm"}
        assert {mode(path) for path in directory.iterdir()} == {0o600}
    assert {path.name for path in directory.iterdir()} == {"lock", "crush.db"}


async def test_an_empty_directory_is_made_private_and_one_with_other_things_is_not(
    tmp_path: Path,
) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for directory in (empty, used):
        directory.mkdir()
        directory.chmod(0o755)
    (used / "notes.txt").write_text("mine")
    await visit(empty)
    await visit(used)
    assert (mode(empty), mode(used)) == (0o700, 0o755)
    assert mode(used / DATABASE_NAME) == 0o600


async def test_everything_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    await visit(tmp_path)
    async with open_store(tmp_path, publish=ignore) as store:
        assert await store.last_seq(W) == 1
        assert (await store.commit_nowait(W, notice("b")).wait()).value == 2


async def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    program = (
        "import sys, trio, pathlib\n"
        "from crush_trio.store.sqlite import open_store\n"
        "from crush_trio.protocol.errors import StoreError\n"
        "async def main():\n"
        "    try:\n"
        "        async with open_store(pathlib.Path(sys.argv[1]), publish=print): pass\n"
        "    except StoreError as exc:\n"
        "        print(exc.code, exc.message)\n"
        "trio.run(main)\n"
    )
    async with open_store(tmp_path, publish=ignore) as store:
        store.announce("unix:///run/x.sock")
        done = await trio.run_process(
            [sys.executable, "-c", program, str(tmp_path)], capture_stdout=True
        )
        said = done.stdout.decode()
        assert said.startswith("data_dir_in_use")
        assert f"{tmp_path} is in use by crush-trio pid {os.getpid()} on unix:///run/x.sock" in said
        assert (await refusal(tmp_path)).code == "data_dir_in_use"  # in one process too
    await visit(tmp_path)


async def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    await visit(tmp_path)
    taken = DirectoryLock.take(tmp_path)
    assert taken.previous is not None
    assert taken.previous.pid == os.getpid()
    taken.release()
    (tmp_path / LOCK_NAME).write_text("garbage")
    await visit(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is not a database, but someone's diary " * 99),
        lambda path: path.write_bytes(path.read_bytes()[:-5000]),
        lambda path: overwrite(path, 0, b"\0" * 16),
        lambda path: overwrite(path, 100, b"\xff" * 4000),
    ],
    ids=["another file", "cut short", "no header", "first page"],
)
async def test_a_damaged_file_is_named_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    await visit(tmp_path)
    path = tmp_path / DATABASE_NAME
    damage(path)
    before = path.read_bytes()
    error = await refusal(tmp_path)
    assert error.code == "store_corrupt"
    assert str(path) in error.message
    assert path.read_bytes() == before


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


async def test_damage_found_later_is_an_error_of_the_read_that_met_it(tmp_path: Path) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        await store.commit_nowait(W, founding).wait()

        def fill(tx: Transaction) -> None:
            for n in range(400):
                tx.put_message(message(f"m{n}", "x" * 900), accept_seq=n, ordinal=0)

        store.commit_nowait(W, fill)
        await store.commit_nowait(W, notice("a")).wait()
    path = tmp_path / DATABASE_NAME
    for page in range(60, path.stat().st_size // 4096 - 1):
        overwrite(path, page * 4096, b"\xff" * 4096)
    async with open_store(tmp_path, publish=ignore) as store:
        with pytest.raises(StoreError) as caught:
            await store.messages(S)
    assert caught.value.code == "store_corrupt"


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (x)")
    other.commit()
    other.close()
    error = await refusal(tmp_path)
    assert "not a database of crush-trio" in error.message
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("precious",)]
    other.close()


async def test_a_link_or_directory_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).symlink_to(tmp_path / "elsewhere")
    assert (await refusal(tmp_path)).code == "store_corrupt"
    assert not (tmp_path / "elsewhere").exists()


async def test_a_newer_schema_is_refused_unchanged(tmp_path: Path) -> None:
    newer = (*shipped_migrations(), "CREATE TABLE from_the_future (x);")
    await visit(tmp_path, newer)
    before = contents(tmp_path)
    error = await refusal(tmp_path)
    assert error.code == "store_newer"
    assert "upgrade" in error.message
    assert contents(tmp_path) == before


async def test_an_older_schema_is_copied_and_then_migrated(tmp_path: Path) -> None:
    epoch = await visit(tmp_path)
    newer = (*shipped_migrations(), "ALTER TABLE files ADD COLUMN mode INTEGER;", "SELECT 1;")
    assert contents(tmp_path).keys() == {DATABASE_NAME}  # nothing to migrate, nothing to copy
    async with open_store(tmp_path, publish=ignore, migrations=newer) as store:
        assert store.epoch == epoch
        assert await store.last_seq(W) == 1
    copy = tmp_path / f"crush.db.before-v{len(newer)}"
    assert mode(copy) == 0o600
    conn = sqlite3.connect(copy)
    assert conn.execute("PRAGMA user_version").fetchone() == (len(shipped_migrations()),)
    assert conn.execute("SELECT count(*) FROM events").fetchone() == (1,)
    conn.close()


async def test_a_migration_that_fails_leaves_the_old_version_whole(tmp_path: Path) -> None:
    await visit(tmp_path)
    broken = (*shipped_migrations(), "DROP TABLE reads; CREATE TABLE events (x);")
    await refusal(tmp_path, broken)
    async with open_store(tmp_path, publish=ignore) as store:
        assert await store.reads(S) == {}
        assert await store.last_seq(W) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be refused")
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    program = (
        "import os, sys, trio, pathlib\n"
        "from crush_trio.store.sqlite import open_store\n"
        "from crush_trio.protocol.errors import StoreError\n"
        "os.setuid(65534)\n"
        "async def main():\n"
        "    try:\n"
        "        async with open_store(pathlib.Path(sys.argv[1]), publish=print): pass\n"
        "    except StoreError as exc:\n"
        "        print(exc.code, exc.message)\n"
        "trio.run(main)\n"
    )
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    owned = tmp_path / "owned"
    owned.mkdir()
    for directory in (owned, owned / "new"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(directory)], capture_output=True, text=True
        )
        assert done.stdout.startswith("store_unwritable"), done.stderr
        assert str(directory) in done.stdout
        assert "--data-dir" in done.stdout


async def test_a_file_system_without_shared_memory_is_refused_by_the_checked_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect

    class NoWal(sqlite3.Connection):
        def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA journal_mode = "):
                sql = "PRAGMA journal_mode = DELETE"
            return super().execute(sql, values)

    def connect(*args: Any, **named: Any) -> sqlite3.Connection:
        return real(*args, factory=NoWal, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    error = await refusal(tmp_path)
    assert (error.code, "journal_mode" in error.message) == ("store_unwritable", True)


def test_no_connection_makes_temporary_files(tmp_path: Path) -> None:
    """A process that is killed would leave them, in a directory that is not ours."""
    writer = connect_writer(tmp_path / "db", "full")
    reader = connect_reader(tmp_path / "db")
    for conn in (writer, reader):
        assert conn.execute("PRAGMA temp_store").fetchone() == (2,)
        conn.close()


# --- epochs -----------------------------------------------------------------------------------


async def test_the_epoch_goes_on_after_an_orderly_end_and_belongs_to_the_database(
    tmp_path: Path,
) -> None:
    first = await visit(tmp_path / "a")
    assert await visit(tmp_path / "a") == first
    assert await visit(tmp_path / "b") != first


async def test_a_restored_copy_begins_a_new_epoch(tmp_path: Path) -> None:
    first = await visit(tmp_path)
    backup = tmp_path / "backup"
    shutil.copyfile(tmp_path / DATABASE_NAME, backup)
    assert await visit(tmp_path) == first
    shutil.copyfile(backup, tmp_path / DATABASE_NAME)
    assert await visit(tmp_path) != first


async def test_an_unclean_end_on_another_boot_begins_a_new_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await visit(tmp_path)

    def crash(same_boot: bool) -> None:
        conn = sqlite3.connect(tmp_path / DATABASE_NAME)
        conn.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
        if not same_boot:
            conn.execute("UPDATE meta SET value = 'another' WHERE key = 'boot'")
        conn.commit()
        conn.close()

    crash(same_boot=True)
    assert await visit(tmp_path) == first
    crash(same_boot=False)
    assert await visit(tmp_path) != first


async def test_kills_before_the_lock_file_is_written_do_not_begin_a_new_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: a process that only died has broken no numbering, however often it died there."""
    first = await visit(tmp_path)

    class KilledError(BaseException):
        pass

    def killed(self: DirectoryLock, **_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(DirectoryLock, "note", killed)
        for _ in range(3):
            with pytest.raises(KilledError):
                await visit(tmp_path)
    assert await visit(tmp_path) == first


HOLD_IN_A_FORK = """
import os, sys
from pathlib import Path
from crush_trio.store.sqlite.lock import DirectoryLock

lock = DirectoryLock.take(Path(sys.argv[1]))
lock.note(opens=1)
if os.fork():
    os._exit(0)
sys.stdin.read()
"""


def test_a_dead_servers_lock_is_waited_for_while_a_fork_of_it_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle of starting a tool: the next start does not fail for it, unless that
    takes too long."""
    command = [sys.executable, "-c", HOLD_IN_A_FORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as holder:
        assert holder.wait(30) == 0
        monkeypatch.setattr(limits, "DEAD_HOLDER_S", 0.1)
        with pytest.raises(StoreError) as caught:
            DirectoryLock.take(tmp_path)
        assert caught.value.code == "data_dir_in_use"
        monkeypatch.setattr(limits, "DEAD_HOLDER_S", 20.0)
        assert holder.stdin is not None
        holder.stdin.close()  # the fork ends, some time after this
        DirectoryLock.take(tmp_path).release()


async def test_a_lock_file_with_the_end_of_an_older_line_is_read(tmp_path: Path) -> None:
    """G8: as a kill between writing the line and cutting the file leaves it."""
    first = await visit(tmp_path)
    with (tmp_path / LOCK_NAME).open("ab") as file:
        file.write(b'host/run/s", "opens": 1}\n')
    assert await visit(tmp_path) == first


@pytest.mark.parametrize(
    ("marks", "boot", "noted", "goes_on"),
    [
        (Marks(), "b", None, False),
        (Marks("e", "b", True, 3), "b", 3, True),
        (Marks("e", "b", True, 3), "other", 3, True),
        (Marks("e", "b", False, 3), "b", 3, True),
        (Marks("e", "b", False, 3), "other", 3, False),
        (Marks("e", "", False, 3), "", 3, False),
        (Marks("e", "b", True, 3), "b", 4, False),
        (Marks("e", "b", False, 3), "b", 2, True),
        (Marks("e", "b", False, 3), "b", 1, False),
        (Marks("e", "b", True, 3), "b", None, False),
    ],
)
def test_when_a_numbering_is_unbroken(
    marks: Marks, boot: str, noted: int | None, goes_on: bool
) -> None:
    assert epoch_goes_on(marks, boot=boot, noted_opens=noted) is goes_on


# --- the end ----------------------------------------------------------------------------------


async def test_leaving_the_block_finishes_what_is_queued(tmp_path: Path) -> None:
    async with open_store(tmp_path, publish=ignore) as store:
        store.commit_nowait(W, founding)
        tickets = [store.commit_nowait(W, notice(str(n))) for n in range(500)]
    assert [(await ticket.wait()).value for ticket in tickets] == list(range(1, 501))
    with pytest.raises(StoreError) as caught:
        store.commit_nowait(W, notice("late"))
    assert caught.value.code == "store_failed"
    async with open_store(tmp_path, publish=ignore) as again:
        assert await again.last_seq(W) == 500


async def test_leaving_the_block_is_neither_stopped_by_a_cancellation_nor_unbounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.CancelScope() as scope:
        async with open_store(tmp_path, publish=ignore) as store:
            store.commit_nowait(W, founding)
            last = store.commit_nowait(W, notice("x"))
            scope.cancel()
    assert (await last.wait()).value == 1

    monkeypatch.setattr(limits, "SHUTDOWN_STORE_S", 0.2)
    slow: list[SqliteStore] = []
    with trio.fail_after(5):
        async with open_store(tmp_path, publish=ignore) as store:
            slow.append(store)
            locker = sqlite3.connect(tmp_path / DATABASE_NAME, check_same_thread=False)
            locker.execute("BEGIN IMMEDIATE")
            late = store.commit_nowait(W, notice("y"))
    locker.execute("ROLLBACK")
    locker.close()
    assert (await late.wait()).value == 2  # its thread went on
    await slow[0]._writer.closed.wait()
    slow[0]._writer.join()


async def test_a_durability_we_do_not_know_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="durability"):
        async with open_store(tmp_path, durability="off", publish=ignore):
            raise AssertionError("opened")
