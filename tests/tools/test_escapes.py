"""Commands that do not want to end with their run (G10), ended in two ways, on real launchers.

Once with the subreaper alone, once inside a cgroup where this machine lets us make one.
"""

# ruff: noqa: ASYNC110
# Other processes have no event to wait for.

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio.tools.processes import process_table
from crush_trio.tools.processes.cgroup import Cgroup, server_cgroup
from crush_trio.tools.processes.launched import Launched
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from tests.tools.escapes import ENDINGS, ESCAPES, Escape, try_one
from tests.tools.test_processes import env

READY = 'touch "$READY"'
TIMES = 3


@pytest.fixture
async def cgroup(tmp_path: Path) -> AsyncIterator[Cgroup]:
    async with server_cgroup(tmp_path) as made:
        if made is None:
            pytest.skip("no cgroup (version 2) can be made here")
        yield made


async def escape(run: RunProcesses, command: str, number: str, ready: Path, **more: str) -> None:
    await run.run_shell(
        command,
        cwd=Path("/"),
        env=env(N=number, READY=str(ready), **more),
        timeout_s=60,
        on_output=lambda stream, text: None,
        spill_name="call",
    )


async def check(escape: Escape, spill: SpillArea, at: Path, cgroup: Cgroup | None = None) -> None:
    """By a cancel and by the run's own end, side by side."""
    env = {} if cgroup is None else {"GROUPS_AT": str(cgroup.path.parent).removesuffix("/")}

    async def once(ending: str) -> None:
        run = RunProcesses(spill, cgroup=cgroup)
        _, report, alive = await try_one(escape, ending, run, at, **env)
        assert alive == []
        assert (report.started, report.left) == (1, ())
        assert report.killed > 0

    async with trio.open_nursery() as nursery:
        for ending in ENDINGS if escape.ends else ENDINGS[:1]:
            nursery.start_soon(once, ending)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long TERM is waited for is tested elsewhere; here KILL has to follow."""
    monkeypatch.setattr("crush_trio.tools.processes.launched.KILL_GRACE_S", 0.3)


@pytest.mark.parametrize("form", [name for name, one in ESCAPES.items() if not one.by_cgroup])
async def test_no_command_outlives_its_run_under_the_subreaper(
    form: str, spill: SpillArea, tmp_path: Path
) -> None:
    """G10, T32."""
    await check(ESCAPES[form], spill, tmp_path)


@pytest.mark.parametrize("form", ESCAPES)
async def test_no_command_outlives_its_run_in_a_cgroup(
    form: str, cgroup: Cgroup, spill: SpillArea, tmp_path: Path
) -> None:
    """G10, T32."""
    await check(ESCAPES[form], spill, tmp_path, cgroup)
    assert [entry.name for entry in cgroup.path.iterdir() if entry.is_dir()] == []


async def test_what_nothing_but_the_cgroup_finds_is_counted_among_the_killed(
    cgroup: Cgroup, spill: SpillArea, tmp_path: Path
) -> None:
    run = RunProcesses(spill, cgroup=cgroup)
    ready = tmp_path / "ready"
    command = f"(env -i setsid sleep $N &); {READY}; kill -9 $PPID; exec sleep $N"
    await escape(run, command, "600", ready)
    report = await run.aclose()
    assert (report.killed, report.left) == (2, ())


async def test_two_who_end_a_command_at_once_end_it_once_and_count_it_once(
    cgroup: Cgroup, spill: SpillArea, tmp_path: Path
) -> None:
    """Its call notices that the launcher is gone just when its run ends."""
    for n in range(TIMES):
        launched = await Launched.start(
            ("sh", "-c", f"env -i setsid sleep 600 & {READY}; kill -9 $PPID; exec sleep 600"),
            Path("/"),
            env(READY=str(tmp_path / f"ready-{n}")),
            cgroup,
        )
        counts: list[int] = []

        async def end(launched: Launched = launched, counts: list[int] = counts) -> None:
            await launched.end()
            counts.append(launched.killed)

        await launched.wait_shell()  # the launcher is gone
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            nursery.start_soon(end)
        launched.hand_over_output()
        assert counts == [2, 2]


async def test_a_launcher_that_was_killed_before_it_was_looked_at_leaves_nothing_behind(
    cgroup: Cgroup, spill: SpillArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a command can be faster than the server that started it (T32)."""
    real = trio.lowlevel.open_process

    async def slow(*args: Any, **more: Any) -> trio.Process:
        process = await real(*args, **more)
        with trio.fail_after(10):
            while process_table.start_time(process.pid) is not None:
                await trio.sleep(0.005)
        return process

    monkeypatch.setattr("trio.lowlevel.open_process", slow)
    run = RunProcesses(spill, cgroup=cgroup)
    form = ESCAPES["kills its launcher, with an environment of nothing"]
    _, report, alive = await try_one(form, "end", run, tmp_path)
    assert (alive, report.left) == ([], ())
    assert report.killed >= 2
