"""A data directory with many stored sessions, filled through the store itself.

    python stored.py DATA_DIR WORKSPACE_PATH SESSIONS

Each session has one finished run, a prompt, an answer of 2 kB and the events that told of them.
A process of its own, because it works on the store as a server would.
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import trio

from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import FinishPart, Message, TextPart
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import Outcome, Receipt, RunRecord, RunState, run_complete
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Commit, RunRow, Transaction, WorkspaceRow
from crush_trio.store.sqlite import open_store

W = WorkspaceId("benchworkspace")
AT_ONCE = 200  # commits queued before the last one is waited for
ANSWER = "word " * 400


def session_with_a_run(number: int) -> Commit[None]:
    """One session as a finished turn leaves it."""
    session_id, run_id = SessionId(f"s{number}"), RunId(f"r{number}")
    session = Session(session_id, title=f"session {number}", updated_at=number)
    user = Message(MessageId(f"u{number}"), "user", session_id, (TextPart("go"),), run_id=run_id)
    parts = (TextPart(ANSWER), FinishPart("end_turn", 1))
    answer = Message(MessageId(f"a{number}"), "assistant", session_id, parts, run_id=run_id)
    record = RunRecord(run_id, W, session_id, "go", number, 1)
    request = PromptRequest(session_id, "go", run_id=run_id)
    queued = RunRow(record, request, "digest", Receipt(run_id, session_id, 0, "started", 0))
    done = attrs.evolve(
        record,
        state=RunState.FINISHED,
        outcome=Outcome.COMPLETED,
        text=ANSWER,
        message_id=answer.id,
    )

    def commit(tx: Transaction) -> None:
        tx.put_session(session)
        tx.emit("session", "created", session, session_id=session_id)
        tx.insert_run(queued)
        tx.emit("run", "created", record, session_id=session_id, run_id=run_id)
        for ordinal, message in enumerate((user, answer)):
            tx.put_message(message, accept_seq=number, ordinal=ordinal)
            tx.emit("message", "created", message, session_id=session_id, run_id=run_id)
        tx.put_run(attrs.evolve(queued, record=done))
        tx.emit("run", "updated", done, session_id=session_id, run_id=run_id)
        end = run_complete(done)
        tx.emit("run_complete", "updated", end, session_id=session_id, run_id=run_id)

    return commit


async def fill(data: Path, workspace: str, sessions: int) -> None:
    """Store the workspace and its sessions."""
    async with open_store(data, publish=lambda *_: None) as store:
        row = WorkspaceRow(W, workspace, 1)
        await store.commit_nowait(W, lambda tx: tx.put_workspace(row)).wait()
        for start in range(1, sessions + 1, AT_ONCE):
            tickets = [
                store.commit_nowait(W, session_with_a_run(number))
                for number in range(start, min(start + AT_ONCE, sessions + 1))
            ]
            await tickets[-1].wait()


if __name__ == "__main__":
    trio.run(fill, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
