"""What a turn asks the user's hooks, and what they say; part of `agent.ports`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from crush_trio.protocol.ids import RunId, SessionId

HookDecision: TypeAlias = Literal["none", "allow", "deny"]


@attrs.frozen
class HookSays:
    """What one hook said about one call (CW 7.6).

    ``updated_input`` are arguments that take the place of those the model gave, by name.
    ``problem`` says why the hook, or part of what it said, does not count.
    """

    name: str
    matcher: str = ""
    decision: HookDecision = "none"
    halt: bool = False
    reason: str = ""
    context: str = ""
    updated_input: Mapping[str, Any] | None = None
    problem: str = ""


@attrs.frozen
class HookPlace:
    """Whose calls hooks are asked about; ``env`` is the fixed environment of tool processes."""

    workspace_path: Path
    session_id: SessionId
    run_id: RunId
    env: Mapping[str, str]


class Hooks(Protocol):
    """The commands a user has set up for certain moments of a run, in the order of their files.

    Each method returns when all of its hooks have ended or were ended. Being cancelled ends them.
    """

    @property
    def hears_ends(self) -> bool:
        """Whether any of them wants to know of a run's end."""
        ...

    async def before_tool(
        self, tool_name: str, tool_input: Mapping[str, Any]
    ) -> tuple[HookSays, ...]:
        """Ask those that want to know of this call before it is made."""
        ...

    async def after_tool(
        self, tool_name: str, tool_input: Mapping[str, Any], content: str, *, is_error: bool
    ) -> tuple[HookSays, ...]:
        """Tell those that want to know what came of it."""
        ...

    async def run_ended(self, outcome: str, text: str, error: str) -> None:
        """Tell those that want to know of a run's end; what they say changes nothing.

        ``text`` is the answer, ``error`` one sentence or nothing.
        """
        ...
