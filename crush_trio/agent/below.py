"""What sub-agents use of a run's limits: what is left for the next, and what the last has used."""

from __future__ import annotations

import attrs

from crush_trio import limits
from crush_trio.agent.budget import Budget, Progress, is_nothing
from crush_trio.protocol.runs import Limits, Outcome, RunError, RunRecord


def left(budget: Budget, progress: Progress) -> Limits | RunError:
    """The limits of a sub-agent that a tool call of the run is to start now; or why there is none.

    Its steps, calls, tokens and dollars are those that the run has left; the call itself is one of
    them. Time is the run's own: its clock goes on, and ends the sub-agent with it. A model may be
    silent as long as the run's own.
    """
    over = budget.before_step(progress)
    if over is not None:
        return over
    wanted, below = budget.limits, progress.below
    calls, tokens, cost = wanted.max_tool_calls, wanted.max_output_tokens, wanted.max_cost_usd
    return Limits(
        idle_timeout_s=wanted.idle_timeout_s,
        max_steps=(wanted.max_steps or limits.MAX_STEPS) - progress.steps - below.steps,
        max_tool_calls=None
        if calls is None
        else max(0, calls - progress.tool_calls - below.tool_calls - 1),
        max_output_tokens=None if tokens is None else tokens - progress.usage.output_tokens,
        max_cost_usd=None if cost is None else cost - progress.spent,
    )


def with_sub_agent(progress: Progress, record: RunRecord, wanted: Limits) -> Progress:
    """The progress of a run with limits ``wanted`` after a sub-agent's run has ended.

    Tokens and cost become part of the run's own; steps and calls are counted beside them. A cost
    that is not known makes the whole unknown.
    """
    cost, usage = record.cost_usd, record.usage
    unpriced = progress.unpriced or (cost is None and not is_nothing(usage))
    spent = round(progress.spent + (cost or 0.0), 12)
    known = cost is not None or progress.cost_usd is not None
    error = record.error.code if record.error is not None else ""
    wants_more = record.outcome is Outcome.LIMITED and error == "max_tool_calls"
    below = progress.below
    return attrs.evolve(
        progress,
        usage=progress.usage.plus(usage),
        spent=spent,
        unpriced=unpriced,
        cost_usd=spent if known and not unpriced else None,
        below=attrs.evolve(
            below,
            steps=below.steps + record.steps,
            tool_calls=below.tool_calls + record.tool_calls,
            out_of_calls=below.out_of_calls or (wants_more and wanted.max_tool_calls is not None),
        ),
    )
