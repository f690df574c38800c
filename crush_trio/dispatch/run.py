"""One accepted prompt in the memory of the server, from acceptance to its single outcome."""

from __future__ import annotations

from enum import Enum

import attrs

from crush_trio.protocol.errors import InvalidTransition
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome


class Phase(Enum):
    """Where a run is. ``SETTLING`` (outcome fixed, commit on its way) is shown as running."""

    QUEUED = "queued"
    RUNNING = "running"
    SETTLING = "settling"
    FINISHED = "finished"


@attrs.frozen
class Settings:
    """What a prompt asked for by name; ``None`` means: whatever applies anyway.

    ``patterns`` are its own permission patterns (allow, deny): folded into a run with others, it
    would lose what it refused. ``record`` is a file: folded, the prompt would not be in it.
    """

    model: str | None = None
    limits: Limits | None = None
    permission_mode: str | None = None
    patterns: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    record: str | None = None
    compact: bool | None = None
    sandbox: str | None = None

    def fits(self, running: Settings) -> bool:
        """Whether a prompt with these settings may be folded into a run with ``running``'s."""
        return all(
            mine is None or mine == theirs
            for mine, theirs in (
                (self.model, running.model),
                (self.limits, running.limits),
                (self.permission_mode, running.permission_mode),
                (self.patterns, running.patterns),
                (self.record, running.record),
                (self.compact, running.compact),
                (self.sandbox, running.sandbox),
            )
        )


@attrs.define(eq=False)
class Run:
    """A run's place in its life. Changed by `RunQueue` alone.

    ``mark`` is the first cause that asked it to stop; later ones change nothing. ``steer`` says
    whether it may be folded into the running turn. ``kind`` is that of its record: only a prompt
    is folded, and only into a prompt's turn.
    """

    id: RunId
    accept_seq: int
    steer: bool = False
    settings: Settings = Settings()
    kind: str = "prompt"
    phase: Phase = attrs.field(default=Phase.QUEUED, init=False)
    mark: CancelledBy | None = attrs.field(default=None, init=False)
    outcome: Outcome | None = attrs.field(default=None, init=False)

    def move(self, expected: Phase, new: Phase) -> None:
        """Go from one phase to the next.

        Raises:
            InvalidTransition: It is not in ``expected``; nothing changed.
        """
        if self.phase is not expected:
            raise InvalidTransition(f"run {self.id}: {self.phase.value}, not {expected.value}")
        self.phase = new

    def end_unstarted(self, outcome: Outcome) -> None:
        """End a run that never began."""
        self.move(Phase.QUEUED, Phase.FINISHED)
        self.outcome = outcome
