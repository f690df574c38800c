"""One session: its queue, and the drain task that drives its runs one after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import attrs
import trio

from crush_trio.agent.turn import TurnEnd
from crush_trio.dispatch.queue import CancelPlan, RunQueue
from crush_trio.dispatch.run import Run, Settings
from crush_trio.host import commits
from crush_trio.host.home import Home, commit_ending, is_accepted
from crush_trio.host.runs.cancel_ticket import CancelTicket
from crush_trio.host.runs.desk import Desk
from crush_trio.host.runs.drive import Driver
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.runs.run_journal import RunJournal
from crush_trio.host.titles import Titles
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import (
    CancelledBy,
    CancelReceipt,
    CoveredRun,
    Outcome,
    ProcessReport,
    RunError,
)
from crush_trio.store.contract import Commit, RunRow, Ticket, Transaction

logger = logging.getLogger(__name__)

UNWRITABLE = RunError("internal", "What the run wrote could not be stored.")


@attrs.define(eq=False)
class Session:
    """Decides synchronously, writes in order, and lets one drain task do the waiting.

    ``handoff`` is held from the moment a run's outcome is fixed until the next run has begun,
    across the terminal commit in between. ``_open`` are the runs in the queue, ``_owed`` those
    that ended without having begun and whose ending is not durable yet. `submit` and the marking
    half of `cancel` never take the lock.
    """

    home: Home
    id: SessionId
    ancestors: tuple[SessionId, ...] = ()
    queue: RunQueue = attrs.field(factory=RunQueue, init=False)
    handoff: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    titles: Titles = attrs.field(init=False)
    _journal: RunJournal | None = attrs.field(default=None, init=False)
    _open: dict[RunId, OpenRun] = attrs.field(factory=dict, init=False)
    _owed: dict[RunId, OpenRun] = attrs.field(factory=dict, init=False)
    _folded: list[OpenRun] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.titles = Titles(self.home, self.id)

    # --- acceptance -----------------------------------------------------------------------

    def accept(self, row: RunRow, if_busy: str, first: Commit[None] | None = None) -> OpenRun:
        """Accept a prompt: one synchronous step, from the check to the queued commit, in which
        ``first`` comes first.

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
        receipt = attrs.evolve(row.receipt, disposition=disposition, position=accepted.position)
        row = attrs.evolve(row, receipt=receipt)
        commit = self._accept_commit(row, accepted.interrupted, by, first)
        open_run = OpenRun(run, row, self.home.store.commit_nowait(self.home.id, commit))
        self._open[run.id] = open_run
        self._carry_out(accepted.interrupted, by, open_run.accepted)
        if accepted.start_drain:
            self.home.nursery.start_soon(self._drain)
        else:
            self.home.nursery.start_soon(self._see_in, open_run)
        return open_run

    async def _see_in(self, open_run: OpenRun) -> None:
        """If the acceptance fails, the run leaves at once, also when nobody waits for it."""
        if not await is_accepted(open_run):
            self.withdraw(open_run)

    def _accept_commit(
        self, row: RunRow, interrupted: CancelPlan, by: CancelledBy, first: Commit[None] | None
    ) -> Callable[[Transaction], RunRow]:
        ended = tuple(run.id for run in interrupted.ended)
        marked = interrupted.running.id if interrupted.running is not None else None

        def commit(tx: Transaction) -> RunRow:
            if first is not None:
                first(tx)
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
        if not open_run.ended.is_set():  # later, the id may be another run's
            self.home.forget(open_run.id)

    def open_runs(self) -> tuple[OpenRun, ...]:
        """The open runs, in the order in which they run."""
        return tuple(self._open[run.id] for run in self.queue.open_runs())

    def unfinished(self) -> tuple[OpenRun, ...]:
        """The open runs, and those whose ending is not durable yet."""
        return (*self._open.values(), *self._owed.values())

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
        return self._commit_cancel(self.queue.cancel(by, only), by)

    def clear(self, by: CancelledBy) -> Ticket[CancelReceipt]:
        """Cancel the waiting runs only (CW ``prompts/clear``, R49).

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.home.store.check_room()
        ended: list[Run] = []
        for run in self.queue.waiting():
            ended += self.queue.cancel(by, run.id).ended
        return self._commit_cancel(CancelPlan(ended=tuple(ended)), by)

    def close(self, by: CancelledBy) -> Ticket[CancelReceipt]:
        """Deletion: refuse new prompts, until `reopen`, and cancel the open ones.

        Raises:
            StoreError: The writer's queue is full or dead; nothing changed.
        """
        self.home.store.check_room()
        ticket = self._commit_cancel(self.queue.close(by), by)
        self.titles.cancel()
        return ticket

    def reopen(self) -> None:
        """The deletion could not be made durable: take new prompts again."""
        self.queue.reopen()

    def _commit_cancel(self, plan: CancelPlan, by: CancelledBy) -> Ticket[CancelReceipt]:
        receipt = CancelReceipt(
            watermark=self.home.last_accept(),
            runs=tuple(
                CoveredRun(run.id, "running" if run is plan.running else "queued")
                for run in plan.covered()
            ),
            too_late=tuple(run.id for run in plan.too_late),
        )
        ended = tuple(run.id for run in plan.ended)
        first_mark = plan.running is not None and plan.running.mark is by
        marked = plan.running.id if plan.running is not None and first_mark else None

        def commit(tx: Transaction) -> CancelReceipt:
            commits.cancel_runs(tx, ended, marked, by)
            return receipt

        ticket = self.home.store.commit_nowait(self.home.id, commit)
        self._carry_out(plan, by, ticket)
        return CancelTicket(ticket, acted=bool(plan.covered()))

    def stop(self, by: CancelledBy) -> None:
        """Shutdown: begin no more runs, interrupt the running one; queued ones stay (G11)."""
        self.queue.freeze()
        self.titles.cancel()
        running = self.queue.mark_current(by)
        if running is not None:
            self._open[running.id].interrupt()

    def _carry_out(self, plan: CancelPlan, by: CancelledBy, ticket: Ticket[object]) -> None:
        if plan.running is not None:
            self._open[plan.running.id].interrupt()
            self.titles.cancel(plan.running.id)
        if plan.ended:
            ended = tuple(self._open[run.id] for run in plan.ended)
            for open_run in ended:
                self._leave(open_run)
                self._owed[open_run.id] = open_run
            # Where the workspace has ended, whoever cancels still waits for the commit.
            self.home.start(self._see_out, ended, by, ticket)

    async def _see_out(
        self, ended: tuple[OpenRun, ...], by: CancelledBy, ticket: Ticket[object]
    ) -> None:
        """Runs that never began have ended in memory: hold on until that is durable (G1).

        The commit that was to say so may fail, with a full disk or together with an acceptance.
        Shielded and bounded as the drain task is.
        """
        ids = tuple(open_run.id for open_run in ended)
        durable = True
        with trio.CancelScope(shield=True):
            try:
                await ticket.wait()
            except Exception as exc:
                logger.warning("cancelling %s is tried again: %s", ", ".join(ids), exc)

                def commit(tx: Transaction) -> None:
                    commits.cancel_runs(tx, ids, None, by)

                durable = await commit_ending(self.home, commit)
        for open_run in ended:
            self._owed.pop(open_run.id, None)
            if not durable or not await is_accepted(open_run):
                self.home.forget(open_run.id)  # no event will say that it ended

    def _leave(self, open_run: OpenRun) -> None:
        if self._open.get(open_run.id) is open_run:
            del self._open[open_run.id]

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
                await driver.tell_end(end)
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
            if not await is_accepted(open_run):
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
            self._folded.clear,
        )
        self._journal = journal
        moved_behind = partial(self._moved_behind, open_run.run)
        return Driver(Desk(home, open_run, journal, self.titles.begin, moved_behind))

    def _moved_behind(self, now: Run) -> tuple[RunId, ...]:
        """The runs that wait although they were accepted before ``now``."""
        waiting = self.queue.waiting()
        return tuple(run.id for run in waiting if run.accept_seq < now.accept_seq)

    async def _fold(self) -> Sequence[RunRow]:
        """End the prompts that steer into the current run; their rows, in order."""
        ready: list[Run] = []
        for run in self.queue.foldable():
            open_run = self._open.get(run.id)  # it may have left while another was waited for
            if open_run is not None and await is_accepted(open_run):
                ready.append(run)
        folded = [self._open[run.id] for run in self.queue.fold(ready)]
        for open_run in folded:
            self._leave(open_run)
        self._folded += folded
        return [open_run.row for open_run in folded]

    async def _settle(
        self, open_run: OpenRun, driver: Driver, end: TurnEnd, processes: ProcessReport
    ) -> None:
        """Fix the outcome and make the terminal commit durable. Called with `handoff` held."""
        with suppress(Exception):  # it stays staged, and goes along with the terminal commit
            await driver.journal.confirm()
        outcome = self.queue.begin_settle(end.outcome)
        end = attrs.evolve(end, outcome=outcome)
        ending = driver.ending(end, processes)
        staged = driver.journal.take_staged()

        def commit(tx: Transaction) -> None:
            for step in staged:
                step(tx)
            driver.work.settle(tx, outcome)
            commits.end_run(tx, open_run.id, ending)

        folded = tuple(self._folded)
        self._journal = None

        def spare(tx: Transaction) -> None:
            for each in folded:
                commits.end_folded(tx, each.row, open_run.id)
            cancelled = outcome is Outcome.CANCELLED
            commits.end_as_stored(
                tx,
                open_run.id,
                outcome if cancelled else Outcome.FAILED,
                None if cancelled else UNWRITABLE,
                processes,
                open_run.run.mark,
            )

        durable = await commit_ending(self.home, commit, spare)
        self._folded.clear()
        if not durable:
            # The record still says running: the next start ends it, from what is stored (G2).
            self.queue.freeze()
            for each in (*folded, open_run):
                self.home.forget(each.id)
        self.queue.finish()
        self._leave(open_run)


def _decision_state(row: RunRow, if_busy: str) -> Run:
    request = row.request
    patterns = (request.allow_tools, request.deny_tools)
    settings = Settings(
        request.model,
        request.limits,
        request.permission_mode,
        patterns if any(patterns) else None,
        request.record,
        request.compact,
        request.sandbox,
    )
    return Run(
        row.record.id,
        row.record.accept_seq,
        steer=if_busy == "steer",
        settings=settings,
        kind=row.record.kind,
    )
