"""What waits for a person in one workspace, and who decides it: one synchronous step each."""

from __future__ import annotations

import logging
from contextlib import suppress

import attrs
import trio

from crush_trio.dispatch.run import Run
from crush_trio.host import commits
from crush_trio.host.asks.endings import SERVER, WITHDRAWN, end_ask
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.protocol.questions import QuestionResponse
from crush_trio.protocol.requests import Resolution
from crush_trio.store.contract import AskRow, Grant, Store, Ticket, Transaction

logger = logging.getLogger(__name__)
_EVENTS = {"permission": "permission_request", "question": "question_batch_request"}
"""The event that shows a request, by the kind of its row."""


@attrs.frozen
class Verdict:
    """How a request ended: a word of `Resolution`, and who decided.

    ``message`` goes to the model with a denial, ``responses`` with answered questions.
    """

    ending: str
    by: str
    message: str = ""
    responses: tuple[QuestionResponse, ...] = ()


@attrs.define(eq=False)
class Pending:
    """One request while it waits. ``verdict`` is set once, with the commit that records it.

    ``grant`` is what an answer for the whole session would allow, ``tool`` what waits.
    """

    row: AskRow
    run: Run
    tool: str
    grant: Grant | None = None
    verdict: Verdict | None = attrs.field(default=None, init=False)
    recorded: Ticket[bool] | None = attrs.field(default=None, init=False)
    decided: trio.Event = attrs.field(factory=trio.Event, init=False)


@attrs.define(eq=False)
class Waiting:
    """The requests of one workspace that wait. None delays another one or holds a lock (I28).

    A request is in `_pending` from before its row is committed, so that an answer to its event
    always finds it, until its run goes on or ends.
    """

    store: Store
    workspace_id: WorkspaceId
    _pending: dict[str, Pending] = attrs.field(factory=dict, init=False)

    def find(self, ask_id: str, kind: str) -> Pending | None:
        """A request of this kind that has not been decided."""
        found = self._pending.get(ask_id)
        return found if found is not None and found.row.kind == kind else None

    def undecided(self, kind: str) -> tuple[Pending, ...]:
        """Those that an answer can still decide, the oldest first."""
        return tuple(
            each
            for each in self._pending.values()
            if each.row.kind == kind and each.verdict is None and each.run.mark is None
        )

    async def ask(self, row: AskRow, run: Run, tool: str, grant: Grant | None = None) -> Verdict:
        """Ask, and wait for the decision; it is durable when this returns.

        Args:
            row: The request; its kind is what the run record says it waits on, and it expires
                after its own ``deadline_s``.
            run: The run that waits; once it is marked no answer counts.
            tool: The tool whose call waits.
            grant: What "allow for this session" would allow.

        Raises:
            StoreError: The request or the decision could not be made durable; nothing may start.
        """
        pending = Pending(row, run, tool, grant)

        def opened(tx: Transaction) -> None:
            tx.put_ask(attrs.evolve(row, created_at_ms=tx.now_ms))
            commits.wait_on(tx, row.run_id, row.kind)
            shown = _EVENTS[row.kind]
            tx.emit(shown, "created", row.request, session_id=row.session_id, run_id=row.run_id)

        ticket = self.store.commit_nowait(self.workspace_id, opened)
        self._pending[row.id] = pending
        try:
            await ticket.wait()
            with trio.move_on_after(row.deadline_s):
                await pending.decided.wait()
            verdict = pending.verdict
            if verdict is None:
                verdict = Verdict("expired", SERVER)
                self.decide(pending, verdict)
            if pending.recorded is None or not (await pending.recorded.wait()).value:
                return Verdict(WITHDRAWN, SERVER)  # the store says that it had ended already
            return pending.verdict or verdict
        finally:
            if pending.verdict is None:
                self._withdraw(pending)
            del self._pending[row.id]

    def decide(self, pending: Pending, verdict: Verdict) -> bool:
        """Decide a request, unless that is done or its run is to end; the first one counts.

        Synchronous: afterwards `Pending.recorded` is the commit of the ending that counts.

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        if pending.verdict is not None:
            return False
        if pending.run.mark is not None:
            self._withdraw(pending)
            return False
        row = pending.row

        def commit(tx: Transaction) -> bool:
            if not end_ask(tx, row.id, verdict.ending, verdict.by):
                return False
            if verdict.ending == "allowed_session" and pending.grant is not None:
                given = attrs.evolve(pending.grant, by=verdict.by, at_ms=tx.now_ms)
                tx.add_grant(row.session_id, given)
            commits.wait_on(tx, row.run_id, f"tool:{pending.tool}")
            return True

        self._set(pending, verdict, self.store.commit_nowait(self.workspace_id, commit))
        logger.info(
            "%s: request %s (%s) of run %s: %s",
            verdict.by,
            row.id,
            row.kind,
            row.run_id,
            verdict.ending,
        )
        return True

    async def answer(self, ask_id: str, kind: str, verdict: Verdict) -> Resolution:
        """Decide a request, or say who did; durable when this returns.

        Raises:
            StoreError: It could not be made durable; the tool does not start.
        """
        pending = self.find(ask_id, kind)
        if pending is not None:
            mine = self.decide(pending, verdict)
            if pending.recorded is not None:
                if mine:
                    if (await pending.recorded.wait()).value:
                        return Resolution(True, verdict.ending, verdict.by)
                else:
                    with suppress(StoreError):  # then the run's end withdraws it
                        await pending.recorded.wait()
        row = await self.store.ask(ask_id)
        if row is None or row.workspace_id != self.workspace_id or row.kind != kind:
            return Resolution(False)
        if row.ending is None:  # its run is ending; how it ended may be on its way to the disk
            with suppress(StoreError):
                ticket = self.store.commit_nowait(self.workspace_id, lambda tx: tx.ask(ask_id))
                row = (await ticket.wait()).value or row
        if row.ending is None:  # the withdrawal goes with the run's own ending
            return Resolution(False, WITHDRAWN, SERVER)
        return Resolution(False, row.ending, row.decided_by, row.decided_at_ms)

    def _withdraw(self, pending: Pending) -> None:
        """The run ends: no answer counts any more. The run's ending does it if this fails."""
        mark = pending.run.mark
        by = SERVER if mark is None else mark.principal
        ask_id = pending.row.id
        ticket = None
        with suppress(StoreError):
            ticket = self.store.commit_nowait(
                self.workspace_id, lambda tx: end_ask(tx, ask_id, WITHDRAWN, by)
            )
        self._set(pending, Verdict(WITHDRAWN, by), ticket)

    def _set(self, pending: Pending, verdict: Verdict, recorded: Ticket[bool] | None) -> None:
        pending.verdict = verdict
        pending.recorded = recorded
        pending.decided.set()
