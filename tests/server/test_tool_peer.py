"""Descent from a tool, on real processes and on process tables made up for the corners."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crush_trio.server.edge.peer import ids_of_xucred
from crush_trio.server.edge.tool_peer import descends_from


@pytest.fixture
def family() -> Iterator[tuple[int, int, int]]:
    """Pids of a launcher, its child, and its grandchild with an awkward name."""
    grandchild = "import time; open('/proc/self/comm', 'w').write('a) R 1 (b'); "
    grandchild += "print(__import__('os').getpid(), flush=True); time.sleep(60)"
    child = "import subprocess, sys, os; print(os.getpid(), flush=True); "
    child += f"subprocess.run([sys.executable, '-c', {grandchild!r}])"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run = [sys.executable, "-c", launcher]
    with subprocess.Popen(run, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        yield process.pid, pids[0], pids[1]
        os.killpg(process.pid, 9)


@pytest.mark.skipif(sys.platform != "linux", reason="the process table is read from /proc")
def test_children_of_a_launcher_descend_from_it_and_we_do_not(
    family: tuple[int, int, int],
) -> None:
    launcher, child, grandchild = family
    for pid in family:
        assert descends_from(pid, {launcher})
    assert descends_from(grandchild, {child})
    assert not descends_from(child, {grandchild})
    assert not descends_from(os.getpid(), {launcher})
    assert descends_from(child, {os.getpid(), 1_000_000})


def proc(directory: Path, parents: dict[int, int], name: str = "x") -> Path:
    (directory / "self").mkdir()
    for pid, parent in parents.items():
        (directory / str(pid)).mkdir()
        (directory / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1\n")
    return directory


def test_without_running_tools_nobody_descends_from_one(tmp_path: Path) -> None:
    assert not descends_from(99, (), proc(tmp_path, {}))


def test_a_process_that_has_gone_cannot_be_told_and_is_refused(tmp_path: Path) -> None:
    table = proc(tmp_path, {5: 4, 4: 1})
    assert not descends_from(5, {7}, table)
    assert descends_from(99, {7}, table)
    assert descends_from(0, {7}, table)
    (tmp_path / "4" / "stat").unlink()
    assert descends_from(5, {7}, table)


def test_a_process_table_that_goes_in_circles_ends(tmp_path: Path) -> None:
    assert descends_from(5, {7}, proc(tmp_path, {5: 6, 6: 5}))


def test_the_first_process_of_a_namespace_has_no_parent(tmp_path: Path) -> None:
    assert not descends_from(5, {7}, proc(tmp_path, {5: 0}))


def test_a_name_cannot_pretend_to_be_a_parent(tmp_path: Path) -> None:
    table = proc(tmp_path, {5: 7, 7: 1}, name="x) S 1 1 (")
    assert descends_from(5, {7}, table)


def test_a_system_without_a_process_table_answers_no(tmp_path: Path) -> None:
    assert not descends_from(5, {5}, tmp_path / "missing")


def test_credentials_of_macos_are_read_by_their_layout() -> None:
    raw = struct.pack("=IIh2x16I", 0, 501, 2, 20, 12, *[0] * 14)
    assert len(raw) == 76
    assert ids_of_xucred(raw) == (501, 20)
