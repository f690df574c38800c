"""Runs schedules of a scenario, checks each, and makes a failing one as short as it can be."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.explore.checks import check_promises, check_tables
from tests.explore.crashes import CrashChecker
from tests.explore.engine import Choices, Hang, Strategy, run_schedule
from tests.explore.isolation import isolated, start_over
from tests.explore.scenarios import SCENARIOS, Scenario
from tests.explore.strategies import Recorded, make, read, written
from tests.explore.world import Explored, Template, make_template

SHRINK_TRIES = 200


@attrs.frozen
class Failure:
    """A schedule that broke a rule, and the line that repeats it."""

    scenario: str
    picks: dict[int, int]
    wrongs: tuple[str, ...]

    @property
    def rule(self) -> str:
        """Which rule it broke."""
        return self.wrongs[0].split(":")[0]

    @property
    def replay(self) -> str:
        """What ``scripts/explore --replay`` takes."""
        return f"{self.scenario}@{written(self.picks)}"


@attrs.define
class Tally:
    """What was explored of one scenario with one strategy."""

    schedules: int = 0
    crashes: int = 0
    states: int = 0
    traces: set[int] = attrs.field(factory=set)
    seconds: float = 0.0
    violations: int = 0


@attrs.define(eq=False)
class Explorer:
    """Runs one schedule after another over the same first database.

    ``crash_every``: of how many schedules one has all its commits checked as crash points; 0
    for none.
    """

    template: Template
    crash_every: int = 1
    crash: CrashChecker = attrs.field(init=False)
    _lengths: dict[str, int] = attrs.field(factory=dict, init=False)
    _since_collected: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.crash = CrashChecker(self.template)

    def one(
        self,
        scenario: Scenario,
        strategy: Strategy,
        tally: Tally | None = None,
        *,
        crashes: bool = True,
        trace: list[str] | None = None,
    ) -> Failure | None:
        """One schedule, checked; how it failed, if it did."""
        self._since_collected += 1
        if self._since_collected >= 100:  # looking for garbage at every step costs a fifth
            self._since_collected = 0
            gc.collect()
        choices = Choices(strategy)
        choices.trace = trace
        w, wrongs = self._played(scenario, choices, keep=crashes and scenario.crash)
        if not wrongs:
            wrongs += check_promises(w.ledger, w.disk.tables)
            wrongs += check_tables(w.disk.tables, self.template.workspace_id, whole=scenario.whole)
        if not wrongs and w.keep_states:
            wrongs += self.crash.check(w, scenario, tally)
        if tally is not None:
            tally.schedules += 1
            tally.traces.add(hash(tuple(sorted(choices.picks.items()))))
        if not wrongs:
            return None
        return Failure(scenario.name, dict(choices.picks), tuple(dict.fromkeys(wrongs)))

    def _played(
        self, scenario: Scenario, choices: Choices, *, keep: bool = False
    ) -> tuple[Explored, list[str]]:
        start_over()
        w = Explored(choices, self.template, options=scenario.options, keep_states=keep)

        async def main(chosen: Choices) -> None:
            async with w.opened():
                chosen.arm()
                await scenario.script(w)

        try:
            run_schedule(main, choices)
        except Hang as exc:
            return w, [*w.ledger.wrongs, f"I6: {exc}"]
        except Exception as exc:
            return w, [*w.ledger.wrongs, f"I35: {_named(exc)}"]
        return w, []

    def seeded(
        self,
        scenario: Scenario,
        strategy: str,
        number: int,
        tally: Tally | None = None,
        *,
        seed: int = 0,
    ) -> Failure | None:
        """The ``number``-th schedule of a strategy; another ``seed`` gives other ones."""
        crashes = bool(self.crash_every) and number % self.crash_every == 0
        chance = f"{seed} {scenario.name} {strategy} {number}"
        made = make(strategy, chance, self._length(scenario))
        return self.one(scenario, made, tally, crashes=crashes)

    def _length(self, scenario: Scenario) -> int:
        """How many choices a schedule of this scenario has, more or less."""
        if scenario.name not in self._lengths:
            choices = Choices(Recorded({}))
            self._played(scenario, choices)
            self._lengths[scenario.name] = choices.made
        return self._lengths[scenario.name]

    def replayed(self, line: str, trace: list[str] | None = None) -> Failure | None:
        """A schedule that failed, once more; ``trace`` gets the task of every step."""
        name, _, picks = line.strip().partition("@")
        return self.one(SCENARIOS[name], Recorded(read(picks)), trace=trace)

    def shrunk(self, failure: Failure) -> Failure:
        """The same rule broken with fewer choices; bounded by `SHRINK_TRIES`."""
        tries = itertools.count()
        best = failure
        size = max(len(best.picks) // 2, 1)
        while size and next(tries) < SHRINK_TRIES:
            for fewer in _without(best.picks, size):
                if next(tries) >= SHRINK_TRIES:
                    break
                found = self.one(SCENARIOS[best.scenario], Recorded(fewer))
                if found is None or found.rule != failure.rule:
                    continue
                if len(found.picks) < len(best.picks):
                    best = found
                    break
            else:
                size //= 2
        return best


def _without(picks: dict[int, int], size: int) -> Iterator[dict[int, int]]:
    """The picks with each run of ``size`` of them left out."""
    items = sorted(picks.items())
    for at in range(0, len(items), size):
        yield dict(items[:at] + items[at + size :])


def _named(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    cause = f" from {exc.__cause__!r}" if exc.__cause__ is not None else ""
    return f"{exc!r}{cause}"


@contextmanager
def exploring(crash_every: int = 1) -> Iterator[Explorer]:
    """An explorer, with the package isolated for as long as the block lasts."""
    with isolated():
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            yield Explorer(make_template(), crash_every)
        finally:
            gc.enable()
            gc.unfreeze()
