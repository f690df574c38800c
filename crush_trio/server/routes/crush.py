"""What else Crush's terminal client asks for at its start: true answers, most of them empty.

There are no skills, language servers or MCP servers here, so the lists of them are empty.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio import limits
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, body_as, callers_env
from crush_trio.store.contract import Transaction

BASE = "/v1/workspaces/<workspace_id>"
_PROVIDER_KEYS = ("id", "name", "type", "models")


@attrs.frozen
class ReadMark:
    """``POST …/filetracker/read``: a person gave this session a file, absolute, to look at."""

    session_id: str = ""
    path: str = ""


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("crush", __name__)
    host = services.host

    async def config_of(workspace_id: str) -> dict[str, Any]:
        row = host.row(workspace_id)
        env = callers_env(host.find_open(row.id))
        return (await services.kit.describe(Path(row.path), env))[0]

    @routes.get(f"{BASE}/skills")
    @routes.get(f"{BASE}/mcp/pending-auth")
    @routes.get(f"{BASE}/mcp/prompts")
    async def none_of_them(workspace_id: str) -> ResponseReturnValue:
        host.row(workspace_id)
        return answer([])

    @routes.get(f"{BASE}/lsps")
    @routes.get(f"{BASE}/mcp/states")
    async def no_servers(workspace_id: str) -> ResponseReturnValue:
        host.row(workspace_id)
        return answer({})

    @routes.post(f"{BASE}/lsps/start")
    @routes.post(f"{BASE}/lsps/stop")
    async def nothing_to_start(workspace_id: str) -> ResponseReturnValue:
        host.row(workspace_id)
        return empty_response()

    @routes.get(f"{BASE}/providers")
    async def providers(workspace_id: str) -> ResponseReturnValue:
        found = (await config_of(workspace_id))["providers"].values()
        return answer([{key: each[key] for key in _PROVIDER_KEYS if key in each} for each in found])

    @routes.get(f"{BASE}/agent/default-small-model")
    async def small_model(workspace_id: str) -> ResponseReturnValue:
        models = (await config_of(workspace_id))["models"]
        wanted = request.args.get("provider_id", models["small"]["provider"])
        same = models["small"]["provider"] == wanted
        return answer(models["small" if same else "large"])

    @routes.post(f"{BASE}/filetracker/read")
    async def mark_read(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(ReadMark)
        path = body.path
        if not os.path.isabs(path) or "\0" in path or len(path) > limits.READ_MARK_CHARS:
            raise Refused("bad_request", "`path` must be the absolute path of a file.")
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            session = await workspace.session(SessionId(body.session_id))

            def commit(tx: Transaction) -> None:
                if tx.session(session.id) is not None:
                    tx.mark_read(session.id, path, tx.now_ms * 1_000_000)

            await services.store.commit_nowait(workspace.id, commit).wait()
        return empty_response()

    app.register_blueprint(routes)
