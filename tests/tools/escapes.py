"""Ways for a command to outlive its run, and how often, and how soon, each is ended (G10, T32).

``python -m tests.tools.escapes --times 100`` tries each form that often, ended by the run's end and
by a cancel, inside a cgroup where one can be made and under the subreaper alone, and prints how
long the ends took. It fails if anything is alive after its run.
"""

# ruff: noqa: ASYNC110, T201
# Other processes have no event to wait for; this is a command, too.

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import attrs
import trio

from crush_trio.protocol.runs import ProcessReport
from crush_trio.tools.processes.cgroup import Cgroup, server_cgroup
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea

ENDINGS = ("cancel", "end")
SIDE_BY_SIDE = 8  # forms that are tried at once


@attrs.frozen
class Escape:
    """A shell command. ``$N`` makes a long ``sleep $N`` recognisable, ``$READY`` is touched when
    it has done what it can to get away, ``$ABOVE`` is its launcher. ``by_cgroup`` marks what the
    subreaper alone cannot end, ``ends`` what a shell can leave behind and end.
    """

    command: str
    by_cgroup: bool = False
    ends: bool = True

    def line(self, ending: str) -> str:
        """The command of a call that goes on until it is cancelled, or leaves it behind."""
        if ending == "cancel":
            return f"export ABOVE=$PPID; {self.command}"
        waits = 'while ! test -e "$READY"; do sleep 0.02; done'
        return f'export ABOVE=$PPID FORM={shlex.quote(self.command)}; bash -c "$FORM" & {waits}'


READY = 'touch "$READY"'
HOPPING = (
    "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').close()\n"
    "while True:\n    if os.fork(): os._exit(0)"
)
HOP = f"setsid {sys.executable} -I -S -c '{HOPPING.replace(chr(39), chr(34))}' \"$READY\" $N"
ADOPTING = (  # what its children orphan becomes its own, not the launcher's
    "import ctypes, os, signal, sys, time; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
    "if not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
    "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(600)\n"
    'time.sleep(0.05); open(sys.argv[2], "w").close(); time.sleep(600)'
)
GROUPING = (
    'import os, sys, time; os.fork(); open(sys.argv[2], "w").close()\n'
    "while True:\n    os.setpgid(0, 0 if os.getpgid(0) != os.getpid() else os.getsid(0))\n"
    "    time.sleep(0.001)"
)
DAEMON = (
    "import os, signal, sys, time\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\nif os.fork(): os._exit(0)\n"
    'os.chdir("/"); os.umask(0); os.closerange(0, 1024)\n'
    "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
    "os.close(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)); time.sleep(600)"
)
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
        f'(trap "" TERM; setsid sleep $N &); kill -STOP $ABOVE; {READY}; wait', ends=False
    ),
    "forks while it is told to end": Escape(
        "trap \"(trap '' TERM; exec sleep $N) & (trap '' TERM; exec sleep $N) &\" TERM;"
        f" {READY}; while :; do sleep 0.05; done; : $N"
    ),
    "takes another name": Escape(f'(exec -a "[kworker/$N]" sleep 600 &); {READY}; exec sleep $N'),
    "leaves its directory and closes everything": Escape(
        f"cd /; {READY}; setsid sh -c 'exec 0<&- 1>&- 2>&-; sleep $N' & exec sleep $N"
    ),
    "adopts its own orphans": Escape(
        f"{sys.executable} -I -S -c '{ADOPTING}' $N \"$READY\" & exec sleep $N"
    ),
    "changes its process group all the time": Escape(
        f"{sys.executable} -I -S -c '{GROUPING}' $N \"$READY\" & exec sleep $N"
    ),
    "is a daemon in Python": Escape(
        f"{sys.executable} -I -S -c '{DAEMON}' $N \"$READY\"; exec sleep $N"
    ),
    "is in a background job of a background job": Escape(
        f"(( (trap '' TERM HUP; sleep $N) & trap '' HUP; sleep $N) & {READY}; sleep $N) & wait"
    ),
    "is in a PID namespace of its own": Escape(
        f"unshare --pid --fork sh -c 'trap \"\" TERM; sleep $N & {READY}; sleep $N' & wait"
    ),
    "kills its launcher, with an environment of nothing": Escape(
        f"(env -i setsid sleep $N &); {READY}; kill -9 $ABOVE; exec sleep $N", by_cgroup=True
    ),
    "is another process all the time": Escape(f"{HOP} & exec sleep $N", by_cgroup=True),
    "is another process all the time, and kills its launcher": Escape(
        f'env -i {HOP} & while ! test -e "$READY"; do sleep 0.01; done;'
        " kill -9 $ABOVE; exec sleep $N",
        by_cgroup=True,
    ),
    "makes a cgroup of its own": Escape(
        'g=$GROUPS_AT$(sed -n "s/^0:://p" /proc/self/cgroup); mkdir "$g/mine" &&'
        f' echo 0 >"$g/mine/cgroup.procs"; (trap "" TERM; setsid sleep $N &); {READY}; sleep $N',
        by_cgroup=True,
    ),
}


@attrs.define
class Tried:
    """What became of one form: how long the ends took, and what they did not end."""

    times_ms: list[float] = attrs.Factory(list)
    alive: int = 0
    left: int = 0


def alive_with(marker: str) -> list[int]:
    """Pids of live processes with a marker in their environment or command line."""
    wanted = marker.encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            state = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0]
            text = Path(f"/proc/{name}/cmdline").read_bytes()
            text += Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if wanted in text and state not in (b"Z", b"X"):
            found.append(int(name))
    return found


async def try_one(
    escape: Escape, ending: str, run: RunProcesses, at: Path, **env: str
) -> tuple[float, ProcessReport, list[int]]:
    """Start it in a run, let it do its worst, and end the run.

    Returns:
        The milliseconds from the cancel, or the shell's own end, to the run's; its report; and the
        pids of what is alive then.
    """
    number = f"600.{secrets.randbelow(10**15):015}"
    ready = at / f"ready-{number}"

    async def command() -> None:
        await run.run_shell(
            escape.line(ending),
            cwd=Path("/"),
            env={"PATH": os.environ["PATH"], "N": number, "READY": str(ready), **env},
            timeout_s=60,
            on_output=lambda stream, text: None,
            spill_name=number,
        )

    async with trio.open_nursery() as calls:
        calls.start_soon(command)
        with trio.fail_after(40):
            while not ready.exists():
                await trio.sleep(0.01)
        began = trio.current_time()
        if ending == "cancel":
            calls.cancel_scope.cancel()
    if ending == "end":
        began = trio.current_time()
    report = await run.aclose()
    took_ms = (trio.current_time() - began) * 1000
    ready.unlink()
    return took_ms, report, alive_with(number)


async def try_often(
    escape: Escape, ending: str, times: int, cgroup: Cgroup | None, at: Path
) -> Tried:
    """Try it ``times`` times, a few side by side."""
    tried = Tried()
    limiter = trio.CapacityLimiter(SIDE_BY_SIDE)
    env = {} if cgroup is None else {"GROUPS_AT": str(cgroup.path.parent).removesuffix("/")}

    async def once() -> None:
        async with limiter:
            run = RunProcesses(SpillArea(at / "spill"), cgroup=cgroup)
            took_ms, report, alive = await try_one(escape, ending, run, at, **env)
        tried.times_ms.append(took_ms)
        tried.alive += len(alive)
        tried.left += len(report.left)

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(once)
    return tried


async def measure(times: int, only: str) -> int:
    """Print a row for each form and ending; returns how many processes were alive in the end."""
    alive = 0
    with tempfile.TemporaryDirectory(prefix="crush-trio-escapes-") as folder:
        async with server_cgroup(Path(folder)) as cgroup:
            if cgroup is None:
                print("no cgroup can be made here: the subreaper alone", flush=True)
            print("kept by    ended by times alive  median     max  form")
            for group in (None, *([cgroup] if cgroup is not None else [])):
                for name, escape in ESCAPES.items():
                    if only in name and (group is not None or not escape.by_cgroup):
                        for ending in ENDINGS if escape.ends else ENDINGS[:1]:
                            tried = await try_often(escape, ending, times, group, Path(folder))
                            alive += tried.alive + tried.left
                            how = "subreaper" if group is None else "cgroup"
                            print(
                                f"{how:10} {ending:8} {times:5} {tried.alive:5}"
                                f" {statistics.median(tried.times_ms):7.0f}"
                                f" {max(tried.times_ms):7.0f}  {name}",
                                flush=True,
                            )
    return alive


def main() -> None:
    """Try what the arguments say; exit 1 if anything outlived its run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="each form, for each ending")
    parser.add_argument("--only", default="", help="forms with this in their name")
    args = parser.parse_args()
    alive = trio.run(measure, args.times, args.only)
    print(f"alive after their run: {alive}")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
