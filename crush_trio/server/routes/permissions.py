"""Routes about permissions: what waits for a person, the answers, and the default mode."""

from __future__ import annotations

import attrs
from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.host.asks.granted import forget_grants, granted
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.requests import PermissionGrant
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.pending import pending_permissions
from crush_trio.server.services import Services, answer, body_as

BASE = "/v1/workspaces/<workspace_id>"


@attrs.frozen
class SkipRequest:
    """``POST …/permissions/skip``: whether calls are allowed without asking (CW 2.6)."""

    skip: bool = False


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("permissions", __name__)
    host, store = services.host, services.store

    @routes.get("/v1/permissions")
    async def everywhere() -> ResponseReturnValue:
        return answer(pending_permissions(await store.pending_asks()))

    @routes.get(f"{BASE}/permissions")
    async def listing(workspace_id: str) -> ResponseReturnValue:
        return answer(pending_permissions(await store.pending_asks(host.row(workspace_id).id)))

    @routes.get(f"{BASE}/permissions/<permission_id>")
    async def one(workspace_id: str, permission_id: str) -> ResponseReturnValue:
        wanted = host.row(workspace_id).id
        row = await store.ask(permission_id)
        if row is None or row.workspace_id != wanted or row.kind != "permission":
            raise Refused("request_not_found", f"There is no request {permission_id!r} here.")
        if row.ending is not None:
            how = f"It has ended: {row.ending.replace('_', ' ')} by {row.decided_by}."
            raise Refused("request_not_found", how)
        return answer(pending_permissions([row])[0])

    @routes.get(f"{BASE}/sessions/<session_id>/grants")
    async def grants(workspace_id: str, session_id: str) -> ResponseReturnValue:
        wanted = host.row(workspace_id).id
        return answer(await granted(store, wanted, SessionId(session_id)))

    @routes.delete(f"{BASE}/sessions/<session_id>/grants", defaults={"grant_id": None})
    @routes.delete(f"{BASE}/sessions/<session_id>/grants/<grant_id>")
    async def forget(
        workspace_id: str, session_id: str, grant_id: str | None
    ) -> ResponseReturnValue:
        wanted, by = host.row(workspace_id).id, current_call().principal
        return answer(await forget_grants(store, wanted, SessionId(session_id), grant_id, by))

    @routes.post(f"{BASE}/permissions/grant")
    async def grant(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(PermissionGrant)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            by = current_call().principal
            return answer(await answer_permission(workspace.home.waiting, body, by))

    @routes.get(f"{BASE}/permissions/skip")
    async def skips(workspace_id: str) -> ResponseReturnValue:
        workspace = host.find_open(host.row(workspace_id).id)
        return answer({"skip": workspace is not None and workspace.default_mode == "allow"})

    @routes.post(f"{BASE}/permissions/skip")
    async def skip(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(SkipRequest)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            mode = "allow" if body.skip else "ask"
            await workspace.set_default_mode(mode, current_call().principal)
        return empty_response()

    app.register_blueprint(routes)
