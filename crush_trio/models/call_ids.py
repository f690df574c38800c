"""Names for tool calls of models that do not get them from a provider."""

from __future__ import annotations

import hashlib

from crush_trio.agent.ports import ModelRequest


def call_id(request: ModelRequest, position: int) -> str:
    """An id for the ``position``-th call of this request: the same whenever it is asked again.

    Unique within a session, because the run's id is unique per server and the step within it.
    """
    run = hashlib.sha256(request.run_id.encode()).hexdigest()[:16]
    return f"call_{run}_{request.step}_{position}"
