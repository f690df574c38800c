"""Routes about a session's queue: cancel all of it, clear or list what waits."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.host.session import Session
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.runs import CancelledBy, CancelReceipt, RunRecord
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, by_caller

BASE = "/v1/workspaces/<workspace_id>/agent/sessions/<session_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("queue", __name__)
    host = services.host

    def known_session(workspace_id: str, session_id: str) -> Session | None:
        """The session if it has been used since the workspace opened; others have no open run."""
        workspace = host.find_open(host.row(workspace_id).id)
        if workspace is None:
            return None
        return next((s for s in workspace.open_sessions() if s.id == SessionId(session_id)), None)

    async def cancel_session(
        workspace_id: str, session_id: str, by: CancelledBy, *, waiting_only: bool
    ) -> CancelReceipt:
        session = known_session(workspace_id, session_id)
        if session is None and host.stopping:
            # Its queued runs are out of reach and will go on: an empty receipt would be a lie (G4).
            raise Refused("server_stopping", "The server is stopping; try again later.")
        if session is None:
            workspace = host.find_open(host.row(workspace_id).id)
            last = workspace.last_accept if workspace is not None else 0
            return CancelReceipt(last or host.row(workspace_id).last_accept)
        ticket = session.clear(by) if waiting_only else session.cancel(by)
        return (await ticket.wait()).value

    @routes.post(f"{BASE}/cancel")
    async def cancel_all(workspace_id: str, session_id: str) -> ResponseReturnValue:
        by = by_caller("user")
        return answer(await cancel_session(workspace_id, session_id, by, waiting_only=False))

    @routes.post(f"{BASE}/prompts/clear")
    async def clear(workspace_id: str, session_id: str) -> ResponseReturnValue:
        by = by_caller("drop")
        return answer(await cancel_session(workspace_id, session_id, by, waiting_only=True))

    @routes.get(f"{BASE}/prompts/queued")
    async def queued(workspace_id: str, session_id: str) -> ResponseReturnValue:
        session = known_session(workspace_id, session_id)
        return answer(len(session.queue.waiting()) if session is not None else 0)

    @routes.get(f"{BASE}/prompts/list")
    async def prompts(workspace_id: str, session_id: str) -> ResponseReturnValue:
        session = known_session(workspace_id, session_id)
        waiting = session.waiting_runs() if session is not None else ()
        return answer([_told(open_run.row.record) for open_run in waiting])

    app.register_blueprint(routes)


def _told(record: RunRecord) -> str:
    """A waiting run as one line of CW's list of prompts: as a person would have typed it."""
    if record.kind == "summarize":
        return "/summarize"
    return f"!{record.prompt}" if record.kind == "shell" else record.prompt
