"""The explorer itself: it repeats what it did, ends what hangs, and makes a failure short."""

from __future__ import annotations

import random

import pytest
import trio

from tests.explore import engine
from tests.explore.engine import Choices, Hang, run_schedule
from tests.explore.strategies import NAMES, Recorded, Walk, make, read, written


async def _three(choices: Choices) -> None:
    """Three tasks that talk to each other through an event, a lock and a clock."""
    choices.arm()
    lock, event = trio.Lock(), trio.Event()

    async def one() -> None:
        async with lock:
            await trio.lowlevel.checkpoint()
        await event.wait()

    async def two() -> None:
        await trio.sleep(5)
        async with lock:
            event.set()

    async with trio.open_nursery() as nursery:
        for task in (one, one, two):
            nursery.start_soon(task)


def _traced(choices: Choices) -> list[str]:
    choices.trace = []
    run_schedule(_three, choices)
    first = int(choices.trace[0].partition("#")[2])
    return [f"{n}#{int(c) - first}" for n, _, c in (step.partition("#") for step in choices.trace)]


def test_the_same_picks_give_the_same_trace_a_hundred_times() -> None:
    """The canary of a Trio upgrade: without this no failure could be repeated."""
    walked = Choices(Walk(random.Random(3)))
    wanted = _traced(walked)
    assert walked.picks
    for _ in range(100):
        again = Choices(Recorded(read(written(walked.picks))))
        assert _traced(again) == wanted
        assert again.picks == walked.picks


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_gives_many_different_schedules(name: str) -> None:
    """Each seed its own, most of them."""
    seen = set()
    for seed in range(60):
        choices = Choices(make(name, str(seed), 20))
        seen.add(tuple(_traced(choices)))
    assert len(seen) > 15


def test_one_task_runs_at_a_time_and_every_await_is_a_choice() -> None:
    """With a lost update that needs two tasks between two steps of each other."""
    lost = []

    async def count(choices: Choices) -> None:
        choices.arm()
        total = 0

        async def add() -> None:
            nonlocal total
            before = total
            await trio.lowlevel.checkpoint()
            total = before + 1

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(add)
        lost.append(total == 1)

    for seed in range(40):
        run_schedule(count, Choices(Walk(random.Random(seed))))
    assert 0 < sum(lost) < 40


def test_whoever_waits_for_ever_is_a_failure_also_behind_a_shield() -> None:
    """I6: and the schedule can be left all the same."""

    async def stuck(choices: Choices) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    with pytest.raises(Hang):
        run_schedule(stuck, Choices(Recorded({})))


def test_a_trio_that_is_built_otherwise_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A changed private name must not make the explorer explore nothing."""
    monkeypatch.delattr(engine._core, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(RuntimeError, match="has no _ALLOW_DETERMINISTIC_SCHEDULING any more"):
        engine.check_trio()
