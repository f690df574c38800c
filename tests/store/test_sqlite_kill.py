"""A server killed at any instruction keeps what it acknowledged (G2)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crush_trio.protocol.ids import RunId
from crush_trio.store.contract import Selection
from crush_trio.store.sqlite import open_store
from tests.store.samples import W

KILLS = 20
ROOT = Path(__file__).parents[2]


class Writers:
    """Writers one after another, each killed when it has acknowledged enough."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.child_writer", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            bufsize=1,
        )

    def run_one(self, name: str, commits: int) -> dict[str, int]:
        """Commits that were acknowledged (run id → seq) before the writer was dead."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name}\n")
        pid = int(process.stdout.readline().split()[1])
        acknowledged: dict[str, int] = {}
        for line in process.stdout:
            if line == "dead\n":
                break
            run, seq = line.split()
            acknowledged[run] = int(seq)
            if len(acknowledged) == commits:
                os.kill(pid, signal.SIGKILL)
        return acknowledged

    def close(self) -> None:
        """End the process that forks them."""
        with self._process as process:
            process.kill()


async def test_every_acknowledged_commit_survives_a_kill_and_no_number_is_missing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    choice = random.Random(1)
    directory = tmp_path / "data"
    acknowledged: dict[str, int] = {}
    epochs = set()
    writers = Writers(directory)
    request.addfinalizer(writers.close)
    for kill in range(KILLS):
        acknowledged |= writers.run_one(f"k{kill}", choice.randrange(1, 60))
        async with open_store(directory, publish=lambda *_: None) as store:
            epochs.add(store.epoch)
            stored = {row.record.id for row in await store.open_runs()}
            assert stored >= set(acknowledged)
            newest = await store.last_seq(W)
            assert newest >= max(acknowledged.values())
            assert newest == len(stored)  # each commit stored one run and one event
            seqs: list[int] = []
            while not seqs or seqs[-1] < newest:
                after = seqs[-1] if seqs else 0
                page = await store.events(
                    W, after=after, upto=newest, selection=Selection(), limit=500
                )
                seqs += [event.seq for event in page.events]
            assert seqs == list(range(1, newest + 1))
            assert await store.run(RunId("unknown")) is None
    assert len(epochs) == 1  # the machine was not started again, so nothing was lost
    assert len(acknowledged) >= KILLS
