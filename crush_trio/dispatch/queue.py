"""Decides which run may touch a session now, and which come after it.

Every method is one indivisible step: it never awaits, and what it returns is what the caller must
now do about it. An illegal step raises and changes nothing.

Invariants: at most one run is current; runs start in acceptance order (G5); a run is in the queue
exactly from acceptance to its end; while anything waits and the queue is not frozen, a drain task
exists (`driving`).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from crush_trio import limits
from crush_trio.dispatch.run import Phase, Run
from crush_trio.protocol.errors import InvalidTransition, Refused
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import CancelledBy, Outcome


@attrs.frozen
class CancelPlan:
    """What a cancel covered (G4).

    ``running`` is marked and must be interrupted; ``ended`` never began and have ended now, in
    acceptance order; ``too_late`` had its outcome fixed before.
    """

    running: Run | None = None
    ended: tuple[Run, ...] = ()
    too_late: tuple[Run, ...] = ()

    def covered(self) -> tuple[Run, ...]:
        """Running and ended, in acceptance order."""
        return (*((self.running,) if self.running is not None else ()), *self.ended)


@attrs.frozen
class Accepted:
    """What acceptance decided.

    ``position`` counts the open runs before this one. ``start_drain``: the caller must start the
    session's drain task. ``steered``: it will be folded at the running turn's next step, if there
    is one. ``interrupted``: what the policy ``interrupt`` cancelled, in the same step.
    """

    position: int
    start_drain: bool
    steered: bool
    interrupted: CancelPlan = CancelPlan()


@attrs.define(eq=False)
class RunQueue:
    """The open runs of one session."""

    current: Run | None = attrs.field(default=None, init=False)
    driving: bool = attrs.field(default=False, init=False)
    frozen: bool = attrs.field(default=False, init=False)
    closed: bool = attrs.field(default=False, init=False)
    _waiting: list[Run] = attrs.field(factory=list, init=False)

    # --- questions ------------------------------------------------------------------------

    def waiting(self) -> tuple[Run, ...]:
        """The runs that have not begun, in the order in which they will."""
        return tuple(self._waiting)

    def open_runs(self) -> tuple[Run, ...]:
        """The current run and the waiting ones."""
        return (*((self.current,) if self.current is not None else ()), *self._waiting)

    def find(self, run_id: RunId) -> Run | None:
        """An open run by its id."""
        return next((run for run in self.open_runs() if run.id == run_id), None)

    def position(self, run: Run) -> int:
        """How many open runs come before ``run``."""
        return self.open_runs().index(run)

    # --- acceptance -----------------------------------------------------------------------

    def check_accept(self, if_busy: str) -> None:
        """Whether a prompt with this policy would be accepted now; changes nothing.

        Raises:
            Refused: ``session_closing``, ``server_stopping``, ``session_busy``, ``queue_full``.
        """
        if self.closed:
            raise Refused("session_closing", "The session is being deleted; use another one.")
        if self.frozen:
            raise Refused("server_stopping", "The server is stopping; try again when it is back.")
        if if_busy == "reject" and self.open_runs():
            raise Refused(
                "session_busy",
                "The session is busy; wait for its run, or use if_busy enqueue or interrupt.",
            )
        if if_busy != "interrupt" and len(self._waiting) >= limits.WAITING_RUNS_PER_SESSION:
            raise Refused(
                "queue_full",
                f"{limits.WAITING_RUNS_PER_SESSION} prompts already wait in this session; "
                "try again when some have run.",
            )

    def accept(self, run: Run, if_busy: str, by: CancelledBy | None = None) -> Accepted:
        """Add ``run`` behind the open ones; with ``interrupt`` cancel those first, for ``by``.

        Raises:
            Refused: As `check_accept`; nothing changed.
        """
        self.check_accept(if_busy)
        plan = CancelPlan()
        if if_busy == "interrupt":
            plan = self.cancel(by or CancelledBy("", reason="interrupt"))
        position = len(self.open_runs())
        self._waiting.append(run)
        start = not self.driving
        self.driving = True
        steered = self.current is not None and self._may_fold(run)
        return Accepted(position, start, steered, plan)

    def withdraw(self, run: Run) -> None:
        """Take out a run whose acceptance never became durable, as if it had not been accepted."""
        if run in self._waiting:
            self._waiting.remove(run)

    # --- the drain task -------------------------------------------------------------------

    def head(self) -> Run | None:
        """The run to begin next; ``None`` ends the drain task, in the same step.

        A later `accept` then asks for a new drain task, so no wake-up can be lost.
        """
        if self.current is not None:
            raise InvalidTransition(f"head() while run {self.current.id} is current")
        if self._waiting and not self.frozen:
            return self._waiting[0]
        self.driving = False
        return None

    def begin(self, run: Run) -> None:
        """Make the first waiting run the current one."""
        if self.current is not None or not self._waiting or self._waiting[0] is not run:
            raise InvalidTransition(f"begin({run.id}) out of turn")
        run.move(Phase.QUEUED, Phase.RUNNING)
        self.current = self._waiting.pop(0)

    def begin_settle(self, outcome: Outcome) -> Outcome:
        """Fix the outcome of the current run; from here on no cancel covers it.

        Returns:
            ``outcome``, or cancelled if the run was marked and its own error did not come first.
        """
        if self.current is None:
            raise InvalidTransition("begin_settle() on an idle session")
        self.current.move(Phase.RUNNING, Phase.SETTLING)
        if self.current.mark is not None and outcome is not Outcome.FAILED:
            outcome = Outcome.CANCELLED
        self.current.outcome = outcome
        return outcome

    def finish(self) -> None:
        """The current run's terminal commit is durable: it leaves the queue."""
        if self.current is None:
            raise InvalidTransition("finish() on an idle session")
        self.current.move(Phase.SETTLING, Phase.FINISHED)
        self.current = None

    def foldable(self) -> tuple[Run, ...]:
        """The waiting runs that the current turn's next step may take in."""
        return tuple(run for run in self._waiting if self._may_fold(run))

    def fold(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        """End those of ``runs`` that still may be folded as steered; returns them in order."""
        folded = tuple(run for run in self.foldable() if run in runs)
        for run in folded:
            self._waiting.remove(run)
            run.end_unstarted(Outcome.STEERED)
        return folded

    def _may_fold(self, run: Run) -> bool:
        now = self.current
        return (
            now is not None
            and now.phase is Phase.RUNNING
            and now.mark is None
            and run.steer
            and run.kind == now.kind == "prompt"
            and run.settings.fits(now.settings)
        )

    # --- stopping -------------------------------------------------------------------------

    def cancel(self, by: CancelledBy, only: RunId | None = None) -> CancelPlan:
        """Cancel every open run, or just ``only``. Repeating it is harmless."""
        ended = tuple(run for run in self._waiting if only in (None, run.id))
        for run in ended:
            self._waiting.remove(run)
            run.mark = by
            run.end_unstarted(Outcome.CANCELLED)
        now = self.current
        if now is None or only not in (None, now.id):
            return CancelPlan(ended=ended)
        if now.phase is Phase.SETTLING:
            return CancelPlan(ended=ended, too_late=(now,))
        if now.mark is None:
            now.mark = by
        return CancelPlan(running=now, ended=ended)

    def mark_current(self, by: CancelledBy) -> Run | None:
        """Mark only the running run, as a shutdown does; returns it if it was marked or is."""
        now = self.current
        if now is None or now.phase is not Phase.RUNNING:
            return None
        if now.mark is None:
            now.mark = by
        return now

    def freeze(self) -> None:
        """Refuse new runs and begin no more: the waiting ones stay queued (G11)."""
        self.frozen = True

    def close(self, by: CancelledBy) -> CancelPlan:
        """Refuse new runs for good and cancel the open ones."""
        self.closed = True
        return self.cancel(by)

    def reopen(self) -> None:
        """The deletion that `close` was for did not come about: take new runs again."""
        self.closed = False

    # --- editing --------------------------------------------------------------------------

    def move(self, run_id: RunId, position: int) -> Run:
        """Put a waiting run at ``position`` among the waiting ones (0 = next).

        Raises:
            Refused: ``run_not_queued``.
        """
        run = next((run for run in self._waiting if run.id == run_id), None)
        if run is None:
            raise Refused("run_not_queued", "The run is not waiting any more; nothing was changed.")
        self._waiting.remove(run)
        self._waiting.insert(position, run)
        return run
