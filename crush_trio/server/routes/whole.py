"""Routes to what an event was too small for: one message, one state of a file (contract 4)."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import MessageId, SessionId
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer

BASE = "/v1/workspaces/<workspace_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes that `truncated` names and no other file has."""
    routes = Blueprint("whole", __name__)
    host, store = services.host, services.store

    async def is_of(session_id: SessionId, workspace_id: str) -> bool:
        found = await store.session(session_id)
        return found is not None and found[0] == host.row(workspace_id).id

    @routes.get(f"{BASE}/messages/<message_id>")
    async def message(workspace_id: str, message_id: str) -> ResponseReturnValue:
        workspace = host.find_open(host.row(workspace_id).id)
        live = workspace.live_messages() if workspace is not None else {}
        found = await store.message(MessageId(message_id))
        if found is None or not await is_of(found.session_id, workspace_id):
            raise Refused("message_not_found", f"There is no message {message_id!r} here.")
        return answer(live.get(found.id, found) if found.finish() is None else found)

    @routes.get(f"{BASE}/files/<file_id>")
    async def file(workspace_id: str, file_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        found = await store.file_version(file_id)
        if found is None or not await is_of(found.session_id, row.id):
            raise Refused("file_not_found", f"There is no file version {file_id!r} here.")
        return answer(found)

    app.register_blueprint(routes)
