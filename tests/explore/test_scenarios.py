"""Every scenario with every strategy, a few schedules each; `scripts/explore` runs many more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.explore.runner import Explorer, Tally, exploring
from tests.explore.scenarios import SCENARIOS
from tests.explore.strategies import NAMES

SCHEDULES = 4  # of each scenario and strategy: seconds, not minutes


@pytest.fixture(scope="module")
def explorer() -> Iterator[Explorer]:
    """All commits of every fourth schedule are crash points."""
    with exploring(crash_every=4) as made:
        yield made


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_guarantee_holds_in_every_schedule(explorer: Explorer, name: str) -> None:
    """I1-I13, I17-I22 and I31, as far as they can be seen here; see docs/reliability.md."""
    for strategy in NAMES:
        tally = Tally()
        for number in range(SCHEDULES):
            failure = explorer.seeded(SCENARIOS[name], strategy, number, tally)
            assert failure is None, f"{failure.wrongs}\nscripts/explore --replay '{failure.replay}'"
        assert tally.schedules == SCHEDULES


def test_a_schedule_is_repeated_by_its_picks(explorer: Explorer) -> None:
    """Trace and picks: what is printed for a failure is enough."""
    from tests.explore.engine import Choices
    from tests.explore.strategies import Recorded, make

    scenario = SCENARIOS["steer_cancel"]
    first = Choices(make("walk", "7", 100))
    first.trace = []
    explorer._played(scenario, first)
    again = Choices(Recorded(first.picks))
    again.trace = []
    explorer._played(scenario, again)
    assert [step.partition("#")[0] for step in again.trace] == [
        step.partition("#")[0] for step in first.trace
    ]
