"""Scripts drawn by Hypothesis run against the reference and against the real host."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crush_trio.protocol.runs import Outcome
from tests.explore.checks import check_promises, check_tables
from tests.explore.crashes import start_again
from tests.explore.disk import copied
from tests.explore.engine import Choices, run_schedule
from tests.explore.isolation import start_over
from tests.explore.model import Ends, Model
from tests.explore.runner import Explorer, exploring
from tests.explore.strategies import Walk
from tests.explore.world import Explored

KINDS = ("say", "tool", "gate", "hang", "broken", "cut", "retry")
POLICIES = ("enqueue", "steer", "interrupt", "reject")
STEPS = st.one_of(
    st.tuples(
        st.just("post"), st.sampled_from(KINDS), st.sampled_from(POLICIES), st.integers(0, 1)
    ),
    st.tuples(st.just("cancel"), st.integers(0, 1)),
    st.tuples(st.just("drop"), st.integers(1, 6)),
    st.tuples(st.just("gate")),
    st.tuples(st.just("settle")),
)
SCRIPTS = st.lists(STEPS, min_size=1, max_size=10)


@pytest.fixture(scope="module")
def explorer() -> Iterator[Explorer]:
    """A first database, and the package without threads and clocks."""
    with exploring() as made:
        yield made


@attrs.define(eq=False)
class Both:
    """One script on the model and on the host; every answer is compared."""

    w: Explored
    model: Model = attrs.field(factory=Model)
    wrongs: list[str] = attrs.field(factory=list)

    async def take(self, step: tuple[Any, ...]) -> None:
        """One request."""
        match step:
            case ("post", kind, policy, session):
                name = f"r{len(self.model.runs) + 1}"
                may = self.model.answers(session, policy)
                prompt = f"{kind} {name}"
                answered = await self.w.post(prompt, policy, session, run_id=name)
                if (answered == name) not in may:
                    self.wrongs.append(f"{step} was answered {answered}, not as {may}")
                if answered == name:
                    self.model.accept(name, session, prompt, policy)
            case ("cancel", session):
                await self._cancel(session, None)
            case ("drop", number) if number <= len(self.model.runs):
                run = self.model.runs[number - 1]
                await self._cancel(run.session, run.name)
            case ("gate",):
                self.w.gate.set()
                self.model.open_gate()
            case ("settle",):
                await trio.sleep(20)
                self.model.settle()

    async def _cancel(self, session: int, name: str | None) -> None:
        entries = self.w.ledger.entries
        before = {each.id for each in entries.values() if each.must is not None}
        must, may = self.model.cancel(session, name)
        await self.w.cancel(name, session)
        stopped = {str(each.id) for each in entries.values() if each.must is not None} - before
        if not must <= stopped <= may:
            self.wrongs.append(f"a cancel stopped {stopped}, not {must} of {may}")


def _ends(tables: Any) -> dict[str, Outcome | None]:
    return {str(name): entry.row.record.outcome for name, entry in tables.runs.rows.items()}


def _compare(ends: dict[str, Outcome | None], allowed: dict[str, Ends]) -> list[str]:
    if ends.keys() != allowed.keys():
        return [f"the runs are {sorted(ends)}, not {sorted(allowed)}"]
    return [
        f"{name} ended {ends[name]}, not one of {allowed[name]}"
        for name in ends
        if ends[name] not in allowed[name]
    ]


@given(script=SCRIPTS, last=st.sampled_from(("end", "stop", "crash")), seed=st.integers(0, 2**16))
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_host_does_what_the_reference_says(
    explorer: Explorer, script: list[tuple[Any, ...]], last: str, seed: int
) -> None:
    """G1-G5: answers, receipts, outcomes, order; through an end, a stop or a kill."""
    start_over()
    choices = Choices(Walk(Random(seed)))
    w = Explored(choices, explorer.template)
    both = Both(w)
    killed: list[Any] = []

    async def main(_: Choices) -> None:
        async with w.opened():
            choices.arm()
            for step in script:
                await both.take(step)
            if last == "crash":
                killed.append(copied(w.disk.tables))
            if last == "stop":
                await w.stop()

    run_schedule(main, choices)
    wrongs = [*both.wrongs, *check_promises(w.ledger, w.disk.tables)]
    wrongs += check_tables(w.disk.tables, w.workspace_id, whole=True)
    if last == "crash":
        tables, _, more = start_again(explorer.template, killed[0])
        wrongs += [*more, *_compare(_ends(tables), both.model.after_crash())]
    else:
        allowed = both.model.after_stop() if last == "stop" else both.model.after_end()
        wrongs += _compare(_ends(w.disk.tables), allowed)
    assert not wrongs, (script, last, seed)
