"""Explores schedules on all cores, prints what was explored, and how to repeat what broke."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.explore.runner import Explorer, Failure, Tally, exploring
from tests.explore.scenarios import SCENARIOS
from tests.explore.strategies import NAMES

CHUNK = 20  # schedules that one process runs before it reports
FAILURES_MAX = 3  # then the exploration stops: the rest would be more of the same


@attrs.frozen
class Work:
    """Some schedules of one scenario and strategy."""

    scenario: str
    strategy: str
    first: int
    count: int
    seed: int


@attrs.define
class Done:
    """What came of it."""

    work: Work
    tally: Tally
    failure: Failure | None = None


_explorer: Explorer | None = None
_for_good = ExitStack()
_reported: set[tuple[str, str]] = set()


def _begin(crash_every: int) -> None:
    global _explorer
    _explorer = _for_good.enter_context(exploring(crash_every))  # until this process ends


def _explore(work: Work) -> Done:
    assert _explorer is not None
    scenario = SCENARIOS[work.scenario]
    done = Done(work, Tally())
    began = time.process_time()
    for number in range(work.first, work.first + work.count):
        failure = _explorer.seeded(scenario, work.strategy, number, done.tally, seed=work.seed)
        if failure is not None:
            fresh = (failure.scenario, failure.rule) not in _reported
            _reported.add((failure.scenario, failure.rule))
            done.failure = _explorer.shrunk(failure) if fresh else failure
            break
    done.tally.seconds = time.process_time() - began
    return done


def _work(args: argparse.Namespace) -> Iterator[Work]:
    """Chunks of everything that was asked for, all scenarios in turn."""
    pairs = list(itertools.product(args.scenario or SCENARIOS, args.strategy or NAMES))
    each = -(-args.schedules // len(pairs)) if args.schedules else sys.maxsize
    for first in itertools.count(0, CHUNK):
        if first >= each:
            return
        for scenario, strategy in pairs:
            yield Work(scenario, strategy, first, min(CHUNK, each - first), args.seed)


def explore(args: argparse.Namespace) -> int:
    """Run everything; the exit code."""
    began = time.monotonic()
    until = began + args.seconds if args.seconds else float("inf")
    table: dict[tuple[str, str], Tally] = {}
    failures: list[Failure] = []
    work = _work(args)
    with ProcessPoolExecutor(args.jobs, initializer=_begin, initargs=(args.crash_every,)) as pool:
        running: set[Future[Done]] = set()
        while True:
            while len(running) < 2 * args.jobs and time.monotonic() < until:
                item = next(work, None)
                if item is None or len(failures) >= FAILURES_MAX:
                    break
                running.add(pool.submit(_explore, item))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done = future.result()
                _add(table.setdefault((done.work.scenario, done.work.strategy), Tally()), done)
                if done.failure is not None:
                    failures.append(done.failure)
                    _report(done.failure)
    _print_table(table, time.monotonic() - began)
    return 1 if failures else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _add(tally: Tally, done: Done) -> None:
    tally.schedules += done.tally.schedules
    tally.crashes += done.tally.crashes
    tally.states += done.tally.states
    tally.traces |= done.tally.traces
    tally.seconds += done.tally.seconds
    tally.violations += done.failure is not None


def _report(failure: Failure) -> None:
    for wrong in failure.wrongs:
        _say(f"VIOLATION in {failure.scenario}: {wrong}")
    _say(f"  scripts/explore --replay '{failure.replay}'")


def _print_table(table: dict[tuple[str, str], Tally], seconds: float) -> None:
    head = ("scenario", "strategy", "schedules", "distinct", "commits", "restarts", "bad", "per s")
    _say("{:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>4} {:>6}".format(*head))
    whole = Tally()
    for (scenario, strategy), tally in sorted(table.items()):
        _say(
            f"{scenario:<18} {strategy:<9} {tally.schedules:>9} {len(tally.traces):>9} "
            f"{tally.states:>9} {tally.crashes:>9} {tally.violations:>4} "
            f"{tally.schedules / max(tally.seconds, 1e-9):>6.0f}"
        )
        whole.schedules += tally.schedules
        whole.crashes += tally.crashes
        whole.states += tally.states
        whole.violations += tally.violations
    _say(
        f"{whole.schedules} schedules in {seconds:.0f} s "
        f"({whole.schedules / max(seconds, 1e-9):.0f}/s), {whole.states} commits looked at as "
        f"crash points, {whole.crashes} different restarts tried, {whole.violations} violations"
    )


def replay(what: str) -> int:
    """One recorded schedule, with the task of each of its steps."""
    line = Path(what).read_text(encoding="utf-8") if "@" not in what else what
    trace: list[str] = []
    with exploring() as explorer:
        failure = explorer.replayed(line, trace)
    for task, steps in itertools.groupby(trace):
        _say(f"{len(list(steps)):>4} x {task}")
    if failure is None:
        _say("nothing is wrong with this schedule")
        return 0
    _report(failure)
    return 1


def main() -> int:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(prog="scripts/explore", description=__doc__)
    parser.add_argument("--schedules", type=int, default=0, help="in all (default: a million)")
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS))
    parser.add_argument("--strategy", action="append", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0, help="another one gives other schedules")
    parser.add_argument(
        "--crash-every",
        type=int,
        default=8,
        help="all commits of every N-th schedule are crash points; 1 is thorough, 0 none",
    )
    parser.add_argument("--replay", metavar="LINE", help="repeat a schedule: a line, or its file")
    args = parser.parse_args()
    if args.replay:
        return replay(args.replay)
    if not args.schedules and not args.seconds:
        args.schedules = 1_000_000
    return explore(args)


if __name__ == "__main__":
    sys.exit(main())
