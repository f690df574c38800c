"""Routes about the server itself: health, version, models, control."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.protocol.errors import Refused
from crush_trio.protocol.requests import ControlRequest, Health
from crush_trio.server.edge.answers import empty_response, json_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, body_as

OUR_CLI = "crush-trio"
"""The ``by`` that our own command line adds to a control request."""


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("system", __name__)

    @routes.get("/healthz")
    async def alive() -> ResponseReturnValue:
        return json_response(b'{"status":"ok"}')

    @routes.get("/readyz")
    async def ready() -> ResponseReturnValue:
        if services.stopping.is_set():
            raise Refused("server_stopping", "The server is stopping.")
        return json_response(b'{"status":"ready"}')

    @routes.get("/v1/health")
    async def health() -> ResponseReturnValue:
        workspaces = services.host.workspaces()
        return answer(
            Health(
                status="stopping" if services.stopping.is_set() else "ok",
                open_workspaces=len(workspaces),
                open_runs=len(services.host.open_runs),
                subscribers=sum(workspace.presence.subscribers for workspace in workspaces),
            )
        )

    @routes.get("/v1/version")
    async def version() -> ResponseReturnValue:
        return answer(services.version)

    @routes.get("/v1/config")
    async def config() -> ResponseReturnValue:
        return json_response(b"{}")  # CW 2.2: always an empty object

    @routes.get("/v1/models")
    async def models() -> ResponseReturnValue:
        listed = await services.kit.models(None, {})
        return answer([each.info for each in listed if each.available])

    @routes.post("/v1/control")
    async def control() -> ResponseReturnValue:
        body, _ = body_as(ControlRequest)
        if body.command not in ("shutdown", "shutdown_if_idle"):
            raise Refused("bad_request", "`command` must be shutdown or shutdown_if_idle.")
        if body.by != OUR_CLI:
            raise Refused("server_in_use", "The server is hosting live workspaces.")
        if body.command == "shutdown_if_idle" and not services.host.is_idle():
            raise Refused("server_in_use", "The server is in use; stop it with `crush-trio stop`.")
        services.request_stop("stop")
        return empty_response()

    app.register_blueprint(routes)
