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
        instructions: What its system prompt says besides what every sub-agent is told.
        project_files: Whether it says what the project's own files say to agents. Who reads what
            strangers have written needs not know it, and cannot be made to tell.
    """

    call_id: str
    prompt: str
    title: str
    tools: frozenset[str]
    small: bool = False
    instructions: str = ""
    project_files: bool = True


@attrs.frozen
class SubAgentEnd:
    """How a sub-agent's run ended; ``text`` is its last answer, ``error`` one sentence or empty.

    ``cost_usd`` is ``None`` where no price is known. ``denied`` counts its calls that were refused;
    ``stopped``: a person has said no, so the parent's turn is to stop, too (R70).
    """

    session_id: SessionId
    run_id: RunId
    outcome: Outcome
    text: str
    error: str = ""
    cost_usd: float | None = 0.0
    denied: int = 0
    stopped: bool = False


class SubAgents(Protocol):
    """Runs sub-agents for one run: each in a child session, as a run of its own (CW 7.5)."""

    async def run(self, task: SubAgentTask) -> SubAgentEnd:
        """Carry a sub-agent to its end. Cancelled, it ends the sub-agent first, bounded (G4).

        It may use what is left of the limits of the run it works for; what it has used counts
        there. However it ends, the run goes on, unless a limit was reached through it.

        Raises:
            Refused: It cannot be accepted now; one sentence.
            StoreError: It, or its ending, could not be made durable.
        """
        ...
