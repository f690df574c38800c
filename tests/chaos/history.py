"""What clients asked and were told; an answer that did not come leaves everything open."""

from __future__ import annotations

import time
from typing import Any

import attrs

Json = dict[str, Any]


def now_ms() -> float:
    """Unix milliseconds; the server's records use the same clock."""
    return time.time() * 1000


@attrs.define(eq=False)
class Prompt:
    """One prompt, posted once or several times with the same body."""

    workspace: str
    session: str
    body: Json
    run_id: str | None
    kind: str
    sent_ms: float = attrs.field(factory=now_ms)
    answered_ms: float | None = None
    receipts: list[Json] = attrs.field(factory=list)
    refusals: list[Json] = attrs.field(factory=list)
    unanswered: int = 0

    @property
    def accepted(self) -> bool:
        """Whether a 202 was received."""
        return bool(self.receipts)


@attrs.define(eq=False)
class Cancel:
    """A cancel, a clear or a drop; ``run_id`` is ``None`` if it was for a session."""

    how: str
    workspace: str
    session: str
    run_id: str | None = None
    sent_ms: float = attrs.field(factory=now_ms)
    answered_ms: float | None = None
    receipt: Json | None = None
    refusal: Json | None = None


@attrs.define(eq=False)
class Edit:
    """A new text for a queued run."""

    run_id: str
    text: str
    answered: bool | None = None
    """``None``: unknown."""


@attrs.define(eq=False)
class Deletion:
    """A session's or workspace's deletion; ``status`` 0 is unknown."""

    what: str
    id: str
    status: int = 0


@attrs.define(eq=False)
class History:
    """Everything, in the order in which it was begun; threads append."""

    prompts: list[Prompt] = attrs.field(factory=list)
    cancels: list[Cancel] = attrs.field(factory=list)
    edits: list[Edit] = attrs.field(factory=list)
    deletions: list[Deletion] = attrs.field(factory=list)
    sessions: dict[str, list[str]] = attrs.field(factory=dict)
    """Workspace id to the sessions that are known to have been made in it."""
    violations: list[str] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)

    def count(self, name: str, n: int = 1) -> None:
        """Add to a figure of the tally."""
        self.counts[name] = self.counts.get(name, 0) + n

    def violation(self, text: str) -> None:
        """A guarantee was broken."""
        self.violations.append(text)
