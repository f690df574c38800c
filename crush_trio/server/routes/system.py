"""Routes about the server itself: health, version, models, control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio.protocol import codec
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.requests import ControlRequest, Health, RefreshModels
from crush_trio.server.edge.answers import empty_response, json_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, answer_naming, body_as, client_id_of

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
        path, env = _whose(services)
        everything = _flag("all")
        return answer(
            [
                {
                    **codec.to_json(each.info),
                    "available": each.available,
                    "chosen": each.chosen or None,
                }
                for each in await services.kit.models(path, env)
                if each.available or everything
            ]
        )

    @routes.post("/v1/models/refresh")
    async def refresh_models() -> ResponseReturnValue:
        body, ignored = body_as(RefreshModels)
        return answer_naming(ignored, await services.kit.refresh_models(body.url))

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


def _whose(services: Services) -> tuple[Path | None, Mapping[str, str]]:
    """The directory whose configuration is asked about, and what the asking client sent there.

    Raises:
        Refused: ``workspace_not_found``, or ``bad_request`` for a client that is no UUID.
    """
    workspace_id = request.args.get("workspace_id")
    client_id = client_id_of(request.args.get("client_id"))
    if not workspace_id:
        return None, {}
    row = services.host.row(workspace_id)
    workspace = services.host.find_open(row.id)
    env = {} if workspace is None else workspace.presence.environment(client_id)
    return Path(row.path), env


def _flag(name: str) -> bool:
    given = request.args.get(name, "false")
    if given not in ("true", "false"):
        raise Refused("bad_request", f"`{name}` must be true or false.")
    return given == "true"
