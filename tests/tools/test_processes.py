"""What becomes of a tool's processes (G10): real shells that do not want to end."""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC230, ASYNC240
# A test may block for a moment, and other processes have no event to wait for.

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from crush_trio.agent.ports import ShellResult
from crush_trio.limits import (
    KILL_GRACE_S,
    KILL_TOTAL_S,
    SPILL_CALL_BYTES,
    TOOL_OUTPUT_COLUMNS,
    TOOL_OUTPUT_LIVE_BYTES,
)
from crush_trio.protocol.runs import LeftProcess
from crush_trio.tools.processes import process_table
from crush_trio.tools.processes.recorded import kill_recorded
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea

Alive = Callable[[str], list[int]]


def env(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


async def sh(
    processes: RunProcesses, command: str, timeout_s: float = 20, **more: Any
) -> ShellResult:
    options: dict[str, Any] = {
        "cwd": Path("/"),
        "env": env(),
        "timeout_s": timeout_s,
        "on_output": lambda stream, text: None,
        "spill_name": "call",
    }
    return await processes.run_shell(command, **{**options, **more})


async def until_file(path: Path) -> None:
    with trio.fail_after(10):
        while not path.exists():
            await trio.sleep(0.01)


def marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


HOSTILE = {
    "ignores TERM and INT": 'trap "" TERM INT HUP; touch "$READY"; while :; do sleep 0.1; done',
    "double forks into its own session": (
        '(setsid sh -c \'(trap "" TERM; touch "$READY"; exec sleep 600) & exit 0\' & exit 0); wait;'
        " sleep 600"
    ),
    "holds stdout open from a daemon": (
        "setsid sh -c 'sleep 600 & sleep 600 & touch \"$READY\"; wait' & exec sleep 600"
    ),
    "stops itself": 'touch "$READY"; kill -STOP $$; sleep 600',
    "stops its launcher": 'kill -STOP $PPID; touch "$READY"; sleep 600',
    "prints for ever": 'touch "$READY"; exec yes',
    "forks while it is being killed": (
        "trap \"(trap '' TERM; sleep 600) & (trap '' TERM; sleep 600) &\" TERM; touch \"$READY\";"
        " while :; do sleep 0.05; done"
    ),
}


@pytest.mark.parametrize("command", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_cancelled_command_takes_its_whole_tree_with_it_within_three_seconds(
    command: str, processes: RunProcesses, tmp_path: Path, alive_with: Alive
) -> None:
    mark, ready = marker(), tmp_path / "ready"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: sh(processes, command, env=env(MARK=mark, READY=str(ready)), timeout_s=60)
        )
        await until_file(ready)
        assert alive_with(mark)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < KILL_TOTAL_S + 0.3
    assert alive_with(mark) == []
    report = await processes.aclose()
    assert (report.started, report.left) == (1, ())
    assert report.killed > 0


async def test_a_command_ends_with_its_shell_and_not_with_its_pipes(
    processes: RunProcesses, alive_with: Alive
) -> None:
    mark = marker()
    with trio.fail_after(5):
        result = await sh(processes, "sleep 600 & echo done", env=env(MARK=mark))
    assert (result.exit_code, result.stdout, result.still_running) == (0, "done\n", 1)
    assert alive_with(mark), "a background process lives until the run ends"
    assert len(processes.live()) == 1
    report = await processes.aclose()
    assert (report.started, report.killed, report.left) == (1, 1, ())
    assert alive_with(mark) == []


async def test_a_background_process_may_go_on_writing_after_its_call(
    processes: RunProcesses, tmp_path: Path
) -> None:
    """Neither a broken pipe nor a full one stops it."""
    done = tmp_path / "done"
    command = f"(head -c 1000000 /dev/zero; sleep 0.1; echo late && touch {done}) & exit 0"
    await sh(processes, command)
    await until_file(done)


async def test_everything_the_shell_wrote_before_it_exited_is_in_the_result(
    processes: RunProcesses,
) -> None:
    result = await sh(processes, "echo out; echo err >&2; printf last; exit 7")
    expected = ShellResult(7, "out\nlast", "err\n", total=12)
    assert attrs.evolve(result, started_ms=0, ended_ms=0) == expected
    assert 0 < result.started_ms <= result.ended_ms


@pytest.mark.parametrize(("command", "code"), [("kill -9 $$", 137), ("kill -TERM $$", 143)])
async def test_a_shell_ended_by_a_signal_has_the_code_a_shell_would_say(
    command: str, code: int, processes: RunProcesses
) -> None:
    assert (await sh(processes, command)).exit_code == code


async def test_a_program_that_does_not_exist_is_127(processes: RunProcesses) -> None:
    result = await processes.run_argv(
        ("/nowhere/program",),
        cwd=Path("/"),
        env=env(),
        timeout_s=5,
        on_output=lambda stream, text: None,
        spill_name="x",
    )
    assert (result.exit_code, result.stderr) == (127, "/nowhere/program: not found\n")


async def test_a_missing_directory_is_an_error_and_leaves_nothing_open(
    processes: RunProcesses,
) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        await sh(processes, "true", cwd=Path("/nowhere"))
    assert os.listdir("/proc/self/fd") == before


async def test_at_the_time_limit_the_tree_is_ended_and_the_result_says_so(
    processes: RunProcesses, alive_with: Alive
) -> None:
    mark = marker()
    command = "echo before; (setsid sleep 600 &) ; trap 'echo bye; exit' TERM; sleep 600 & wait"
    result = await sh(processes, command, timeout_s=0.5, env=env(MARK=mark))
    assert (result.exit_code, result.timed_out, result.stdout) == (None, True, "before\nbye\n")
    assert alive_with(mark) == []
    assert processes.live() == ()


async def test_200_megabytes_of_output_cost_bounded_memory_and_a_bounded_file(
    processes: RunProcesses, spill: SpillArea
) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shown = 0

    def count(stream: str, text: str) -> None:
        nonlocal shown
        shown += len(text)

    command = "echo first; head -c 200000000 /dev/zero | tr '\\0' 'x'; echo; echo last"
    result = await sh(processes, command, on_output=count)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 32 * 1024
    assert result.stdout.startswith("first\nxxx")
    assert result.stdout.endswith("xxx\nlast\n")
    assert f"[{result.stdout_dropped} bytes dropped]" in result.stdout
    assert shown <= TOOL_OUTPUT_LIVE_BYTES
    assert result.spill_path is not None
    path = Path(result.spill_path)
    found = path.stat()
    assert (path.parent, found.st_mode & 0o777) == (spill.directory, 0o600)
    assert SPILL_CALL_BYTES <= found.st_size <= SPILL_CALL_BYTES + 100
    with path.open("rb") as file:
        assert file.read(9) == b"first\nxxx"
        file.seek(-8, os.SEEK_END)
        assert file.read() == b"xx\nlast\n"


async def test_small_output_creates_no_file(processes: RunProcesses, spill: SpillArea) -> None:
    result = await sh(processes, f"head -c {TOOL_OUTPUT_COLUMNS} /dev/zero")
    assert result.spill_path is None
    assert len(result.stdout) == TOOL_OUTPUT_COLUMNS
    assert not spill.directory.exists()


async def test_the_file_of_a_cancelled_call_is_removed(
    processes: RunProcesses, spill: SpillArea
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sh, processes, "head -c 1000000 /dev/zero; sleep 600")
        with trio.fail_after(10):
            while not (spill.directory.exists() and any(spill.directory.iterdir())):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert list(spill.directory.iterdir()) == []


async def test_characters_cut_between_two_reads_come_out_whole(processes: RunProcesses) -> None:
    shown: list[str] = []
    command = r"printf '\303'; sleep 0.2; printf '\251 \377 \360\237'; exit 0"
    result = await sh(processes, command, on_output=lambda stream, text: shown.append(text))
    assert result.stdout == "é � �"
    assert "".join(shown) == "é � �"
    assert shown[0].startswith("é"), "half a character is not shown"


async def test_a_command_sees_exactly_its_environment_and_an_empty_stdin(
    processes: RunProcesses,
) -> None:
    command = (
        "cat; ls -l /proc/self/fd | wc -l; env -u _ -u SHLVL -u PWD -u OLDPWD | cut -d= -f1 | sort"
    )
    result = await sh(processes, command, env=env(ONE="1"))
    names = result.stdout.split()
    assert names[1:] == ["CRUSH_TRIO_LAUNCHER", "ONE", "PATH"]
    assert int(names[0]) == 5, (
        "total line, 0, 1, 2 and the listing's own: nothing else is inherited"
    )


async def test_a_command_that_kills_its_launcher_is_ended_all_the_same(
    processes: RunProcesses, alive_with: Alive
) -> None:
    mark = marker()
    with trio.fail_after(5):
        result = await sh(
            processes, "setsid sleep 600 & kill -9 $PPID; sleep 600", env=env(MARK=mark)
        )
    assert (result.exit_code, result.timed_out) == (137, False)
    assert "watched over this command was killed" in result.stderr
    assert alive_with(mark) == []


async def test_closing_ends_a_call_in_flight_and_refuses_new_ones(
    processes: RunProcesses, tmp_path: Path
) -> None:
    results = []

    async def call() -> None:
        command = f"touch {tmp_path}/ready; exec sleep 600"
        results.append(await sh(processes, command))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await until_file(tmp_path / "ready")
        first = await processes.aclose()
    assert [result.exit_code for result in results] == [143]
    assert await processes.aclose() == first
    with pytest.raises(trio.ClosedResourceError):
        await sh(processes, "true")


async def test_many_calls_side_by_side_are_all_closed_in_the_time_of_one(spill: SpillArea) -> None:
    run = RunProcesses(spill)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(sh, run, "(trap '' TERM; while :; do sleep 0.5; done) & echo x")
    assert len(run.live()) == 8
    began = trio.current_time()
    report = await run.aclose()
    assert trio.current_time() - began < KILL_TOTAL_S + 0.3
    assert (report.started, report.left) == (8, ())


async def test_a_cancelled_call_takes_what_earlier_calls_left_along_in_the_time_of_one(
    spill: SpillArea, tmp_path: Path
) -> None:
    run = RunProcesses(spill)
    stubborn = "trap '' TERM; touch {}; while :; do sleep 0.1; done"
    left = stubborn.format(tmp_path / "left")
    await sh(run, f"({left}) & while [ ! -e {tmp_path}/left ]; do sleep 0.01; done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sh, run, stubborn.format(tmp_path / "ready"))
        await until_file(tmp_path / "ready")
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    report = await run.aclose()
    assert trio.current_time() - began < KILL_TOTAL_S + 0.3
    assert (report.started, report.left) == (2, ())


async def test_what_is_live_is_announced_when_it_begins_and_when_it_ends(spill: SpillArea) -> None:
    seen: list[tuple[LeftProcess, ...]] = []
    run = RunProcesses(spill, seen.append)
    await sh(run, "true")
    assert [len(live) for live in seen] == [1, 0]
    assert seen[0][0].started not in ("", "?")


SERVER = """
import sys, trio
from pathlib import Path
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea

async def main():
    run = RunProcesses(SpillArea(Path(sys.argv[1]) / "spill"), on_live=record)
    async def one(command):
        env = {"PATH": "/usr/bin:/bin", "MARK": sys.argv[2]}
        await run.run_shell(command, cwd=Path("/"), env=env, timeout_s=60,
            on_output=lambda s, t: None, spill_name="x")
    async with trio.open_nursery() as nursery:
        for command in sys.argv[3:]:
            nursery.start_soon(one, command)

def record(live):
    text = "".join(f"{p.pid} {p.started}\\n" for p in live)
    Path(sys.argv[1], "live").write_text(text)

trio.run(main)
"""


def simulated_server(tmp_path: Path, mark: str, *commands: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path), mark, *commands], start_new_session=True
    )


async def gone(alive_with: Alive, mark: str, within_s: float) -> bool:
    with trio.move_on_after(within_s):
        while alive_with(mark):
            await trio.sleep(0.05)
        return True
    return False


async def test_a_server_that_dies_by_sigkill_takes_its_tool_processes_with_it(
    tmp_path: Path, alive_with: Alive
) -> None:
    mark = marker()
    server = simulated_server(
        tmp_path,
        mark,
        f"trap '' TERM INT HUP; touch {tmp_path}/a; while :; do sleep 0.1; done",
        f"(setsid sh -c 'sleep 600 & touch {tmp_path}/b; wait' &) ; sleep 600",
    )
    await until_file(tmp_path / "a")
    await until_file(tmp_path / "b")
    server.kill()
    await trio.to_thread.run_sync(server.wait)
    assert await gone(alive_with, mark, KILL_TOTAL_S + 1)


async def test_recovery_ends_what_a_dead_server_and_its_dead_launcher_left(
    tmp_path: Path, alive_with: Alive
) -> None:
    mark = marker()
    server = simulated_server(tmp_path, mark, f"setsid sleep 600 & touch {tmp_path}/a; sleep 600")
    await until_file(tmp_path / "a")
    pid, started = (tmp_path / "live").read_text().split()
    os.kill(int(pid), signal.SIGSTOP)  # so that it cannot obey when the server is gone
    server.kill()
    await trio.to_thread.run_sync(server.wait)
    os.kill(int(pid), signal.SIGKILL)
    with trio.fail_after(5):
        while process_table.start_time(int(pid)) is not None:
            await trio.sleep(0.01)
    assert alive_with(mark), "orphans of both"
    report = await kill_recorded([LeftProcess(int(pid), started, "launcher")])
    assert report.left == ()
    assert report.killed >= 2
    assert alive_with(mark) == []


async def test_recovery_ends_a_launcher_that_was_stopped(tmp_path: Path, alive_with: Alive) -> None:
    mark = marker()
    command = f"kill -STOP $PPID; touch {tmp_path}/a; sleep 600"
    server = simulated_server(tmp_path, mark, command)
    await until_file(tmp_path / "a")
    pid, started = (tmp_path / "live").read_text().split()
    server.kill()
    await trio.to_thread.run_sync(server.wait)
    assert alive_with(mark)
    began = trio.current_time()
    report = await kill_recorded([LeftProcess(int(pid), started, "launcher")])
    assert trio.current_time() - began < KILL_GRACE_S, "it went on, and obeyed"
    assert report.left == ()
    assert alive_with(mark) == []


async def test_recovery_does_not_touch_another_process_with_the_same_pid() -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        true_start = process_table.start_time(stranger.pid)
        assert true_start is not None
        ticks, _, boot = true_start.partition("@")
        for wrong in (f"{int(ticks) + 1}@{boot}", f"{ticks}@another-boot", "", "?"):
            report = await kill_recorded([LeftProcess(stranger.pid, wrong, "sleep")])
            assert (report.killed, report.left) == (0, ())
            assert stranger.poll() is None
        report = await kill_recorded([LeftProcess(stranger.pid, true_start, "sleep")])
        assert (report.started, report.killed, report.left) == (1, 1, ())
        assert stranger.wait(5) == -signal.SIGTERM
    finally:
        stranger.kill()
        stranger.wait()


def test_a_signal_is_for_one_process_and_not_for_its_pid() -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        until = time.monotonic() + 5
        one = process_table.describe(process.pid)
        while one is None or "sleep 600" not in one.command:  # it is becoming sleep just now
            assert time.monotonic() < until
            one = process_table.describe(process.pid)
        other = attrs.evolve(one, started=f"1{one.started}")
        assert not process_table.send(other, signal.SIGKILL)
        assert process.poll() is None
        assert process_table.send(one, signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL
        assert process_table.describe(process.pid) is None
        assert not process_table.send(one, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def test_ancestors_lead_from_a_tool_to_this_process() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        inner = int(child.stdout.readline())
        assert process_table.ancestors(inner)[:2] == (child.pid, os.getpid())
        below = {one.pid for one in process_table.descendants(os.getpid())}
        assert {inner, child.pid} <= below
        os.kill(inner, signal.SIGKILL)
    finally:
        child.wait()
        child.stdout.close()


def test_the_launcher_does_nothing_when_it_is_imported() -> None:
    code = "import runpy, json; runpy.run_path(__import__('sys').argv[1]); print(json.dumps(1))"
    path = Path(process_table.__file__).with_name("launcher.py")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=20)
    assert json.loads(done.stdout) == 1
