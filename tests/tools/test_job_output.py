"""A job's output by position: from memory, from the file as it grows, from the finished one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.tools.processes.job_process import JobProcess
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import CallSpill, SpillArea


def readable(spill: CallSpill) -> tuple[list[tuple[int, bytes]], int]:
    """Everything that can be read, in pieces with their positions, and how much was dropped."""
    found: list[tuple[int, bytes]] = []
    at, lost = 0, 0
    while True:
        data, position, dropped = spill.read(at, 7)
        lost += dropped
        if not data:
            return found, lost
        found.append((position - len(data), data))
        assert position > at
        at = position


def check(spill: CallSpill, whole: bytes, bound: int) -> None:
    pieces, lost = readable(spill)
    for position, data in pieces:
        assert whole[position : position + len(data)] == data
    kept = sum(len(data) for _, data in pieces)
    assert kept + lost == len(whole) == spill.seen
    assert kept == min(len(whole), max(bound, 0)), "as much as the bound allows"


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=12), half=st.integers(1, 30))
def test_what_is_kept_is_found_at_its_place_before_and_after_the_end(
    sizes: list[int], half: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crush_trio.tools.processes.spill.TOOL_OUTPUT_MEMORY_BYTES", 16)
        area = SpillArea(tmp_path_factory.mktemp("s"), call_bytes=2 * half)
        spill, whole = CallSpill(area, "job", keep_small=True), b""
        for size in sizes:
            data = bytes((len(whole) + n) % 251 for n in range(size))
            whole += data
            spill.feed(data)
            check(spill, whole, 2 * half if len(whole) > 16 else 16)
        spill.finish()
        check(spill, whole, 2 * half if len(whole) > 16 else 16)


def test_beyond_the_end_there_is_nothing_and_nothing_was_dropped(spill: SpillArea) -> None:
    log = CallSpill(spill, "job", keep_small=True)
    log.feed(b"abc")
    assert log.read(3, 10) == (b"", 3, 0)
    assert log.read(99, 10) == (b"", 3, 0)


def test_a_file_that_was_removed_and_a_full_area_count_as_dropped(tmp_path: Path) -> None:
    full = SpillArea(tmp_path, total_bytes=1)
    (tmp_path / "other").write_bytes(b"xx")
    log = CallSpill(full, "job", keep_small=True)
    log.feed(b"x" * 300_000)
    assert log.read(5, 10) == (b"", 300_000, 299_995)
    roomy = SpillArea(tmp_path / "more")
    log = CallSpill(roomy, "job", keep_small=True)
    log.feed(b"x" * 300_000)
    path = log.finish()
    assert path is not None
    os.unlink(path)
    assert log.read(0, 10) == (b"", 300_000, 300_000)


async def test_the_last_words_of_a_killed_job_are_kept(spill: SpillArea) -> None:
    grown = trio.Event()
    log = CallSpill(spill, "job", keep_small=True)
    job = JobProcess(RunProcesses(spill), log, lambda stream, text: None, grown.set)
    command = "trap 'echo bye; exit' TERM; echo hello; sleep 600 & wait"
    environment = {"PATH": os.environ["PATH"]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: job.run(command, cwd=Path("/"), env=environment))
        await grown.wait()
        nursery.cancel_scope.cancel()
    report = await job.aclose()
    assert (report.started, report.left) == (1, ())
    assert (await job.read(0, 100))[0] == b"hello\nbye\n"
    assert job.present().stdout == "hello\nbye\n"
    assert job.present().exit_code is None
