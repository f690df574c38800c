"""Names made up for providers: of tool calls that have none, and of sessions."""

from __future__ import annotations

import hashlib

from crush_trio.agent.ports import ModelRequest
from crush_trio.protocol.ids import SessionId


def session_mark(session_id: SessionId) -> str:
    """What tells a provider that requests belong together (CW 5.13): a digest of 16 characters,
    the same for all of a session. Its id is ours."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def call_id(request: ModelRequest, position: int) -> str:
    """An id for the ``position``-th call of this request: the same whenever it is asked again.

    Unique within a session, because the run's id is unique per server and the step within it.
    """
    run = hashlib.sha256(request.run_id.encode()).hexdigest()[:16]
    return f"call_{run}_{request.step}_{position}"
