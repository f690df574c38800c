"""Where sub-agents are accepted: a child session and its run, made in one step (CW 7.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from crush_trio.host.runs.open_run import OpenRun, SubAgent
from crush_trio.host.session import Session
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId, SessionId, new_id
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelledBy
from crush_trio.protocol.sessions import Session as SessionRecord
from crush_trio.store.contract import Transaction

if TYPE_CHECKING:
    from crush_trio.host.workspace import Workspace  # which stands on this file


@attrs.define(eq=False)
class SubSessions:
    """The child sessions of one workspace, as the runs that make them see them."""

    workspace: Workspace

    def begin(
        self,
        session_ids: tuple[SessionId, ...],
        request: PromptRequest,
        sub_agent: SubAgent,
        caller: OpenRun,
    ) -> OpenRun:
        """Make a session and accept a sub-agent's run in it: one synchronous step, one commit.

        ``session_ids`` are the new session and those above it, the nearest first.

        Raises:
            Refused, StoreError: As `Workspace.submit`; nothing changed.
        """
        child_id, *above = session_ids
        workspace, task = self.workspace, sub_agent.task
        if workspace.find_session(child_id) is not None:
            raise Refused("session_exists", "This call has a sub-agent already.")

        def opens(tx: Transaction) -> None:
            now_s = tx.now_ms // 1000
            record = SessionRecord(
                child_id, above[0], task.title, created_at=now_s, updated_at=now_s
            )
            tx.put_session(record)
            tx.emit("session", "created", record, session_id=child_id)

        session = Session(workspace.home, child_id, tuple(above))
        workspace.add_session(session)
        try:
            return workspace.submit(
                session,
                request,
                run_id=RunId(new_id()),
                digest=f"sub-agent {child_id}",
                principal=caller.row.principal,
                model=sub_agent.model,
                kind="agent",
                env=caller.env,
                sub_agent=sub_agent,
                first=opens,
            )
        except BaseException:
            workspace.forget_session(child_id)
            raise

    def cancel(self, child: OpenRun, by: CancelledBy) -> None:
        """Cancel a sub-agent's run and nothing else of its session; acts at once.

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        session = self.workspace.find_session(child.session_id)
        if session is not None:
            session.cancel(by, child.id)
