"""Routes about a workspace's agent besides prompts: whether it is ready, and its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.protocol.errors import CrushError
from crush_trio.protocol.models import ModelInfo
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, callers_env

BASE = "/v1/workspaces/<workspace_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("agent", __name__)
    host = services.host

    @routes.get(f"{BASE}/agent")
    async def show(workspace_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        workspace = host.find_open(row.id)
        busy = workspace is not None and workspace.is_any_busy()
        try:
            env = callers_env(workspace)
            chosen = await services.kit.model(None, Path(row.path), local=True, env=env)
            info = chosen.model.info
        except CrushError:
            return answer({"is_busy": busy, "is_ready": False, "model": {}, "model_cfg": {}})
        return answer(
            {
                "is_busy": busy,
                "is_ready": True,
                "model": _crush_model(info),
                "model_cfg": {"model": info.model, "provider": info.provider},
            }
        )

    @routes.post(f"{BASE}/agent/init")
    @routes.post(f"{BASE}/agent/update")
    async def refresh(workspace_id: str) -> ResponseReturnValue:
        # Nothing is replaced (contract 3): each run reads the configuration when it begins.
        await host.open(workspace_id)
        return empty_response()

    app.register_blueprint(routes)


def _crush_model(info: ModelInfo) -> dict[str, Any]:
    """A model in the shape of CW 10.2."""
    return {
        "id": info.model,
        "name": info.name or info.model,
        "cost_per_1m_in": info.cost_per_1m_in or 0.0,
        "cost_per_1m_out": info.cost_per_1m_out or 0.0,
        "cost_per_1m_in_cached": info.cost_per_1m_in_cached or 0.0,
        "cost_per_1m_out_cached": info.cost_per_1m_out_cached or 0.0,
        "context_window": info.context_window,
        "default_max_tokens": info.max_output_tokens,
        "can_reason": info.can_reason,
        "supports_attachments": info.supports_attachments is True,
        "options": {},
    }
