"""A session's queue as one would tell it: plain values, copied at every step."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio.dispatch.queue import RunQueue
from crush_trio.dispatch.run import Phase, Run, Settings
from crush_trio.protocol.errors import InvalidTransition, Refused
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import CancelledBy, Outcome

Step = tuple[str, object]
OTHER = Settings(model="another/model")
NEVER = Refused, InvalidTransition


@attrs.frozen
class Told:
    """One run: ``life`` is queued, running, settling or the outcome it ended with."""

    life: str = "queued"
    marked: bool = False
    steers: bool = False
    fits: bool = True
    gone: bool = False
    kind: str = "prompt"


@attrs.frozen
class Reference:
    """What must be true after a history; ``order`` are the waiting runs by number."""

    runs: tuple[Told, ...] = ()
    order: tuple[int, ...] = ()
    now: int | None = None
    driving: bool = False
    frozen: bool = False
    closed: bool = False

    def after(self, step: Step) -> Reference | None:
        """The state after a step; ``None`` if it is refused or illegal."""
        name, value = step
        found: Reference | None = getattr(self, f"_{name}")(value)
        return found

    def _with(self, number: int, **changes: Any) -> Reference:
        run = attrs.evolve(self.runs[number], **changes)
        return attrs.evolve(self, runs=(*self.runs[:number], run, *self.runs[number + 1 :]))

    def _accept(self, value: object) -> Reference | None:
        policy, _, more = str(value).partition("-")
        busy = self.now is not None or bool(self.order)
        if self.closed or self.frozen or (policy == "reject" and busy):
            return None
        state = self._cancel("all") if policy == "interrupt" else self
        kind = "shell" if more == "shell" else "prompt"
        run = Told(steers=policy == "steer", fits=more != "other", kind=kind)
        number = len(self.runs)
        return attrs.evolve(
            state, runs=(*state.runs, run), order=(*state.order, number), driving=True
        )

    def _cancel(self, which: object) -> Reference:
        state = self
        for number in self.order:
            if which in ("all", number):
                order = tuple(n for n in state.order if n != number)
                state = attrs.evolve(state, order=order)
                state = state._with(number, life="cancelled", marked=True)
        if which in ("all", state.now):
            return state._mark(None)
        return state

    def _mark(self, _: object) -> Reference:
        if self.now is not None and self.runs[self.now].life == "running":
            return self._with(self.now, marked=True)
        return self

    def _fold(self, _: object) -> Reference:
        state = self
        for number in self.can_fold():
            order = tuple(n for n in state.order if n != number)
            state = attrs.evolve(state, order=order)._with(number, life="steered")
        return state

    def can_fold(self) -> tuple[int, ...]:
        """Which waiting runs the running turn may take in."""
        if self.now is None:
            return ()
        now = self.runs[self.now]
        if now.life != "running" or now.marked or now.kind != "prompt":
            return ()
        waiting = [(n, self.runs[n]) for n in self.order if self.runs[n].kind == "prompt"]
        # The settings of a run that names nothing fit every other; a named model only its own.
        return tuple(n for n, run in waiting if run.steers and (run.fits or not now.fits))

    def _head(self, _: object) -> Reference | None:
        if self.now is not None:
            return None
        if self.order and not self.frozen:
            return self
        return attrs.evolve(self, driving=False)

    def _begin(self, number: object) -> Reference | None:
        if self.now is not None or not self.order or self.order[0] != number:
            return None
        state = attrs.evolve(self, order=self.order[1:], now=self.order[0])
        return state._with(self.order[0], life="running")

    def _settle(self, outcome: object) -> Reference | None:
        if self.now is None or self.runs[self.now].life != "running":
            return None
        marked = self.runs[self.now].marked and outcome != "failed"
        return self._with(self.now, life=f"settling {'cancelled' if marked else outcome}")

    def _finish(self, _: object) -> Reference | None:
        if self.now is None or not self.runs[self.now].life.startswith("settling"):
            return None
        life = self.runs[self.now].life.removeprefix("settling ")
        return attrs.evolve(self._with(self.now, life=life), now=None)

    def _withdraw(self, number: object) -> Reference:
        if number not in self.order:
            return self
        assert isinstance(number, int)
        order = tuple(n for n in self.order if n != number)
        return attrs.evolve(self, order=order)._with(number, gone=True)

    def _freeze(self, _: object) -> Reference:
        return attrs.evolve(self, frozen=True)

    def _close(self, _: object) -> Reference:
        return attrs.evolve(self._cancel("all"), closed=True)

    def _reopen(self, _: object) -> Reference:
        return attrs.evolve(self, closed=False)

    def _move(self, value: object) -> Reference | None:
        assert isinstance(value, tuple)
        number, place = value
        if number not in self.order:
            return None
        rest = [n for n in self.order if n != number]
        return attrs.evolve(self, order=(*rest[:place], number, *rest[place:]))

    def steps(self, most_runs: int) -> list[Step]:
        """Every step that could be tried, the illegal ones too."""
        numbers = range(len(self.runs))
        found: list[Step] = [("cancel", "all"), *(("cancel", n) for n in numbers)]
        if len(self.runs) < most_runs:
            # No shell run may steer; one that claims to shows that its kind is looked at.
            policies = ("enqueue", "steer", "steer-other", "steer-shell", "interrupt", "reject")
            found += [("accept", policy) for policy in policies]
        found += [("settle", outcome.value) for outcome in (Outcome.COMPLETED, Outcome.FAILED)]
        found += [(name, n) for name in ("begin", "withdraw") for n in numbers]
        found += [("move", (n, place)) for n in numbers for place in (0, 1, 9)]
        plain = ("mark", "fold", "head", "finish", "freeze", "close", "reopen")
        return [*found, *((name, None) for name in plain)]


class Real:
    """The queue itself, driven by the same steps."""

    def __init__(self) -> None:
        self.queue = RunQueue()
        self.runs: list[Run] = []
        self.gone: set[int] = set()

    def take(self, step: Step) -> object:
        """Do it; what the queue returns, or raises."""
        name, value = step
        by = CancelledBy("somebody")
        queue = self.queue
        match name:
            case "accept":
                policy, _, more = str(value).partition("-")
                run = Run(
                    RunId(f"r{len(self.runs)}"),
                    len(self.runs) + 1,
                    steer=policy == "steer",
                    settings=OTHER if more == "other" else Settings(),
                    kind="shell" if more == "shell" else "prompt",
                )
                accepted = queue.accept(run, policy, by)
                self.runs.append(run)
                return accepted
            case "cancel":
                assert value == "all" or isinstance(value, int)
                return queue.cancel(by, None if value == "all" else RunId(f"r{value}"))
            case "fold":
                return queue.fold(self.runs)
            case "settle":
                return queue.begin_settle(Outcome(str(value)))
            case "begin":
                assert isinstance(value, int)
                queue.begin(self.runs[value])
                return None
            case "withdraw":
                assert isinstance(value, int)
                if self.runs[value] in queue.waiting():
                    self.gone.add(value)
                queue.withdraw(self.runs[value])
                return None
            case "move":
                assert isinstance(value, tuple)
                return queue.move(RunId(f"r{value[0]}"), value[1])
            case "mark":
                return queue.mark_current(by)
            case "close":
                return queue.close(by)
        return getattr(queue, name)()

    def told(self) -> Reference:
        """The queue's state in the words of the reference."""
        queue = self.queue
        return Reference(
            tuple(self._told_run(number) for number in range(len(self.runs))),
            tuple(self.runs.index(run) for run in queue.waiting()),
            None if queue.current is None else self.runs.index(queue.current),
            queue.driving,
            queue.frozen,
            queue.closed,
        )

    def _told_run(self, number: int) -> Told:
        run = self.runs[number]
        life = run.phase.value
        if run.outcome is not None:
            life = run.outcome.value
            if run.phase is Phase.SETTLING:
                life = f"settling {life}"
        fits = run.settings == Settings()
        return Told(life, run.mark is not None, run.steer, fits, number in self.gone, run.kind)
