"""The reference: what the contract lets a client expect, told without a task or a lock.

A script of clients' requests, each answered before the next, is given to the model and to the
real host. Between two requests the host may have come any way; so the model knows of each run
whether it is surely open, surely ended, or may be either, and the set of its possible outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import attrs

from crush_trio.protocol.runs import Outcome
from tests.explore.acts import kind_of


class Sure(Enum):
    """What is known of a run."""

    OPEN = "open"
    MAYBE = "maybe"
    ENDED = "ended"


Ends = frozenset[Outcome | None]
"""Possible outcomes; ``None``: it is still queued."""


@attrs.define(eq=False)
class Told:
    """One accepted run. ``begun``: it surely is the running one."""

    name: str
    session: int
    prompt: str
    steers: bool
    outcomes: set[Outcome]
    sure: Sure = Sure.MAYBE
    begun: bool = False
    stopped: bool = False

    @property
    def natural(self) -> set[Outcome]:
        """How it may end by itself; nothing if it never does."""
        found = kind_of(self.prompt).natural
        return set() if found is None else {found}


@attrs.define(eq=False)
class Model:
    """Accept, cancel, open the gate, settle; then end, stop or crash, once."""

    runs: list[Told] = attrs.field(factory=list, init=False)
    gate_is_open: bool = attrs.field(default=False, init=False)

    def open_in(self, session: int) -> list[Told]:
        """Runs of a session that have not surely ended, in the order of acceptance."""
        return [r for r in self.runs if r.session == session and r.sure is not Sure.ENDED]

    def answers(self, session: int, policy: str) -> set[bool]:
        """Whether a prompt may be accepted, may be refused, or either."""
        queue = self.open_in(session)
        if policy != "reject" or not queue:
            return {True}
        return {False} if any(r.sure is Sure.OPEN for r in queue) else {True, False}

    def accept(self, name: str, session: int, prompt: str, policy: str) -> None:
        """A prompt was accepted."""
        queue = self.open_in(session)
        if policy == "interrupt":
            self._stop(queue)
        run = Told(name, session, prompt, policy == "steer", set())
        run.outcomes = run.natural
        if run.steers:
            for earlier in queue:
                # It may be folded at a step to come, the first one too; then it decides how
                # that run ends. A run that is blocked in its step has none to come.
                if not (earlier.begun and self._is_blocked(earlier)) and not earlier.stopped:
                    run.outcomes.add(Outcome.STEERED)
                    earlier.outcomes |= run.natural
                    earlier.sure = Sure.MAYBE
        self.runs.append(run)
        self._advance()

    def cancel(self, session: int, name: str | None = None) -> tuple[set[str], set[str]]:
        """A cancel: the runs it surely stops, and those it may."""
        queue = [r for r in self.open_in(session) if name in (None, r.name)]
        must = {r.name for r in queue if r.sure is Sure.OPEN and not r.stopped}
        self._stop(queue)
        self._advance()
        return must, {r.name for r in queue}

    def open_gate(self) -> None:
        """What waits for the gate goes on."""
        self.gate_is_open = True
        self._advance()

    def settle(self) -> None:
        """Everything that can happen has happened."""
        for queue in self._queues():
            for run in queue:
                unknown = run.sure is Sure.MAYBE and self._is_blocked(run) and not run.stopped
                if unknown:
                    break  # something may have been folded into it, or not
                if run.sure is Sure.OPEN and not run.stopped:
                    run.begun = True
                    break
                run.sure = Sure.ENDED

    # --- the end --------------------------------------------------------------------------

    def after_end(self) -> dict[str, Ends]:
        """All gates are opened; what never ends by itself is cancelled."""
        return {
            r.name: frozenset(r.outcomes or {Outcome.CANCELLED}) | self._never(r) for r in self.runs
        }

    def after_stop(self) -> dict[str, Ends]:
        """The server stops: what runs is cancelled, what waits stays."""
        found: dict[str, Ends] = {}
        for run, behind in self._with_place():
            if run.sure is Sure.ENDED or run.stopped:
                found[run.name] = frozenset(run.outcomes)
            elif run.sure is Sure.MAYBE:
                found[run.name] = frozenset({*run.outcomes, Outcome.CANCELLED, None})
            elif behind:
                found[run.name] = frozenset({None})
            else:
                found[run.name] = frozenset(
                    {Outcome.CANCELLED} if run.begun else {Outcome.CANCELLED, None}
                )
        return found

    def after_crash(self) -> dict[str, Ends]:
        """The server is killed and started again; its model just answers."""
        found: dict[str, Ends] = {}
        for run, behind in self._with_place():
            if run.sure is Sure.ENDED or run.stopped:
                found[run.name] = frozenset(run.outcomes)
            elif run.sure is Sure.MAYBE:
                found[run.name] = frozenset({*run.outcomes, Outcome.LOST, Outcome.COMPLETED})
            elif behind:
                found[run.name] = frozenset({Outcome.COMPLETED})
            else:
                ends = {Outcome.LOST} if run.begun else {Outcome.LOST, Outcome.COMPLETED}
                found[run.name] = frozenset(ends)
        return found

    # --- what follows ---------------------------------------------------------------------

    def _is_blocked(self, run: Told) -> bool:
        return not run.natural or (run.prompt.startswith("gate") and not self.gate_is_open)

    def _never(self, run: Told) -> Ends:
        ends = run.sure is not Sure.ENDED and not run.natural and not run.stopped
        return frozenset({Outcome.CANCELLED} if ends else ())

    def _stop(self, runs: Iterable[Told]) -> None:
        for run in runs:
            if run.sure is Sure.OPEN:
                run.outcomes = {Outcome.CANCELLED}
                run.stopped = True
            else:
                run.outcomes.add(Outcome.CANCELLED)

    def _queues(self) -> list[list[Told]]:
        return [self.open_in(session) for session in sorted({r.session for r in self.runs})]

    def _advance(self) -> None:
        """What stands behind a run that is surely blocked is surely open."""
        for queue in self._queues():
            blocked = False
            for run in queue:
                if run.stopped:
                    continue
                if Outcome.STEERED in run.outcomes or Outcome.CANCELLED in run.outcomes:
                    continue  # may have ended at any moment
                foldable = any(r.steers and Outcome.STEERED in r.outcomes for r in queue)
                if blocked or (self._is_blocked(run) and not (foldable and not run.begun)):
                    run.sure = Sure.OPEN
                    blocked = True
                elif not self._is_blocked(run):
                    run.sure = Sure.MAYBE
                else:
                    break

    def _with_place(self) -> list[tuple[Told, bool]]:
        """Every run, and whether one that is surely open stands before it."""
        found = []
        for run in self.runs:
            before = self.runs[: self.runs.index(run)]
            found.append(
                (
                    run,
                    any(
                        r.session == run.session and r.sure is Sure.OPEN and not r.stopped
                        for r in before
                    ),
                )
            )
        return found
