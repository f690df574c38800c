"""Requests to a person as they are stored, and what a store does with them and with grants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, TypeAlias

import attrs

from crush_trio import limits
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.questions import QuestionRequest

AskRequest: TypeAlias = PermissionRequest | QuestionRequest
REQUEST_CLASS: Final[Mapping[str, type[PermissionRequest] | type[QuestionRequest]]] = {
    "permission": PermissionRequest,
    "question": QuestionRequest,
}
"""The two kinds of `AskRow`."""


@attrs.frozen
class AskRow:
    """A request to a person: as it was shown, and how it ended.

    ``kind`` is ``permission`` or ``question``. Until ``ending`` is set it waits; it is set once
    (see `protocol.requests.Resolution` for its words). What was asked in detail is not kept
    beyond that: ``params`` may hold whole files.
    """

    id: str
    kind: str
    workspace_id: WorkspaceId
    session_id: SessionId
    run_id: RunId
    request: AskRequest
    created_at_ms: int = 0
    ending: str | None = None
    decided_by: str = ""
    decided_at_ms: int | None = None
    deadline_s: float = limits.ASK_DEADLINE_S


@attrs.frozen
class Grant:
    """What "allow for this session" allows: this action of this tool on this path (R68).

    ``scope`` narrows it, see `host.asks.grants`: to one command, one host, one call; empty for
    files, where the path is enough. Who gave it, and when, is no part of what it is.
    """

    tool_name: str
    action: str
    path: str
    scope: str = ""
    by: str = attrs.field(default="", eq=False)
    at_ms: int = attrs.field(default=0, eq=False)


def without_details(request: AskRequest) -> AskRequest:
    """What is kept of a request that has ended."""
    if isinstance(request, PermissionRequest):
        return attrs.evolve(request, description="", params=None, why="", covers="")
    return attrs.evolve(request, questions=())


class AskWrites(Protocol):
    """The part of a `store.contract.Transaction` that is about requests to a person."""

    def ask(self, ask_id: str) -> AskRow | None:
        """One request, pending or ended."""
        ...

    def pending_asks(self, run_id: RunId) -> tuple[AskRow, ...]:
        """The requests of a run that wait, oldest first."""
        ...

    def put_ask(self, row: AskRow) -> None:
        """Insert a request, or replace what is stored of it.

        Raises:
            ConstraintError: It has ended already, or its session does not exist.
        """
        ...

    def add_grant(self, session_id: SessionId, grant: Grant) -> None:
        """Remember what a session may do without asking again; it goes with the session."""
        ...

    def remove_grant(self, session_id: SessionId, grant: Grant) -> None:
        """Forget that; what is not there is fine."""
        ...


class AskReads(Protocol):
    """The part of a `store.contract.Store` that is about requests to a person."""

    async def ask(self, ask_id: str) -> AskRow | None:
        """One request, pending or ended."""
        ...

    async def pending_asks(self, workspace_id: WorkspaceId | None = None) -> tuple[AskRow, ...]:
        """The requests that wait, oldest first; of one workspace or of all."""
        ...

    async def grants(self, session_id: SessionId) -> frozenset[Grant]:
        """What a session may do without asking."""
        ...
