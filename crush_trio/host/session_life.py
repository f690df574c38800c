"""How sessions come, are renamed and go: each change is one commit with its event."""

from __future__ import annotations

from contextlib import suppress

import trio

from crush_trio.host import commits
from crush_trio.host.recovery import remove_outputs
from crush_trio.host.session import Session
from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId, new_id
from crush_trio.protocol.runs import CancelledBy, RunState
from crush_trio.protocol.sessions import Session as SessionRecord
from crush_trio.store.contract import Transaction


async def create_session(workspace: Workspace, title: str) -> SessionRecord:
    """A new session, durable when this returns; publishes ``session/created``."""
    session_id = SessionId(new_id())

    def commit(tx: Transaction) -> SessionRecord:
        now_s = tx.now_ms // 1000
        record = SessionRecord(session_id, title=title, created_at=now_s, updated_at=now_s)
        tx.put_session(record)
        tx.emit("session", "created", record, session_id=session_id)
        return record

    record = (await workspace.home.store.commit_nowait(workspace.id, commit).wait()).value
    workspace.note_created(session_id)
    return record


async def rename_session(workspace: Workspace, session_id: SessionId, title: str) -> SessionRecord:
    """A session with a new title, durable when this returns.

    Raises:
        Refused: ``session_not_found``.
    """
    await workspace.session(session_id)

    def commit(tx: Transaction) -> SessionRecord | None:
        commits.touch_session(tx, session_id, title=title)
        return tx.session(session_id)

    renamed = (await workspace.home.store.commit_nowait(workspace.id, commit).wait()).value
    if renamed is None:
        raise Refused("session_not_found", f"There is no session {session_id!r} here.")
    return renamed


async def delete_session(workspace: Workspace, session_id: SessionId, by: CancelledBy) -> None:
    """Delete a session and those below it; its runs are cancelled and awaited. Twice is fine.

    The work belongs to the workspace: a caller that goes away only stops waiting for it.

    Raises:
        StoreError: It could not be made durable.
    """
    done = trio.Event()
    failure: StoreError | None = StoreError("store_failed", "The server stopped meanwhile.")

    async def work() -> None:
        nonlocal failure
        try:
            await _delete(workspace, session_id, by)
            failure = None
        except StoreError as exc:
            failure = exc
        finally:
            done.set()

    if not workspace.home.start(work):
        raise StoreError("server_stopping", "The workspace has just closed; try again.")
    await done.wait()
    if failure is not None:
        raise failure


async def _delete(workspace: Workspace, session_id: SessionId, by: CancelledBy) -> None:
    doomed: list[Session] = []
    await _below(workspace, session_id)  # a store that is full fails before anything has changed
    try:
        await _close(workspace, session_id, by, doomed)
        # Looked up only now: a run of the closed session begins no more sub-agents.
        for each in await _below(workspace, session_id):
            await _close(workspace, each, by, doomed)
        for open_run in [each for session in doomed for each in session.unfinished()]:
            await open_run.ended.wait()
            await _check_ended(workspace, open_run.id)
        await workspace.home.jobs.end_sessions(session.id for session in doomed)
        await _remove(workspace, tuple(session.id for session in doomed))
    except StoreError:
        for session in doomed:
            session.reopen()
        raise
    for session in doomed:
        workspace.forget_session(session.id)


async def _close(
    workspace: Workspace, session_id: SessionId, by: CancelledBy, closed: list[Session]
) -> None:
    """Let a session take no more runs, and cancel the open ones."""
    with suppress(Refused):  # deleted meanwhile
        session = await workspace.session(session_id)
        session.close(by)
        closed.append(session)


async def _check_ended(workspace: Workspace, run_id: RunId) -> None:
    """A run counts as ended also if its ending could not be stored before the server stopped.

    The next start has to end it then, and for that it needs its session.
    """
    row = await workspace.home.store.run(run_id)
    if row is not None and row.record.state is not RunState.FINISHED:
        raise StoreError("store_failed", "The session was kept: a run's ending cannot be stored.")


async def _below(workspace: Workspace, session_id: SessionId) -> tuple[SessionId, ...]:
    def commit(tx: Transaction) -> tuple[SessionId, ...]:
        return tx.sub_sessions(session_id)

    return (await workspace.home.store.commit_nowait(workspace.id, commit).wait()).value


async def _remove(workspace: Workspace, session_ids: tuple[SessionId, ...]) -> None:
    """Delete sessions in one transaction; what lies below comes before what it lies below."""

    def commit(tx: Transaction) -> None:
        for session_id in reversed(session_ids):
            record = tx.session(session_id)
            if record is not None:
                tx.remove_session(session_id)
                tx.emit("session", "deleted", record, session_id=session_id)

    await workspace.home.store.commit_nowait(workspace.id, commit).wait()
    # After it: a crash in between must not leave a session without its outputs. What it leaves
    # of the outputs goes at the next start.
    folders = [f"{workspace.id}/{session_id}" for session_id in session_ids]
    await remove_outputs(workspace.home.kit, folders)
