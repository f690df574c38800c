"""What a session may do without asking again: listing it, and taking it back."""

from __future__ import annotations

import logging

from crush_trio.host.asks.grants import covers, grant_id
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.requests import SessionGrant, SessionGrants
from crush_trio.store.contract import Grant, Store, Transaction

logger = logging.getLogger(__name__)


async def granted(store: Store, workspace_id: WorkspaceId, session_id: SessionId) -> SessionGrants:
    """The grants of a session, the oldest first.

    Raises:
        Refused: ``session_not_found``.
    """
    found = await store.session(session_id)
    if found is None or found[0] != workspace_id:
        raise Refused("session_not_found", f"There is no session {session_id!r} here.")
    grants = await store.grants(session_id)
    return SessionGrants(tuple(map(_shown, sorted(grants, key=_order))))


async def forget_grants(
    store: Store, workspace_id: WorkspaceId, session_id: SessionId, wanted: str | None, by: str
) -> SessionGrants:
    """Take one grant back, or all of them; what is left. A call that was allowed goes on.

    Raises:
        Refused: ``session_not_found``, ``grant_not_found``; nothing changed.
        StoreError: It is not durable.
    """
    await granted(store, workspace_id, session_id)
    grants = await store.grants(session_id)
    chosen = [grant for grant in grants if wanted in (None, grant_id(grant))]
    if wanted is not None and not chosen:
        raise Refused("grant_not_found", f"This session has no grant {wanted!r}.")

    def commit(tx: Transaction) -> None:
        for grant in chosen:
            tx.remove_grant(session_id, grant)

    await store.commit_nowait(workspace_id, commit).wait()
    logger.info("%s: %d grants of session %s taken back", by, len(chosen), session_id)
    return await granted(store, workspace_id, session_id)


def _order(grant: Grant) -> tuple[int, str]:
    return grant.at_ms, grant_id(grant)


def _shown(grant: Grant) -> SessionGrant:
    return SessionGrant(
        id=grant_id(grant),
        tool_name=grant.tool_name,
        action=grant.action,
        path=grant.path,
        scope=grant.scope,
        covers=covers(grant),
        granted_by=grant.by,
        granted_at_ms=grant.at_ms,
    )
