"""One session: its queue, and the drain task that drives its runs one after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.turn import TurnEnd
from crush_trio.dispatch.queue import CancelPlan, RunQueue
from crush_trio.dispatch.run import Run, Settings
from crush_trio.host import commits
from crush_trio.host.drive import Driver, account
from crush_trio.host.kit import Kit
from crush_trio.host.open_run import OpenRun
from crush_trio.host.run_journal import RunJournal
from crush_trio.journal import Feed
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import (
    CancelledBy,
    CancelReceipt,
    CoveredRun,
    ProcessReport,
)
from crush_trio.store.contract import RunRow, Store, Ticket, Transaction

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Home:
    """What a session uses of the workspace it lives in.

    ``nursery`` outlives every drain task. ``last_accept`` gives the newest accept sequence.
    """

    id: WorkspaceId
    path: Path
    nursery: trio.Nursery
    store: Store
    feed: Feed
    kit: Kit
    last_accept: Callable[[], int]
    forget: Callable[[RunId], None]
    stopping: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Session:
    """Decides synchronously, writes in order, and lets one drain task do the waiting.

    ``handoff`` is held from the moment a run's outcome is fixed until the next run has begun,
    across the terminal commit in between. While nobody holds it, the queue and the store agree on
    which runs have ended. `submit` and the marking half of `cancel` never take it.
    """

    home: Home
    id: SessionId
    ancestors: tuple[SessionId, ...] = ()
    queue: RunQueue = attrs.field(factory=RunQueue, init=False)
    handoff: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _journal: RunJournal | None = attrs.field(default=None, init=False)
    _open: dict[RunId, OpenRun] = attrs.field(factory=dict, init=False)

    # --- acceptance -----------------------------------------------------------------------

    def accept(self, row: RunRow, if_busy: str) -> OpenRun:
        """Accept a prompt: one synchronous step, from the check to the queued commit.

        Returns:
            The open run; its `accepted` ticket gives the row with the receipt once it is durable.

        Raises:
            Refused: The session does not take it now; nothing changed.
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.queue.check_accept(if_busy)
        self.home.store.check_room()
        by = CancelledBy(row.principal, row.request.client_id, "interrupt")
        run = _decision_state(row, if_busy)
        accepted = self.queue.accept(run, if_busy, by)
        disposition = (
            "started" if not accepted.position else "steered" if accepted.steered else "queued"
        )
        row = attrs.evolve(
            row,
            receipt=attrs.evolve(row.receipt, disposition=disposition, position=accepted.position),
        )
        commit = self._accept_commit(row, accepted.interrupted, by)
        open_run = OpenRun(run, row, self.home.store.commit_nowait(self.home.id, commit))
        self._open[run.id] = open_run
        self._carry_out(accepted.interrupted)
        if accepted.start_drain:
            self.home.nursery.start_soon(self._drain)
        return open_run

    def _accept_commit(
        self, row: RunRow, interrupted: CancelPlan, by: CancelledBy
    ) -> Callable[[Transaction], RunRow]:
        ended = tuple(run.id for run in interrupted.ended)
        marked = interrupted.running.id if interrupted.running is not None else None

        def commit(tx: Transaction) -> RunRow:
            commits.cancel_runs(tx, ended, marked, by)
            return commits.accept_run(tx, row)

        return commit

    def restore(self, row: RunRow, accepted: Ticket[RunRow]) -> OpenRun:
        """Take in a stored queued run at start, without a new acceptance (G2)."""
        run = _decision_state(row, "enqueue")
        decision = self.queue.accept(run, "enqueue")
        open_run = OpenRun(run, row, accepted)
        self._open[run.id] = open_run
        if decision.start_drain:
            self.home.nursery.start_soon(self._drain)
        return open_run

    def withdraw(self, open_run: OpenRun) -> None:
        """An acceptance did not become durable: the run was never accepted. Idempotent."""
        self.queue.withdraw(open_run.run)
        self._leave(open_run)
        self.home.forget(open_run.id)

    def open_runs(self) -> tuple[OpenRun, ...]:
        """The open runs, in the order in which they run."""
        return tuple(self._open[run.id] for run in self.queue.open_runs())

    def waiting_runs(self) -> tuple[OpenRun, ...]:
        """The runs that have not begun, in the order in which they will."""
        return tuple(self._open[run.id] for run in self.queue.waiting())

    def live_message(self) -> Message | None:
        """The message that is being written now, as it stands."""
        return self._journal.open_message() if self._journal is not None else None

    def find(self, run_id: RunId) -> OpenRun | None:
        """An open run, also one whose terminal commit is still on its way."""
        return self._open.get(run_id)

    # --- cancelling -----------------------------------------------------------------------

    def cancel(self, by: CancelledBy, only: RunId | None = None) -> Ticket[CancelReceipt]:
        """Cancel open runs: acts at once; the ticket's value is the receipt, once durable (G4).

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.home.store.check_room()
        plan = self.queue.cancel(by, only)
        receipt = CancelReceipt(
            watermark=self.home.last_accept(),
            runs=tuple(
                CoveredRun(run.id, "running" if run is plan.running else "queued")
                for run in plan.covered()
            ),
            too_late=tuple(run.id for run in plan.too_late),
        )
        ended = tuple(run.id for run in plan.ended)
        marked = plan.running
        first_mark = marked is not None and marked.mark is by

        def commit(tx: Transaction) -> CancelReceipt:
            mark = marked.id if marked is not None and first_mark else None
            commits.cancel_runs(tx, ended, mark, by)
            return receipt

        ticket = self.home.store.commit_nowait(self.home.id, commit)
        self._carry_out(plan)
        return ticket

    def stop(self, by: CancelledBy) -> None:
        """Shutdown: begin no more runs, interrupt the running one; queued ones stay (G11)."""
        self.queue.freeze()
        running = self.queue.mark_current(by)
        if running is not None:
            self._open[running.id].interrupt()

    def close(self, by: CancelledBy) -> Ticket[CancelReceipt]:
        """Deletion: refuse new prompts for good and cancel the open ones."""
        self.queue.closed = True
        return self.cancel(by)

    def _carry_out(self, plan: CancelPlan) -> None:
        if plan.running is not None:
            self._open[plan.running.id].interrupt()
        for run in plan.ended:
            self._leave(self._open[run.id])

    def _leave(self, open_run: OpenRun) -> None:
        self._open.pop(open_run.id, None)

    def clear(self, by: CancelledBy) -> Ticket[CancelReceipt]:
        """Cancel the waiting runs only (CW ``prompts/clear``, R49).

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.home.store.check_room()
        ended: list[Run] = []
        for run in self.queue.waiting():
            ended += self.queue.cancel(by, run.id).ended
        covered = tuple(CoveredRun(run.id, "queued") for run in ended)
        receipt = CancelReceipt(self.home.last_accept(), covered)
        ids = tuple(run.id for run in ended)

        def commit(tx: Transaction) -> CancelReceipt:
            commits.cancel_runs(tx, ids, None, by)
            return receipt

        ticket = self.home.store.commit_nowait(self.home.id, commit)
        self._carry_out(CancelPlan(ended=tuple(ended)))
        return ticket

    # --- editing --------------------------------------------------------------------------

    def edit(self, run_id: RunId, prompt: str | None, position: int | None) -> Ticket[RunRow]:
        """Change the prompt or the place of a waiting run.

        Raises:
            Refused: ``run_not_queued``; nothing changed.
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.home.store.check_room()
        open_run = self._open.get(run_id)
        if open_run is None or open_run.run not in self.queue.waiting():
            raise Refused("run_not_queued", "The run is not waiting any more; nothing was changed.")
        if position is not None:
            self.queue.move(run_id, position)
        if prompt is not None:
            open_run.row = attrs.evolve(
                open_run.row,
                request=attrs.evolve(open_run.row.request, prompt=prompt),
                record=attrs.evolve(open_run.row.record, prompt=prompt),
            )

        def commit(tx: Transaction) -> RunRow:
            row = commits.stored_run(tx, run_id)
            if prompt is not None:
                request = attrs.evolve(row.request, prompt=prompt)
                tx.put_run(attrs.evolve(row, request=request))
                return commits.change_run(tx, run_id, prompt=prompt)
            return commits.change_run(tx, run_id)

        return self.home.store.commit_nowait(self.home.id, commit)

    # --- the drain task -------------------------------------------------------------------

    async def _drain(self) -> None:
        """Drive runs one after another until the session is idle.

        The one shield without a deadline: cancellation from outside reaches a run through its own
        scope, so that it always has a reason and always ends with a record. What bounds it is
        `stop` on every way out of the workspace, and behind that the watchdog.
        """
        with trio.CancelScope(shield=True):
            async with self.handoff:
                open_run = await self._begin_next()
            while open_run is not None:
                driver = self._driver(open_run)
                end = await driver.drive()
                processes = await driver.close()
                async with self.handoff:
                    await self._settle(open_run, driver, end, processes)
                    open_run = await self._begin_next()

    async def _begin_next(self) -> OpenRun | None:
        """The next run, begun; its acceptance is durable. ``None`` ends the drain task."""
        while True:
            head = self.queue.head()
            if head is None:
                return None
            open_run = self._open[head.id]
            try:
                await open_run.accepted.wait()
            except Exception as exc:
                logger.warning("run %s was not accepted: %s", head.id, exc)
                self.withdraw(open_run)
                continue
            if self.queue.waiting()[:1] == (head,) and not self.queue.frozen:
                self.queue.begin(head)
                return open_run

    def _driver(self, open_run: OpenRun) -> Driver:
        home = self.home
        journal = RunJournal(
            home.store,
            home.feed,
            home.id,
            (self.id, *self.ancestors),
            open_run.id,
            open_run.run.accept_seq,
            self._fold,
        )
        self._journal = journal
        return Driver(home.store, home.kit, home.path, open_run, journal)

    async def _fold(self) -> Sequence[RunRow]:
        """End the prompts that steer into the current run; their rows, in order."""
        ready: list[Run] = []
        for run in self.queue.foldable():
            try:
                await self._open[run.id].accepted.wait()
            except Exception:
                logger.warning("run %s was not accepted and is not folded", run.id)
                continue
            ready.append(run)
        folded = [self._open[run.id] for run in self.queue.fold(ready)]
        for open_run in folded:
            self._leave(open_run)
        return [open_run.row for open_run in folded]

    async def _settle(
        self, open_run: OpenRun, driver: Driver, end: TurnEnd, processes: ProcessReport
    ) -> None:
        """Fix the outcome and make the terminal commit durable. Called with `handoff` held."""
        outcome = self.queue.begin_settle(end.outcome)
        end = attrs.evolve(end, outcome=outcome)
        ending, usage, cost = driver.ending(end, processes)
        staged = driver.journal.take_staged()

        def commit(tx: Transaction) -> None:
            for step in staged:
                step(tx)
            session = tx.session(self.id)
            if session is not None and (cost or usage.input_tokens or usage.output_tokens):
                account(tx, session, usage, cost)
            commits.end_run(tx, open_run.id, ending)

        if await self._commit_terminal(commit):
            self.queue.finish()
            self._leave(open_run)
        else:
            # The record still says running: the next start ends it, from what is stored (G2).
            self.queue.freeze()
            self.queue.finish()

    async def _commit_terminal(self, commit: Callable[[Transaction], None]) -> bool:
        """Commit until it is durable; ``False`` if the store is dead or the server stops first.

        A full disk is waited out: it is tried again every `limits.DISK_FULL_RETRY_S`.
        """
        while True:
            try:
                await self.home.store.commit_nowait(self.home.id, commit).wait()
            except StoreError as exc:
                if exc.code != "disk_full" or self.home.stopping.is_set():
                    logger.error("a terminal commit failed: %s", exc)
                    return False
                with trio.move_on_after(limits.DISK_FULL_RETRY_S):
                    await self.home.stopping.wait()
            else:
                return True


def _decision_state(row: RunRow, if_busy: str) -> Run:
    request = row.request
    return Run(
        row.record.id,
        row.record.accept_seq,
        steer=if_busy == "steer",
        settings=Settings(request.model, request.limits, request.permission_mode),
    )
