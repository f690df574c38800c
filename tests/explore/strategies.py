"""Ways to choose a schedule: random walk, PCT, a bound on preemptions, and a recorded list."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import attrs
import trio

from tests.explore.engine import Strategy

Tasks = Sequence[trio.lowlevel.Task]


@attrs.define(eq=False)
class Walk:
    """Any runnable task, each as likely."""

    rng: random.Random

    def pick(self, tasks: Tasks, stay: int) -> int:
        """See `Strategy.pick`."""
        return int(self.rng.random() * len(tasks))

    def draw(self, n: int) -> int:
        """See `Strategy.draw`."""
        return int(self.rng.random() * n)


@attrs.define(eq=False)
class Pct:
    """The task of the highest priority; at ``depth`` - 1 random places it becomes the lowest.

    Priorities are drawn when a task is first seen. Finds a bug that needs ``depth`` ordered
    events with a probability that does not vanish in long schedules (``length`` choices or less).
    """

    rng: random.Random
    length: int
    depth: int = 3
    _priorities: dict[int, float] = attrs.field(factory=dict, init=False)
    _changes: set[int] = attrs.field(init=False)
    _at: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        most = max(self.length, 1)
        self._changes = {int(self.rng.random() * most) for _ in range(self.depth - 1)}

    def pick(self, tasks: Tasks, stay: int) -> int:
        """See `Strategy.pick`."""
        known, rng = self._priorities, self.rng
        best, chosen = -1e9, 0
        for index, task in enumerate(tasks):
            number: int = task._counter
            priority = known.get(number)
            if priority is None:
                priority = known[number] = rng.random()
            if priority > best:
                best, chosen = priority, index
        self._at += 1
        if self._at in self._changes:
            known[tasks[chosen]._counter] = -float(self._at)
        return chosen

    def draw(self, n: int) -> int:
        """See `Strategy.draw`."""
        return int(self.rng.random() * n)


@attrs.define(eq=False)
class Bounded:
    """Stays with a task while it can go on, but for ``bound`` preemptions at random places.

    When it cannot, any other goes on.
    """

    rng: random.Random
    length: int
    bound: int = 2
    _places: set[int] = attrs.field(init=False)
    _at: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        most = max(self.length, 1)
        self._places = {int(self.rng.random() * most) for _ in range(self.bound)}

    def pick(self, tasks: Tasks, stay: int) -> int:
        """See `Strategy.pick`."""
        self._at += 1
        if stay >= 0 and self._at not in self._places:
            return stay
        return int(self.rng.random() * len(tasks))

    def draw(self, n: int) -> int:
        """See `Strategy.draw`."""
        return int(self.rng.random() * n)


@attrs.define(eq=False)
class Recorded:
    """The choices of an earlier schedule: those that differ from the default, by number."""

    picks: Mapping[int, int]
    _at: int = attrs.field(default=0, init=False)

    def pick(self, tasks: Tasks, stay: int) -> int:
        """See `Strategy.pick`."""
        at, self._at = self._at, self._at + 1
        return self.picks.get(at, max(stay, 0))

    def draw(self, n: int) -> int:
        """See `Strategy.draw`."""
        at, self._at = self._at, self._at + 1
        return self.picks.get(at, 0)


NAMES = ("walk", "pct", "bounded")


def make(name: str, seed: str, length: int) -> Strategy:
    """A strategy by name; ``length`` is the usual number of choices of the scenario."""
    rng = random.Random(seed)
    match name:
        case "walk":
            return Walk(rng)
        case "pct":
            return Pct(rng, length)
        case "bounded":
            return Bounded(rng, length)
    raise ValueError(f"there is no strategy {name!r}; there are {', '.join(NAMES)}")


def written(picks: Mapping[int, int]) -> str:
    """Choices as one line that `read` takes back."""
    return ",".join(f"{at}:{k}" for at, k in sorted(picks.items()))


def read(text: str) -> dict[int, int]:
    """The choices of a line made by `written`."""
    pairs = (item.split(":") for item in text.split(",") if item)
    return {int(at): int(k) for at, k in pairs}
