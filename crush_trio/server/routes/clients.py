"""Routes about clients: which session one shows, and that it is gone for good (CW 1.8, 4.2)."""

from __future__ import annotations

import attrs
from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, body_as, client_argument, client_id_of


@attrs.frozen
class CurrentSession:
    """``POST …/current-session``: the session a client shows; empty for none."""

    session_id: str = ""


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("clients", __name__)
    host = services.host

    @routes.post("/v1/workspaces/<workspace_id>/current-session")
    async def show(workspace_id: str) -> ResponseReturnValue:
        client_id = client_argument()
        body, _ = body_as(CurrentSession)
        workspace = host.find_open(host.row(workspace_id).id)
        if workspace is None:  # and so nobody has a stream of it
            raise Refused("client_not_attached", "This client has no event stream open here.")
        session_id = None
        if body.session_id:
            session_id = (await workspace.session(SessionId(body.session_id))).id
        workspace.presence.show(client_id, session_id)
        return empty_response()

    @routes.delete("/v1/clients/<client_id>")
    async def retire(client_id: str) -> ResponseReturnValue:
        known = client_id_of(client_id)
        if known is not None:
            host.clients.retire(known)
            for workspace in host.workspaces():
                workspace.presence.retire(known)
        return empty_response()

    app.register_blueprint(routes)
