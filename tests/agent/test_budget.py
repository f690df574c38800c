"""What a run has used and cost: what is known, what is estimated, what nobody knows (R-COST)."""

from __future__ import annotations

import attrs
import pytest

from crush_trio.agent.budget import Budget, Progress
from crush_trio.agent.ports import ModelInfo, StepEnd
from crush_trio.agent.transcript import open_assistant
from crush_trio.protocol.runs import Limits, Usage
from tests.agent.turn_kit import RUN, SESSION

PRICED = ModelInfo(
    "p",
    "m",
    cost_per_1m_in=3.0,
    cost_per_1m_out=15.0,
    cost_per_1m_in_cached=3.75,
    cost_per_1m_out_cached=0.3,
)
MESSAGE = open_assistant(SESSION, RUN, "p", "m", 0)


def after(info: ModelInfo, *ends: StepEnd | None, used: Usage = Usage()) -> Progress:
    """A run's progress after steps that ended like this."""
    progress = Progress()
    for end in ends:
        progress = Budget(Limits(), info).account(progress, end, used, MESSAGE)
    return progress


def test_each_kind_of_token_has_its_price() -> None:
    """CW 5.11: `in_cached` is for what was written to the cache, `out_cached` for what was read."""
    price = Budget(Limits(), PRICED).price
    assert price(Usage(1_000_000)) == 3.0
    assert price(Usage(0, 1_000_000)) == 15.0
    assert price(Usage(0, 0, 1_000_000)) == pytest.approx(0.3)
    assert price(Usage(0, 0, 0, 1_000_000)) == 3.75


UNKNOWN = [
    (attrs.evolve(PRICED, cost_per_1m_in=None), True),
    (attrs.evolve(PRICED, cost_per_1m_out=None), True),
    (attrs.evolve(PRICED, cost_per_1m_in_cached=None), False),
    (attrs.evolve(PRICED, cost_per_1m_out_cached=None), False),
]


@pytest.mark.parametrize(("info", "needed"), UNKNOWN)
def test_a_price_that_is_unknown_is_neither_zero_nor_guessed(info: ModelInfo, needed: bool) -> None:
    """R-COST: and one that is not needed is not asked for."""
    assert Budget(Limits(), info).price(Usage(1, 1, 1, 1)) is None
    assert (Budget(Limits(), info).price(Usage(1, 1)) is None) == needed


def test_one_step_of_unknown_cost_makes_the_whole_unknown() -> None:
    """R-COST: a sum of the others would be a wrong number."""
    plain, cached = StepEnd("end_turn", Usage(1_000)), StepEnd("end_turn", Usage(0, 0, 1_000))
    info = attrs.evolve(PRICED, cost_per_1m_out_cached=None)
    assert after(info, plain, plain).cost_usd == pytest.approx(0.006)
    progress = after(info, plain, cached, plain)
    assert progress.cost_usd is None
    assert progress.spent == pytest.approx(0.006), "the session's sum is of what is known"
    said = StepEnd("end_turn", Usage(0, 0, 1_000), cost_usd=0.5)
    assert after(info, plain, said).cost_usd == pytest.approx(0.503)
    assert after(ModelInfo("p", "m")).cost_usd is None


def test_a_request_that_used_nothing_leaves_the_cost_as_it_was() -> None:
    """A refused one, as with 429."""
    plain = StepEnd("end_turn", Usage(1_000))
    assert after(PRICED, plain, None).cost_usd == pytest.approx(0.003)
    assert after(PRICED, plain, None).last_usage == Usage(1_000)
    unpriced = after(ModelInfo("p", "m"), None)
    assert (unpriced.cost_usd, unpriced.unpriced) == (None, False)
    said = StepEnd("end_turn", Usage(1), cost_usd=0.1)
    assert after(ModelInfo("p", "m"), None, said).cost_usd == 0.1


def test_small_sums_do_not_drift() -> None:
    ends = [StepEnd("end_turn", Usage(1), cost_usd=0.1)] * 3
    assert after(PRICED, *ends).cost_usd == 0.3
    over = Budget(Limits(max_cost_usd=0.3), PRICED).before_step(after(PRICED, *ends))
    assert over is not None
    assert "$0.3" in over.message
    tiny = after(PRICED, StepEnd("end_turn", Usage(1), cost_usd=5e-8))
    over = Budget(Limits(max_cost_usd=1e-8), PRICED).before_step(tiny)
    assert over is not None
    assert "$5e-08" in over.message


@pytest.mark.parametrize("said", [None, Usage()])
def test_what_nobody_counted_is_estimated_and_marked(said: Usage | None) -> None:
    """CW 5.11: input and output, also if a provider says zero."""
    meter = Budget(Limits(), PRICED).meter(Progress(), 100)
    used = meter.used(40, ended=True)
    assert used == Usage(100, 10, estimated=True)
    progress = after(PRICED, StepEnd("end_turn", said), used=used)
    assert progress.usage == used
    assert progress.cost_usd == pytest.approx((100 * 3 + 10 * 15) / 1e6)
    assert after(PRICED, StepEnd("end_turn", Usage(7, 3)), used=used).usage == Usage(7, 3)


def test_a_request_that_failed_without_an_answer_has_used_nothing_we_know_of() -> None:
    meter = Budget(Limits(), PRICED).meter(Progress(), 100)
    assert meter.used(0) == Usage()
    assert meter.used(4) == Usage(100, 1, estimated=True)
    meter.report(Usage(90), 0)
    assert meter.used(0) == Usage(90)
    assert meter.used(4) == Usage(90, 1, estimated=True)


def test_what_failed_attempts_have_used_is_paid_for_but_no_part_of_the_step() -> None:
    """R-COST, R-LIMITS: a provider counts an answer that broke off, too."""
    meter = Budget(Limits(max_cost_usd=0.002), PRICED).meter(Progress(), 100)
    room = meter.room
    meter.report(Usage(400), 0)
    meter.reset(40)
    assert meter.abandoned == Usage(400, 10, estimated=True)
    assert meter.used(0) == Usage()
    assert meter.room < room
    meter.reset(0)
    assert meter.abandoned == Usage(400, 10, estimated=True), "a refusal uses nothing"
    end = StepEnd("end_turn", Usage(400, 20))
    progress = Budget(Limits(), PRICED).account(Progress(), end, Usage(), MESSAGE, meter.abandoned)
    assert progress.usage == Usage(800, 30, estimated=True)
    assert progress.last_usage == Usage(400, 20)
    assert progress.cost_usd == pytest.approx((800 * 3 + 30 * 15) / 1e6)
    bare = Budget(Limits(), ModelInfo("p", "m"))
    said = StepEnd("end_turn", Usage(1), cost_usd=0.1)
    assert bare.account(Progress(), said, Usage(), MESSAGE, Usage(1)).cost_usd is None


def test_what_is_no_language_model_uses_no_tokens() -> None:
    scout = attrs.evolve(PRICED, is_language_model=False)
    assert Budget(Limits(), scout).meter(Progress(), 100).used(0, ended=True) == Usage()


def test_a_limit_of_cost_is_refused_where_no_cost_can_be_known() -> None:
    """R-LIMITS."""
    wanted, unpriced = Limits(max_cost_usd=1.0), ModelInfo("p", "m")
    blind = Budget(wanted, unpriced).blind(Progress())
    assert blind is not None
    assert (blind.code, blind.retryable) == ("cost_unknown", False)
    assert "p/m" in blind.message
    assert Budget(Limits(), unpriced).blind(Progress()) is None
    assert Budget(wanted, PRICED).blind(Progress()) is None
    assert Budget(wanted, attrs.evolve(unpriced, reports_cost=True)).blind(Progress()) is None
    assert Budget(wanted, PRICED).blind(Progress(unpriced=True)) is not None
