"""One model request while it streams: limits, silence, retries, and whose error came first."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.budget import LimitReached
from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ReasoningDelta,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.agent.turn import Turn
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.runs import Limits, Outcome, Usage
from tests.agent.turn_kit import ListJournal, answering, turn_of

Act = Callable[[Emit], Awaitable[StepEnd]]
END = StepEnd("end_turn")


class Acting:
    """A model that does ``act`` in each step."""

    def __init__(self, act: Act, price: float | None = None) -> None:
        self.act = act
        self.info = ModelInfo("fake", "m", cost_per_1m_in=price, cost_per_1m_out=price)

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.lowlevel.checkpoint()
        return await self.act(emit)


def sending(*events: ModelEvent, every_s: float = 1.0, end: StepEnd = END) -> Act:
    """Send these, one each ``every_s``; with 0 without ever letting go."""

    async def act(emit: Emit) -> StepEnd:
        for event in events:
            emit(event)
            if every_s:
                await trio.sleep(every_s)
        return end

    return act


def asked(
    act: Act, limits: Limits | None = None, price: float | None = None
) -> tuple[Turn, ListJournal]:
    return turn_of(Acting(act, price), [answering("look")], limits)


async def limited(turn: Turn) -> str:
    """The code of the limit that ends the turn."""
    with pytest.raises(LimitReached) as reached:
        await turn.take()
    return reached.value.code


def counted(turn: Turn) -> tuple[int, bool]:
    """The tokens that the run has written, and whether its usage is an estimate."""
    return turn.progress.usage.output_tokens, turn.progress.usage.estimated


FOUR = TextDelta("abcd")  # one token


@pytest.mark.parametrize("every_s", [0.0, 1.0])
async def test_an_answer_is_cut_where_it_crosses_its_token_limit(
    autojump_clock: MockClock, every_s: float
) -> None:
    """Contract 3: mid-call, also if the model never lets go; the piece that crossed it is kept."""
    turn, journal = asked(sending(*[FOUR] * 9, every_s=every_s), Limits(max_output_tokens=5))
    assert await limited(turn) == "max_output_tokens"
    assert [message.text() for message in journal.messages()] == ["abcd" * 6]
    assert counted(turn) == (6, True)
    assert trio.current_time() == pytest.approx(5 * every_s)


async def test_an_answer_as_long_as_its_limit_is_whole(autojump_clock: MockClock) -> None:
    turn, _ = asked(sending(*[FOUR] * 5), Limits(max_output_tokens=5))
    assert (await turn.take()).outcome is Outcome.COMPLETED
    assert counted(turn) == (5, True)


async def test_thoughts_and_arguments_count_as_output(autojump_clock: MockClock) -> None:
    act = sending(ReasoningDelta("x" * 8), ToolCallStart("c", "look"), ToolInputDelta("c", "{" * 9))
    turn, journal = asked(act, Limits(max_output_tokens=5))
    assert await limited(turn) == "max_output_tokens"
    assert turn.progress.usage.output_tokens == math.ceil((8 + 4 + 9) / 4)
    assert [call.name for call in journal.messages()[0].tool_calls()] == ["look"]


async def test_what_the_provider_counts_replaces_the_estimate(autojump_clock: MockClock) -> None:
    """Input counted at the start leaves the output to be estimated."""
    said = UsageSoFar(Usage(30, 2))
    turn, _ = asked(sending(*[FOUR] * 4, said, *[FOUR] * 9), Limits(max_output_tokens=5))
    assert await limited(turn) == "max_output_tokens"
    assert turn.progress.usage == Usage(30, 2 + 4, estimated=True)
    early = UsageSoFar(Usage(30))
    turn, _ = asked(sending(FOUR, early, *[FOUR] * 9), Limits(max_output_tokens=5))
    assert await limited(turn) == "max_output_tokens"
    assert turn.progress.usage == Usage(30, 6, estimated=True)


async def test_an_answer_is_cut_where_it_costs_more_than_it_may(autojump_clock: MockClock) -> None:
    """A dollar per token; three for the input that was reported."""
    act = sending(UsageSoFar(Usage(3)), *[FOUR] * 9)
    turn, journal = asked(act, Limits(max_cost_usd=5.0), price=1e6)
    assert await limited(turn) == "max_cost_usd"
    assert journal.messages()[0].text() == "abcd" * 3
    assert turn.progress.cost_usd == pytest.approx(6.0)


async def test_input_that_costs_too_much_ends_the_run_before_it_says_a_word(
    autojump_clock: MockClock,
) -> None:
    act = sending(UsageSoFar(Usage(7)), FOUR)
    turn, journal = asked(act, Limits(max_cost_usd=5.0), price=1e6)
    assert await limited(turn) == "max_cost_usd"
    assert journal.messages()[0].text() == ""


async def test_without_a_price_a_run_with_a_cost_limit_asks_nothing(
    autojump_clock: MockClock,
) -> None:
    """R-LIMITS: a limit that cannot be kept is not ignored in silence."""
    turn, journal = asked(sending(FOUR), Limits(max_cost_usd=0.01))
    end = await turn.take()
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.FAILED, "cost_unknown")
    assert "cost_per_1m_" in end.error.message
    assert (turn.progress.steps, journal.messages()) == (0, [])


async def test_a_cost_limit_goes_by_what_the_provider_says_where_it_says_so(
    autojump_clock: MockClock,
) -> None:
    """A step of unknown cost ends it: what comes after could not be limited."""
    said = StepEnd("tool_use", Usage(1, 1), cost_usd=0.1)
    turn, _ = asked(sending(ToolCallStart("c", "look"), end=said), Limits(max_cost_usd=0.05))
    turn.given.model.info = attrs.evolve(turn.given.model.info, reports_cost=True)  # type: ignore[misc]
    turn = Turn(turn.given, turn.journal)
    end = await turn.take()
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.LIMITED, "max_cost_usd")
    turn.given.model.act = sending(  # type: ignore[attr-defined]
        ToolCallStart("c", "look"), end=StepEnd("tool_use", Usage(1, 1))
    )
    turn = Turn(turn.given, turn.journal)
    end = await turn.take()
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.FAILED, "cost_unknown")
    assert (turn.progress.steps, turn.progress.cost_usd) == (1, None)


async def test_a_last_answer_that_turns_out_too_dear_is_still_an_answer(
    autojump_clock: MockClock,
) -> None:
    """Nothing was cut; had it asked for tools, no further step would have come."""
    dear = StepEnd("end_turn", Usage(1, 100), cost_usd=9.0)
    turn, _ = asked(sending(FOUR, end=dear), Limits(max_cost_usd=5, max_output_tokens=50), 0.0)
    assert (await turn.take()).outcome is Outcome.COMPLETED
    dear = StepEnd("tool_use", Usage(1, 100), cost_usd=9.0)
    turn, _ = asked(sending(ToolCallStart("c", "look"), end=dear), Limits(max_cost_usd=5), 0.0)
    end = await turn.take()
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.LIMITED, "max_cost_usd")
    assert (turn.progress.steps, turn.progress.tool_calls) == (1, 1)


async def test_usage_that_is_named_at_the_end_counts_alone(autojump_clock: MockClock) -> None:
    act = sending(UsageSoFar(Usage(5, 1)), FOUR, end=StepEnd("end_turn", Usage(7, 2)))
    turn, _ = asked(act)
    await turn.take()
    assert turn.progress.usage == Usage(7, 2)


async def test_what_a_broken_request_has_used_is_counted(autojump_clock: MockClock) -> None:
    async def act(emit: Emit) -> StepEnd:
        emit(UsageSoFar(Usage(50)))
        emit(FOUR)
        await trio.lowlevel.checkpoint()
        raise ModelError("truncated", "broke off")

    turn, _ = asked(act, price=1e6)
    with pytest.raises(ModelError):
        await turn.take()
    assert turn.progress.usage == Usage(50, 1, estimated=True)
    assert turn.progress.cost_usd == pytest.approx(51)


async def test_a_retry_may_answer_at_full_length(autojump_clock: MockClock) -> None:
    """R51: as the message begins anew; what the first answer has used is used (R-COST)."""
    said = UsageSoFar(Usage(9, 4))
    act = sending(*[FOUR] * 4, said, StreamReset(1, 3, 0.5, "529"), *[FOUR] * 4)
    turn, journal = asked(act, Limits(max_output_tokens=5))
    assert (await turn.take()).outcome is Outcome.COMPLETED
    assert journal.messages()[0].text() == "abcd" * 4
    assert counted(turn) == (8, True)


async def test_what_cannot_be_stored_is_not_asked_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: on a full disk at most the last second of an answer would be missing, so it stops."""
    turn, _ = asked(sending(*[FOUR] * 1000, every_s=0.4))  # never in the clock's own moment
    written: list[float] = []

    async def full(_: ListJournal) -> None:
        written.append(trio.current_time())
        if len(written) == 3:
            raise StoreError("disk_full", "full")

    monkeypatch.setattr(ListJournal, "checkpoint", full)
    began = trio.current_time()
    with pytest.raises(StoreError, match="full"):
        await turn.take()
    assert trio.current_time() - began <= 4
    assert len(written) == 3


NO_CONTENT: list[ModelEvent] = [
    TextDelta(""),
    ReasoningDelta(""),
    ToolInputDelta("nobody", "x"),
    UsageSoFar(Usage(1, 1)),
]


@pytest.mark.parametrize("event", NO_CONTENT, ids=lambda event: type(event).__name__)
async def test_a_model_that_sends_no_content_is_silent(
    autojump_clock: MockClock, event: ModelEvent
) -> None:
    """Contract 3: pings, empty pieces and counts do not keep it alive; content does."""
    turn, journal = asked(sending(FOUR, FOUR, *[event] * 99), Limits(idle_timeout_s=3.5))
    assert await limited(turn) == "idle_timeout"
    assert trio.current_time() == pytest.approx(1 + 3.5)
    assert journal.messages()[0].text() == "abcdabcd"


async def test_arguments_that_grow_are_content(autojump_clock: MockClock) -> None:
    act = sending(ToolCallStart("c", "look"), *[ToolInputDelta("c", " ")] * 20)
    turn, _ = asked(act, Limits(idle_timeout_s=2, max_steps=1))
    end = await turn.take()
    assert end.error is not None
    assert end.error.code == "max_steps"
    assert trio.current_time() == pytest.approx(21)


async def test_a_retry_is_waited_for_and_then_the_model_again(autojump_clock: MockClock) -> None:
    """Contract 3: `waiting_on` is `retry` for as long as the model sleeps."""
    turn, journal = turn_of(Acting(sending()), limits=Limits(idle_timeout_s=2))
    seen = []

    async def act(emit: Emit) -> StepEnd:
        emit(StreamReset(1, 3, 8.0, "529"))
        await trio.sleep(7.9)
        seen.append((list(journal.waits), turn.progress.waiting_on))
        await trio.sleep(0.2)
        seen.append((list(journal.waits), turn.progress.waiting_on))
        emit(StreamReset(2, 3, 8.0, "529"))
        await trio.sleep(1)
        emit(FOUR)  # sooner than announced
        seen.append((list(journal.waits), turn.progress.waiting_on))
        await trio.sleep(1)
        emit(StreamReset(3, 3, 1.0, "529"))
        emit(StreamReset(4, 4, 8.0, "529"))
        await trio.sleep(7.9)
        seen.append((list(journal.waits), turn.progress.waiting_on))
        await trio.sleep(3)
        raise AssertionError

    turn.given.model.act = act  # type: ignore[attr-defined]
    assert await limited(turn) == "idle_timeout"
    both = ["retry", "model"]
    assert seen == [
        (["retry"], "retry"),
        (both, "model"),
        (both * 2, "model"),
        ([*both * 2, "retry", "retry"], "retry"),
    ]
    assert trio.current_time() == pytest.approx(8.1 + 2 + 8 + 2)


# --- whose doing it was -------------------------------------------------------------------


async def test_an_error_that_came_first_stays_when_somebody_cancels_in_the_same_moment() -> None:
    """G4: failed, if its own error came first."""
    scope = trio.CancelScope()

    async def act(emit: Emit) -> StepEnd:
        emit(FOUR)
        trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
        raise ModelError("overloaded", "too much")

    turn, _ = asked(act)
    with scope, pytest.raises(ModelError):
        await turn.take()
    assert scope.cancel_called
    assert not scope.cancelled_caught


async def test_an_error_that_follows_a_cancel_is_its_consequence() -> None:
    """G4."""
    scope = trio.CancelScope()

    async def act(emit: Emit) -> StepEnd:
        scope.cancel()
        raise ModelError("closed", "the connection is gone")

    turn, _ = asked(act)
    with scope:
        await turn.take()
    assert scope.cancelled_caught


@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_limit_is_named_also_if_the_model_takes_it_amiss(
    autojump_clock: MockClock, swallowed: bool
) -> None:
    async def act(emit: Emit) -> StepEnd:
        emit(FOUR)
        try:
            await trio.sleep_forever()
        finally:
            if swallowed:
                emit(FOUR)
                return END  # noqa: B012
            raise RuntimeError("I was not finished")

    turn, journal = asked(act, Limits(idle_timeout_s=3))
    if swallowed:
        assert (await turn.take()).outcome is Outcome.COMPLETED
    else:
        assert await limited(turn) == "idle_timeout"
    assert journal.messages()[0].text() == "abcd" * (1 + swallowed)
