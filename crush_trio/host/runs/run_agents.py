"""What one run may do with sub-agents; an `agent.ports.SubAgents`."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import below
from crush_trio.agent.budget import Budget
from crush_trio.agent.ports import HasSmaller, Model, SubAgentEnd, SubAgentTask
from crush_trio.agent.turn import Turn
from crush_trio.dispatch.run import Phase
from crush_trio.host.runs.desk import Desk
from crush_trio.host.runs.open_run import OpenRun, SubAgent
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelledBy, Limits, RunError, RunRecord, RunState

logger = logging.getLogger(__name__)

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
PARENT = "parent"
"""The reason of a sub-agent's cancellation when the run it works for ends."""


@attrs.define(eq=False)
class RunAgents:
    """Runs sub-agents for the run of ``desk``, each as a run of its own in a child session.

    A sub-agent is a run like any other, in the queue of its own session: what is special is that
    this run waits for it. However the waiting ends, the sub-agent has ended before (G10); the one
    exception is a sub-agent that does not end within `limits.SUB_AGENT_END_S`.
    """

    desk: Desk
    turn: Turn
    _asked: Counter[str] = attrs.field(factory=Counter, init=False)

    async def run(self, task: SubAgentTask) -> SubAgentEnd:
        """See `agent.ports.SubAgents`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a run that is to end begins no other
        child = self._begin(task)
        try:
            await child.ended.wait()
            record = await self._count(child)
        except trio.Cancelled:
            await self._end(child)  # noqa: ASYNC102  # it shields and bounds itself
            raise
        return _end_of(record, child)

    def _begin(self, task: SubAgentTask) -> OpenRun:
        wanted = below.left(self._budget(), self.turn.progress)
        if isinstance(wanted, RunError):
            raise Refused(wanted.code, wanted.message)
        desk, model = self.desk, self._model(task)
        sub_agent = SubAgent(desk.open_run.id, task, model)
        session_ids = (self._session_id(task.call_id), *desk.journal.session_ids)
        request = self._request(task, session_ids[0], model, wanted)
        return desk.home.sub_sessions.begin(session_ids, request, sub_agent, desk.open_run)

    def _budget(self) -> Budget:
        return Budget(self.turn.given.limits, self.turn.given.model.info)

    def _model(self, task: SubAgentTask) -> Model:
        mine = self.turn.given.model
        smaller = mine.smaller() if task.small and isinstance(mine, HasSmaller) else None
        return smaller or mine

    def _request(
        self, task: SubAgentTask, session_id: SessionId, model: Model, wanted: Limits
    ) -> PromptRequest:
        """What this run was asked with, but for what is the task's own: so whatever it may or may
        not, its sub-agents may or may not, too."""
        return attrs.evolve(
            self.desk.row.request,
            session_id=session_id,
            prompt=task.prompt,
            attachments=(),
            run_id=None,
            if_busy="enqueue",
            model=f"{model.info.provider}/{model.info.model}",
            limits=wanted,
            on_disconnect=None,
            record=None,
        )

    def _session_id(self, call_id: str) -> SessionId:
        """The message that asked for the call, and the call (CW 7.5).

        A call's id is a provider's invention, and a session's id is the name of a folder.
        """
        message = next(
            placed.message
            for placed in reversed(self.desk.journal.messages)
            if any(call.id == call_id for call in placed.message.tool_calls())
        )
        name = call_id
        if not _PLAIN.fullmatch(call_id):
            name = hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:32]
        self._asked[call_id] += 1
        more = f"-{self._asked[call_id]}" if self._asked[call_id] > 1 else ""
        return SessionId(f"{message.id}$${name}{more}")

    # --- endings --------------------------------------------------------------------------

    async def _end(self, child: OpenRun) -> None:
        """End a sub-agent because this run is to end, and wait for it: shielded and bounded."""
        with trio.move_on_after(limits.SUB_AGENT_END_S, shield=True):
            await self._cancel(child)
            await child.ended.wait()
        if child.run.phase in (Phase.SETTLING, Phase.FINISHED):
            with trio.CancelScope(shield=True):
                # Nothing but commits is left, and those end or fail: as for the drain task.
                await child.ended.wait()
        if not child.ended.is_set():
            logger.error("sub-agent %s does not end; its run does", child.id)
            return
        with trio.move_on_after(limits.SUB_AGENT_END_S, shield=True):
            try:
                await self._count(child)
            except Exception as exc:  # this run is ending for a reason of its own
                logger.warning("what sub-agent %s has used is not known: %s", child.id, exc)

    async def _cancel(self, child: OpenRun) -> None:
        mark = self.desk.open_run.run.mark
        by = CancelledBy("server" if mark is None else mark.principal, reason=PARENT)
        by = attrs.evolve(by, client_id=mark.client_id if mark is not None else None)
        while not child.ended.is_set():
            try:
                self.desk.home.sub_sessions.cancel(child, by)
            except StoreError as exc:
                logger.warning("sub-agent %s cannot be cancelled yet: %s", child.id, exc)
                await trio.sleep(limits.SUB_AGENT_AGAIN_S)
            else:
                return

    async def _count(self, child: OpenRun) -> RunRecord:
        """The record of a sub-agent that has ended; what it used counts for this run.

        Raises:
            StoreError: It, or its ending, is not durable.
        """
        row = await self.desk.home.store.run(child.id)
        if row is None:
            await child.accepted.wait()  # raises what kept it from being accepted
        if row is None or row.record.state is not RunState.FINISHED:
            raise StoreError("store_failed", "The ending of a sub-agent could not be stored.")
        turn = self.turn
        turn.progress = below.with_sub_agent(turn.progress, row.record, turn.given.limits)
        return row.record


def _end_of(record: RunRecord, child: OpenRun) -> SubAgentEnd:
    error = record.error.message if record.error is not None else ""
    if record.cancelled_by is not None and not error:
        error = f"The sub-agent was cancelled by {record.cancelled_by.principal}."
    if record.outcome is None:
        raise ValueError(f"run {record.id} has no outcome")
    return SubAgentEnd(
        session_id=record.session_id,
        run_id=record.id,
        outcome=record.outcome,
        text=record.text,
        error=error,
        cost_usd=record.cost_usd,
        denied=record.denied,
        stopped=child.sub_agent is not None and child.sub_agent.stopped,
    )
