"""How a request to a person ends in the store: once, with the one event that tells of it."""

from __future__ import annotations

import attrs

from crush_trio.protocol.events import PermissionNotification, PermissionRequest
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.questions import QuestionNotification
from crush_trio.store.contract import Transaction, without_details

ALLOWED = frozenset({"allowed", "allowed_session"})
WITHDRAWN = "withdrawn"
SERVER = "server"
"""Who decided what no person did: a deadline, or the end of the run."""


def end_ask(tx: Transaction, ask_id: str, ending: str, by: str) -> bool:
    """End a request, if it waits, and publish that; whether it was this call that ended it.

    Whatever races, the first of these commits is the request's one ending (I27).
    """
    row = tx.ask(ask_id)
    if row is None or row.ending is not None:
        return False
    tx.put_ask(
        attrs.evolve(
            row,
            request=without_details(row.request),
            ending=ending,
            decided_by=by,
            decided_at_ms=tx.now_ms,
        )
    )
    if isinstance(row.request, PermissionRequest):
        granted = ending in ALLOWED
        told = PermissionNotification(
            row.request.tool_call_id, granted, not granted, row.id, ending, by
        )
        tx.emit(
            "permission_notification",
            "created",
            told,
            session_id=row.session_id,
            run_id=row.run_id,
        )
    else:
        tx.emit(
            "question_batch_notification",
            "created",
            QuestionNotification(row.id, ending, by),
            session_id=row.session_id,
            run_id=row.run_id,
        )
    return True


def withdraw_asks(tx: Transaction, run_id: RunId, by: str) -> frozenset[str]:
    """End what a run still asks, because the run ends; the tool calls that were waiting (R69)."""
    rows = tx.pending_asks(run_id)
    for row in rows:
        end_ask(tx, row.id, WITHDRAWN, by)
    return frozenset(row.request.tool_call_id for row in rows)
