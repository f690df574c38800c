"""Runs a Trio program one task at a time, in an order that a strategy chooses and a list repeats.

Trio's loop shuffles what is runnable when it is told to be deterministic. Our source of chance
leaves one task in that batch and puts the others back, so every await of every task is a *choice
point*. Nothing of the product changes. Three private names of Trio are used; `check_trio` says so
in one sentence when an upgrade has changed them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import attrs
import trio
from trio.testing import MockClock

_core: Any = __import__("trio._core._run", fromlist=["_run"])

STEPS_MAX = 50_000  # a schedule that takes more is going round in circles
VIRTUAL_LIMIT_S = 3_000.0  # of Trio's clock; a schedule that needs more hangs


class Strategy(Protocol):
    """Chooses who goes on."""

    def pick(self, tasks: Sequence[trio.lowlevel.Task], stay: int) -> int:
        """The index of the task to run. ``stay`` is the last one's, -1 if it cannot go on."""
        ...

    def draw(self, n: int) -> int:
        """A number below ``n``, for what the world decides: sizes, which commit fails, ..."""
        ...


class Hang(Exception):
    """Nobody could go on, or virtual time ran out: a run would have been waited for for ever."""


@attrs.define(eq=False)
class Choices:
    """Trio's source of chance for one schedule, and the record of what was chosen.

    Before `arm` nothing is chosen: every runnable task gets its turn. ``picks`` are the choices
    that differ from the default (go on with the same task; else the oldest; 0), by their number.
    """

    strategy: Strategy
    armed: bool = False
    made: int = attrs.field(default=0, init=False)
    picks: dict[int, int] = attrs.field(factory=dict, init=False)
    trace: list[str] | None = attrs.field(default=None, init=False)
    most: int = attrs.field(default=0, init=False)
    preemptions: int = attrs.field(default=0, init=False)
    _steps: int = attrs.field(default=0, init=False)
    _last: Any = attrs.field(default=None, init=False)

    def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
        """Leave one task; Trio calls this with everything runnable, sorted by age."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise Hang(f"more than {STEPS_MAX} steps")
        n = len(batch)
        if n > 1 and self.armed:
            stay = batch.index(self._last) if self._last in batch else -1
            k = min(self.strategy.pick(batch, stay), n - 1)
            default = max(stay, 0)
            if k != default:
                self.picks[self.made] = k
                if stay >= 0:
                    self.preemptions += 1
            self.made += 1
            chosen = batch[k]
            del batch[k]
            _core.GLOBAL_RUN_CONTEXT.runner.runq.extend(batch)
            batch[:] = (chosen,)
        if n:
            self._last = batch[-1]
            if self.trace is not None:
                self.trace.append(f"{self._last.name}#{self._last._counter}")

    def random(self) -> float:
        """What Trio asks its source for outside the deterministic mode."""
        return 0.9

    def draw(self, n: int) -> int:
        """A choice of the world instead of the scheduler; 0 if everything stays as usual."""
        k = min(self.strategy.draw(n), n - 1) if n > 1 else 0
        if k:
            self.picks[self.made] = k
        self.made += 1
        return k

    def arm(self) -> None:
        """From here on every step is chosen."""
        self.armed = True

    def disarm(self) -> None:
        """From here on the order is fixed again."""
        self.armed = False


class _NoDevices:
    """Trio's I/O in a world without any: a look costs nothing and finds nothing."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def get_events(self, timeout: float) -> tuple[()]:
        return ()

    def process_events(self, events: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@attrs.define(eq=False)
class _Guard:
    """What ends a schedule that hangs: every shield is broken, so that it can be left at all."""

    scope: trio.CancelScope
    hung: bool = attrs.field(default=False, init=False)
    _tries: int = attrs.field(default=0, init=False)

    def stuck(self) -> None:
        """Nothing is runnable and no time will come."""
        self.hung = True
        self._tries += 1
        if self._tries > 100:
            raise Hang("a task cannot be ended")
        for task in tuple(_core.GLOBAL_RUN_CONTEXT.runner.tasks):
            status = task._cancel_status
            while status is not None and status._scope is not None:
                status._scope.shield = False
                status = status._parent
        self.scope.cancel()


def _clock(stuck: Callable[[], None]) -> MockClock:
    """Jumps to the next deadline when nobody can go on; without one, that is a hang."""
    clock: Any = MockClock(autojump_threshold=0)
    jump = clock._autojump

    def autojump() -> None:
        if _core.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline() == math.inf:
            stuck()
        else:
            jump()

    clock._autojump = autojump
    return cast("MockClock", clock)


def run_schedule(main: Callable[[Choices], Awaitable[None]], choices: Choices) -> None:
    """Run ``main`` from its first step to its last as ``choices`` has it, in virtual time.

    Raises:
        Hang: It did not come to its end.
    """

    guard = _Guard(trio.CancelScope())
    clock = _clock(guard.stuck)

    async def guarded() -> None:
        runner = _core.GLOBAL_RUN_CONTEXT.runner
        with guard.scope:
            real = runner.io_manager
            runner.io_manager = _NoDevices(real)
            try:
                with trio.move_on_after(VIRTUAL_LIMIT_S) as limit:
                    await main(choices)
            finally:
                choices.disarm()
                runner.io_manager = real  # Trio's own last steps use it
        if guard.hung or limit.cancelled_caught:
            raise Hang("somebody is waited for for ever")

    before = _core._ALLOW_DETERMINISTIC_SCHEDULING, _core._r
    _core._ALLOW_DETERMINISTIC_SCHEDULING, _core._r = True, choices
    try:
        trio.run(guarded, clock=clock)
    finally:
        _core._ALLOW_DETERMINISTIC_SCHEDULING, _core._r = before


def check_trio() -> None:
    """Raise a sentence if this Trio is not built as the engine needs it."""
    wanted = {"_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT", "Runner"}
    missing = sorted(name for name in wanted if not hasattr(_core, name))
    loop = inspect.getsource(_core.unrolled_run)
    said = ("batch.sort(key=lambda t: t._counter)", "_r.shuffle(batch)", "runner.runq.clear()")
    missing += [line for line in said if line not in loop]
    missing += [n for n in ("runq", "tasks", "io_manager") if n not in _fields(_core.Runner)]
    missing += [n for n in ("_cancel_status", "_counter") if n not in _fields(_core.Task)]
    missing += [n for n in ("_scope", "_parent") if n not in _fields(_core.CancelStatus)]
    if missing:
        raise RuntimeError(
            f"Trio {trio.__version__} has no {', '.join(missing)} any more: the explorer must be "
            "adapted (tests/explore/engine.py), and its canary test run, before Trio is upgraded."
        )


def _fields(cls: type[Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", attrs.fields_dict(cls))


check_trio()
