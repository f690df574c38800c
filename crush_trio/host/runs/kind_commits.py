"""The commits of runs that are no prompts, and of summaries: functions on a transaction."""

from __future__ import annotations

from collections.abc import Sequence

from crush_trio.host.commits import Placed, change_run, put_messages, touch_session
from crush_trio.protocol.events import AgentEvent
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.runs import RunState
from crush_trio.store.contract import Transaction


def begin_kind(tx: Transaction, run_id: RunId, waiting_on: str, placed: Sequence[Placed]) -> None:
    """A run that is no prompt starts, with what it puts into the transcript at once."""
    row = change_run(
        tx, run_id, state=RunState.RUNNING, started_at_ms=tx.now_ms, waiting_on=waiting_on
    )
    if put_messages(tx, placed):
        touch_session(tx, row.record.session_id)


def point_at_summary(
    tx: Transaction,
    session_id: SessionId,
    run_id: RunId,
    message_id: MessageId,
    *,
    before: int,
    after: int,
    cost: float = 0.0,
) -> None:
    """From now on the session's history begins with this summary (R65); publishes both.

    ``before`` and ``after`` are tokens of the conversation and of its summary.
    """
    session = tx.session(session_id)
    if session is None:
        return
    touch_session(
        tx,
        session_id,
        summary_message_id=message_id,
        prompt_tokens=0,
        completion_tokens=after,
        cost=session.cost + cost,
    )
    notice = AgentEvent(
        "summarize",
        session_id=session_id,
        run_id=run_id,
        tokens_before=before,
        tokens_after=after,
    )
    tx.emit("agent_event", "created", notice, session_id=session_id, run_id=run_id)


def add_cost(tx: Transaction, session_id: SessionId, cost: float) -> None:
    """Add what a run has cost to its session."""
    session = tx.session(session_id)
    if session is not None and cost:
        touch_session(tx, session_id, cost=session.cost + cost)
