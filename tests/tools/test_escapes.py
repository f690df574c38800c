"""Commands that do not want to end with their run (G10), each several times, on real launchers.

Once with the subreaper alone, once inside a cgroup where this machine lets us make one.
"""

# ruff: noqa: ASYNC110
# Other processes have no event to wait for.

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from crush_trio.tools.processes.cgroup import Cgroup, server_cgroup
from crush_trio.tools.processes.launched import Launched
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from tests.tools.test_processes import env

Alive = Callable[[str], list[int]]
TIMES = 3


@attrs.frozen
class Escape:
    """A shell command. ``$N`` makes a long ``sleep $N`` recognisable, ``$READY`` is touched when
    it has done what it can to get away. ``by_cgroup`` marks what the subreaper alone cannot end.
    """

    command: str
    by_cgroup: bool = False


READY = 'touch "$READY"'
HOPPING = (
    "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').close()\n"
    "while True:\n    if os.fork(): os._exit(0)"
)
HOP = f"setsid {sys.executable} -I -S -c '{HOPPING.replace(chr(39), chr(34))}' \"$READY\" $N"
ESCAPES = {
    "ignores every signal it can": Escape(
        f'trap "" TERM INT HUP QUIT USR1 USR2 ALRM; {READY}; while :; do sleep $N; done'
    ),
    "double forks": Escape(f'((trap "" TERM; exec sleep $N) & {READY}) & exec sleep $N'),
    "makes a session of its own": Escape(
        f"setsid sh -c 'trap \"\" TERM; {READY}; sleep $N' & wait"
    ),
    "is started by nohup": Escape(f"nohup sh -c '{READY}; sleep $N' >/dev/null 2>&1 & wait"),
    "is disowned": Escape(f"set -m; sleep $N & disown -a; {READY}; sleep $N"),
    "holds stdout from a daemon": Escape(
        f"(setsid sh -c 'sleep $N & sleep $N & {READY}; wait' &) ; exec sleep $N"
    ),
    "clears its environment": Escape(f"(env -i setsid sleep $N &); {READY}; exec sleep $N"),
    "stops itself": Escape(f"setsid sleep $N & kill -STOP $!; {READY}; kill -STOP $$; sleep $N"),
    "stops its launcher": Escape(
        f'(trap "" TERM; setsid sleep $N &); kill -STOP $PPID; {READY}; wait'
    ),
    "forks while it is told to end": Escape(
        "trap \"(trap '' TERM; exec sleep $N) & (trap '' TERM; exec sleep $N) &\" TERM;"
        f" {READY}; while :; do sleep 0.05; done; : $N"
    ),
    "takes another name": Escape(f'(exec -a "[kworker/$N]" sleep 600 &); {READY}; exec sleep $N'),
    "leaves its directory and closes everything": Escape(
        f"cd /; {READY}; setsid sh -c 'exec 0<&- 1>&- 2>&-; sleep $N' & exec sleep $N"
    ),
    "kills its launcher, with an environment of nothing": Escape(
        f"(env -i setsid sleep $N &); {READY}; kill -9 $PPID; exec sleep $N", by_cgroup=True
    ),
    "is another process all the time": Escape(f"{HOP} & exec sleep $N", by_cgroup=True),
    "is another process all the time, and kills its launcher": Escape(
        f'env -i {HOP} & while ! test -e "$READY"; do sleep 0.01; done;'
        " kill -9 $PPID; exec sleep $N",
        by_cgroup=True,
    ),
    "makes a cgroup of its own": Escape(
        'g=$GROUPS_AT$(sed -n "s/^0:://p" /proc/self/cgroup); mkdir "$g/mine" &&'
        f' echo 0 >"$g/mine/cgroup.procs"; (trap "" TERM; setsid sleep $N &); {READY}; sleep $N',
        by_cgroup=True,
    ),
}


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


async def check(command: str, run: RunProcesses, alive_with: Alive, at: Path, **more: str) -> None:
    number = f"600.{secrets.randbelow(10**15):015}"
    readies = [at / f"ready-{n}" for n in range(TIMES)]
    async with trio.open_nursery() as nursery:
        for ready in readies:
            nursery.start_soon(partial(escape, run, command, number, ready, **more))
        with trio.fail_after(15):
            while not all(ready.exists() for ready in readies):
                await trio.sleep(0.01)
        report = await run.aclose()
        nursery.cancel_scope.cancel()
    assert alive_with(number) == []
    assert (report.started, report.left) == (TIMES, ())
    assert report.killed >= TIMES


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long TERM is waited for is tested elsewhere; here KILL has to follow."""
    monkeypatch.setattr("crush_trio.tools.processes.launched.KILL_GRACE_S", 0.3)


@pytest.mark.parametrize(
    "command",
    [pytest.param(one.command, id=name) for name, one in ESCAPES.items() if not one.by_cgroup],
)
async def test_no_command_outlives_its_run_under_the_subreaper(
    command: str, spill: SpillArea, alive_with: Alive, tmp_path: Path
) -> None:
    """G10."""
    await check(command, RunProcesses(spill), alive_with, tmp_path)


@pytest.mark.parametrize(
    "command", [pytest.param(one.command, id=name) for name, one in ESCAPES.items()]
)
async def test_no_command_outlives_its_run_in_a_cgroup(
    command: str, cgroup: Cgroup, spill: SpillArea, alive_with: Alive, tmp_path: Path
) -> None:
    run = RunProcesses(spill, cgroup=cgroup)
    at = str(cgroup.path.parent).removesuffix("/")
    await check(command, run, alive_with, tmp_path, GROUPS_AT=at)
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
