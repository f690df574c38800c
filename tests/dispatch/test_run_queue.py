"""Every short history of a session's queue, against the reference told in plain values."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crush_trio import limits
from crush_trio.dispatch.queue import CancelPlan, RunQueue
from crush_trio.dispatch.run import Run, Settings
from crush_trio.protocol.errors import InvalidTransition, Refused
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome
from tests.dispatch.reference import NEVER, Real, Reference, Step


def replay(history: tuple[Step, ...]) -> Real:
    """The queue after a history whose steps were all legal."""
    real = Real()
    for step in history:
        real.take(step)
    return real


@pytest.mark.parametrize(("runs", "depth"), [(2, 6), (3, 5)])
def test_every_short_history_ends_as_the_reference_says(runs: int, depth: int) -> None:
    """G1, G4, G5: all histories of so many runs and steps; an illegal step changes nothing.

    Histories that led to the same state are gone on with once: the whole state is compared.
    """
    seen: dict[Reference, tuple[Step, ...]] = {Reference(): ()}
    edge = [Reference()]
    tried = 0
    for _ in range(depth):
        reached = []
        for state in edge:
            for step in state.steps(runs):
                real = replay(seen[state])
                expected = state.after(step)
                try:
                    answer = real.take(step)
                except NEVER:
                    answer = None
                    assert expected is None, (seen[state], step)
                    expected = state
                else:
                    assert expected is not None, (seen[state], step)
                assert real.told() == expected, (seen[state], step)
                check_answer(state, step, real, answer)
                tried += 1
                if expected not in seen:
                    seen[expected] = (*seen[state], step)
                    reached.append(expected)
        edge = reached
    assert tried > 10_000


def check_answer(before: Reference, step: Step, real: Real, answer: Any) -> None:
    """What the caller is told fits what has happened."""
    after = real.told()
    if step[0] in ("cancel", "close") and isinstance(answer, CancelPlan):
        which = "all" if step[0] == "close" else step[1]
        ended = tuple(n for n in before.order if which in ("all", n))
        assert answer.ended == tuple(real.runs[n] for n in ended)
        settling = before.now is not None and before.runs[before.now].life.startswith("settling")
        hit = before.now is not None and which in ("all", before.now)
        assert bool(answer.too_late) == (hit and settling)
        assert (answer.running is not None) == (hit and not settling)
        assert len(answer.covered()) == len(ended) + (hit and not settling)
    if step[0] == "accept" and answer is not None:
        assert answer.start_drain == (not before.driving)
        assert answer.steered == (len(before.runs) in after.can_fold())
        assert answer.position == len(real.queue.open_runs()) - 1
    if step[0] == "fold":
        assert answer == tuple(real.runs[n] for n in before.can_fold())
    if step[0] == "head" and answer is not None:
        assert answer is real.runs[before.order[0]]
    if step[0] == "settle" and answer is not None:
        assert after.now is not None
        assert after.runs[after.now].life == f"settling {answer.value}"
    for run in real.queue.open_runs():
        assert real.queue.find(run.id) is run
        assert real.queue.open_runs()[real.queue.position(run)] is run


class QueueMachine(RuleBasedStateMachine):
    """G4 and G5 over long histories with many runs."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Real()
        self.state = Reference()

    @rule(data=st.data())
    def take_a_step(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.state.steps(most_runs=12)))
        if step[0] in ("freeze", "close") and data.draw(st.integers(0, 5)):
            return  # most histories should go on
        self.follow(step)

    @precondition(lambda self: self.state.now is None and self.state.order)
    @rule()
    def begin_the_next(self) -> None:
        self.follow(("begin", self.state.order[0]))

    def follow(self, step: Step) -> None:
        expected = self.state.after(step)
        if expected is None:
            with pytest.raises(NEVER):
                self.real.take(step)
        else:
            self.real.take(step)
            self.state = expected

    @invariant()
    def tells_the_same(self) -> None:
        assert self.real.told() == self.state

    @invariant()
    def waiting_runs_have_a_drain_task_unless_frozen(self) -> None:
        queue = self.real.queue
        assert queue.driving or not queue.waiting() or queue.frozen


TestQueueMachine = QueueMachine.TestCase


def filled(count: int) -> RunQueue:
    queue = RunQueue()
    for number in range(count):
        queue.accept(Run(RunId(f"r{number}"), number), "enqueue")
    return queue


def test_a_full_queue_refuses_everything_but_interrupt() -> None:
    queue = filled(limits.WAITING_RUNS_PER_SESSION)
    for policy in ("enqueue", "steer"):
        with pytest.raises(Refused, match="already wait") as refused:
            queue.accept(Run(RunId("x"), 999), policy)
        assert refused.value.code == "queue_full"
    assert len(queue.waiting()) == limits.WAITING_RUNS_PER_SESSION
    accepted = queue.accept(Run(RunId("x"), 999), "interrupt", CancelledBy("somebody"))
    assert len(accepted.interrupted.ended) == limits.WAITING_RUNS_PER_SESSION
    assert [run.id for run in queue.waiting()] == ["x"]


@pytest.mark.parametrize(
    ("change", "code"), [("closed", "session_closing"), ("frozen", "server_stopping")]
)
def test_a_refusal_says_why(change: str, code: str) -> None:
    queue = filled(1)
    setattr(queue, change, True)
    with pytest.raises(Refused) as refused:
        queue.check_accept("enqueue")
    assert refused.value.code == code
    setattr(queue, change, False)
    with pytest.raises(Refused, match="busy"):
        queue.check_accept("reject")


def test_an_interrupt_without_a_name_still_has_a_reason() -> None:
    queue = filled(1)
    accepted = queue.accept(Run(RunId("x"), 2), "interrupt")
    (ended,) = accepted.interrupted.ended
    assert ended.mark == CancelledBy("", reason="interrupt")


def test_the_first_cause_stays() -> None:
    """G4: repeating a cancel is harmless."""
    queue = filled(1)
    queue.begin(queue.waiting()[0])
    first, second = CancelledBy("first"), CancelledBy("second")
    assert queue.mark_current(first) is queue.current
    assert queue.mark_current(second) is queue.current
    plan = queue.cancel(second)
    assert plan.running is not None
    assert plan.running.mark is first
    assert queue.begin_settle(Outcome.COMPLETED) is Outcome.CANCELLED
    assert queue.mark_current(second) is None


def test_a_prompt_folds_only_into_a_run_that_has_all_it_named() -> None:
    plain = Settings()
    for named in (
        Settings(model="a/b"),
        Settings(sandbox="read-only"),
        Settings(limits=Limits(max_steps=1)),
        Settings(permission_mode="deny"),
        Settings(patterns=((), ("bash",))),
    ):
        assert plain.fits(named)
        assert named.fits(named)
        assert not named.fits(plain)
        assert not attrs.evolve(named, model="c/d").fits(named)


def test_an_illegal_step_names_the_run() -> None:
    queue = filled(2)
    with pytest.raises(InvalidTransition, match="r1"):
        queue.begin(queue.waiting()[1])
    queue.begin(queue.waiting()[0])
    with pytest.raises(InvalidTransition, match="r0"):
        queue.head()
