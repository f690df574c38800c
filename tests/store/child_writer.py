"""Processes that commit without end and say which commits were acknowledged.

Run by the test of a killed server as ``python -m tests.store.child_writer DIRECTORY``. For each
name on stdin it forks a writer, which says its process id and then one line for each acknowledged
commit, until it is killed; then this process says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Transaction
from crush_trio.store.sqlite import open_store
from tests.store.samples import founding, message, run_row


def say(line: str) -> None:
    """One whole line or nothing of it."""
    os.write(1, f"{line}\n".encode())


async def write(directory: Path, name: str) -> None:
    """Ten tasks, each committing one thing after another."""
    workspace_id = WorkspaceId("w")
    async with open_store(directory, publish=lambda *_: None) as store:
        known = {row.id for row in await store.workspaces()}
        if workspace_id not in known:
            await store.commit_nowait(workspace_id, founding).wait()

        async def one(task: int) -> None:
            for n in range(100_000):
                run = f"{name}-{task}-{n}"
                done = await store.commit_nowait(workspace_id, _storing(run, n)).wait()
                say(f"{run} {done.last_seq}")

        async with trio.open_nursery() as nursery:
            for task in range(10):
                nursery.start_soon(one, task)


def _storing(run: str, n: int) -> Callable[[Transaction], None]:
    def commit(tx: Transaction) -> None:
        tx.put_message(message(f"m-{run}"), accept_seq=n, ordinal=0)
        tx.insert_run(run_row(run, accept=n + 1))
        tx.emit("message", "created", message(f"m-{run}"))

    return commit


def main() -> None:
    """Fork a writer for each name, one after another."""
    for name in sys.stdin:
        pid = os.fork()
        if pid == 0:
            say(f"pid {os.getpid()}")
            trio.run(write, Path(sys.argv[1]), name.strip())
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()
