"""A server's cgroup: where it is made, whose it is, and that nobody else's is touched (G10)."""

# ruff: noqa: ASYNC220
# A test may block for a moment.

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crush_trio.tools.processes.cgroup import (
    NOTE,
    Cgroup,
    cgroup_of,
    left_by_last_server,
    make_server_cgroup,
    process_control,
    server_cgroup,
)

MOUNT = "36 25 0:32 {root} {point} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
V1 = "30 25 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"


def proc(directory: Path, cgroup: str, mounts: str) -> Path:
    (directory / "self").mkdir()
    (directory / "self" / "cgroup").write_text(cgroup)
    (directory / "self" / "mountinfo").write_text(mounts)
    return directory


@pytest.mark.parametrize(
    ("cgroup", "mounts", "expected"),
    [
        ("0::/\n", MOUNT.format(root="/", point="/sys/fs/cgroup"), "/sys/fs/cgroup"),
        ("4:cpu:/a\n0::/b/c\n", V1 + MOUNT.format(root="/", point="/cg"), "/cg/b/c"),
        ("0::/docker/1/x\n", MOUNT.format(root="/docker/1", point="/cg"), "/cg/x"),
        ("0::/b\n", MOUNT.format(root="/", point="/a\\040b"), "/a b/b"),
        ("0::/docker/12\n", MOUNT.format(root="/docker/1", point="/cg"), None),
        ("0::/../b\n", MOUNT.format(root="/docker/1", point="/cg"), None),
        ("4:cpu:/a\n", V1, None),
        ("0::/\n", V1, None),
        ("", "", None),
    ],
)
def test_a_cgroup_is_found_below_what_is_mounted(
    cgroup: str, mounts: str, expected: str | None, tmp_path: Path
) -> None:
    found = cgroup_of("self", proc(tmp_path, cgroup, mounts))
    assert (None if found is None else str(found)) == expected


def test_where_nothing_is_mounted_there_is_none(tmp_path: Path) -> None:
    assert cgroup_of("self", tmp_path) is None


def test_a_hierarchy_that_does_not_hold_us_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = tmp_path / "cgroup"
    made_up.mkdir()
    (made_up / "cgroup.procs").write_text("1\n2\n")
    monkeypatch.setattr("crush_trio.tools.processes.cgroup.cgroup_of", lambda: made_up)
    assert make_server_cgroup(tmp_path) is None
    assert not (tmp_path / NOTE).exists()
    assert [path.name for path in made_up.iterdir()] == ["cgroup.procs"]


def test_a_directory_that_only_looks_like_a_cgroup_is_left_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = tmp_path / "cgroup"
    made_up.mkdir()
    (made_up / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr("crush_trio.tools.processes.cgroup.cgroup_of", lambda: made_up)
    assert make_server_cgroup(tmp_path) is None
    assert not (tmp_path / NOTE).exists()
    assert process_control(None) in ("subreaper", "process_group")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cgroup]:
    made = make_server_cgroup(tmp_path)
    if made is None:
        pytest.skip("no cgroup (version 2) can be made here")
    yield made
    made.kill()
    made.remove()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def enter(cgroup: Cgroup, process: subprocess.Popen[bytes]) -> None:
    (cgroup.path / "cgroup.procs").write_text(str(process.pid))


async def test_the_cgroup_of_a_dead_server_is_ended_and_removed_by_the_next_start(
    own: Cgroup, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    below = Cgroup(own.path / "1-2")
    below.path.mkdir()
    enter(below, sleeper)
    assert [one.pid for one in own.members()] == [sleeper.pid]
    assert own.has(sleeper.pid)
    assert not own.has(os.getpid())
    found = left_by_last_server(tmp_path)
    assert found == own
    assert await found.end() == ()
    assert sleeper.wait(5) == -15
    assert not own.path.exists()
    assert left_by_last_server(tmp_path) is None


def test_an_empty_cgroup_of_any_dead_server_is_removed_and_one_in_use_is_not(
    own: Cgroup, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    sibling = own.path.with_name
    dead, used = sibling("crush-trio-0123abcd-4194305-7"), sibling("crush-trio-0123abcd-4194306-7")
    foreign = sibling("crush-trio-notours")
    for path in (dead, used, foreign):
        path.mkdir()
    try:
        enter(Cgroup(used), sleeper)
        other = tmp_path / "other"
        other.mkdir()
        made = make_server_cgroup(other)
        assert made is not None
        assert made.remove()
        assert [path.exists() for path in (dead, used, foreign, own.path)] == [
            False,
            True,
            True,
            True,
        ]
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        for path in (dead, used, foreign):
            Cgroup(path).remove()


async def test_leaving_the_block_kills_what_is_left_and_removes_everything(
    tmp_path: Path,
) -> None:
    deaf = "trap '' TERM; echo; while :; do sleep 0.05; done"
    async with server_cgroup(tmp_path) as made:
        if made is None:
            pytest.skip("no cgroup (version 2) can be made here")
        assert process_control(made) == "cgroup"
        process = subprocess.Popen(["sh", "-c", deaf], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        enter(made, process)
    with process:
        assert process.wait(5) == -9
    assert not made.path.exists()
    assert not (tmp_path / NOTE).exists()


@pytest.mark.parametrize("name", ["user.slice", "crush-trio-00000000-1-2", "{own}x"])
def test_a_note_that_names_no_cgroup_of_this_directory_is_not_believed(
    name: str, own: Cgroup, tmp_path: Path
) -> None:
    other = own.path.with_name(name.format(own=own.path.name))
    other.mkdir()
    try:
        (tmp_path / NOTE).write_text(str(other))
        assert left_by_last_server(tmp_path) is None
    finally:
        other.rmdir()
