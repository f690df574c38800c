"""Small rows and commits that the store's and the journal's tests are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message, TextPart
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import Outcome, Receipt, RunRecord, RunState, run_complete
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import RunRow, Transaction, WorkspaceRow

W = WorkspaceId("w")
S = SessionId("s")


def message(name: str, text: str = "hello", *, role: str = "user", session: str = S) -> Message:
    """A message with one text part."""
    return Message(MessageId(name), role, SessionId(session), (TextPart(text),))


def run_row(
    name: str, *, accept: int = 1, session: str = S, workspace: WorkspaceId = W, digest: str = "d"
) -> RunRow:
    """A queued run."""
    record = RunRecord(
        id=RunId(name),
        workspace_id=workspace,
        session_id=SessionId(session),
        prompt=f"prompt of {name}",
        accept_seq=accept,
        created_at_ms=1,
    )
    return RunRow(
        record=record,
        request=PromptRequest(session_id=session, prompt=record.prompt, run_id=name),
        digest=digest,
        receipt=Receipt(record.id, record.session_id, 0, "queued", 0),
    )


def finished(row: RunRow, outcome: Outcome = Outcome.COMPLETED) -> RunRow:
    """The run at its end."""
    record = attrs.evolve(row.record, state=RunState.FINISHED, outcome=outcome, text="the answer")
    return attrs.evolve(row, record=record)


def founding(tx: Transaction) -> None:
    """Workspace ``w`` with session ``s``."""
    tx.put_workspace(WorkspaceRow(tx.workspace_id, f"/{tx.workspace_id}", 5))
    tx.put_session(Session(S, title="first"))


def notice(text: str, *, session: SessionId | None = S, kind: str = "agent_event") -> Any:
    """A commit that only emits one event; its value is the event's seq."""

    def commit(tx: Transaction) -> int:
        return tx.emit(kind, "updated", {"type": text}, session_id=session)

    return commit


def ending(row: RunRow) -> Callable[[Transaction], int]:
    """A commit that stores a run's end and its terminal event."""

    def commit(tx: Transaction) -> int:
        done = finished(row)
        tx.put_run(done)
        return tx.emit(
            "run_complete",
            "created",
            run_complete(done.record),
            session_id=done.record.session_id,
            run_id=done.record.id,
        )

    return commit
