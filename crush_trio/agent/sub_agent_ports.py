"""What a tool may do with sub-agents; part of `agent.ports`, through which it is imported."""

from __future__ import annotations

from typing import Protocol

import attrs

from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.runs import Outcome


@attrs.frozen
class SubAgentTask:
    """What a sub-agent is to do, for the tool call ``call_id`` of its parent.

    Args:
        prompt: What it is asked.
        title: Of its session.
        tools: Names of the tools it gets; those that only sub-agents get among them.
        small: Whether the small model does, if there is one.
    """

    call_id: str
    prompt: str
    title: str
    tools: frozenset[str]
    small: bool = False


@attrs.frozen
class SubAgentEnd:
    """How a sub-agent's run ended; ``text`` is its last answer, ``error`` one sentence or empty.

    ``cost_usd`` is ``None`` where no price is known.
    """

    session_id: SessionId
    run_id: RunId
    outcome: Outcome
    text: str
    error: str = ""
    cost_usd: float | None = 0.0


class SubAgents(Protocol):
    """Runs sub-agents for one run: each in a child session, as a run of its own (CW 7.5)."""

    async def run(self, task: SubAgentTask) -> SubAgentEnd:
        """Carry a sub-agent to its end. Cancelled, it ends the sub-agent first, bounded (G4).

        Raises:
            Refused: It cannot be accepted now; one sentence.
            StoreError: It could not be made durable.
        """
        ...
