"""Routes that change the configuration (CW 2.7), and those about a project's first description."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import attrs
import trio
from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.config.change import Change, keys_of, removing, setting
from crush_trio.config.expand import literal
from crush_trio.config.keys import environment_keys
from crush_trio.config.load import CONTEXT_PATHS, Config
from crush_trio.protocol.errors import ConfigError, Refused
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.services import Services, answer, body_as

logger = logging.getLogger(__name__)

BASE = "/v1/workspaces/<workspace_id>"
DESCRIPTION = "AGENTS.md"
"""The file that a project's description is written to, unless the configuration names one."""


@attrs.frozen
class SetKey:
    """``POST …/config/set``: any JSON value at a dotted key, in one scope (CW 2.7)."""

    scope: int
    key: str
    value: Any = None


@attrs.frozen
class RemoveKey:
    """``POST …/config/remove``."""

    scope: int
    key: str


@attrs.frozen
class ChooseModel:
    """``POST …/config/model``: the model of the slot ``large`` or ``small``."""

    scope: int
    model_type: str
    model: dict[str, Any]


@attrs.frozen
class Compact:
    """``POST …/config/compact``: whether a terminal client uses less room."""

    scope: int
    enabled: bool


@attrs.frozen
class ProviderKey:
    """``POST …/config/provider-key``: a key as a string, or an OAuth token."""

    scope: int
    provider_id: str
    api_key: Any
    kind: str = "string"


@attrs.frozen
class RefreshToken:
    """``POST …/config/refresh-oauth``."""

    provider_id: str
    scope: int = 0


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("config", __name__)
    host, settings = services.host, services.settings

    async def changed(workspace_id: str, scope: int, *changes: Change) -> ResponseReturnValue:
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            path = await settings.change(workspace, scope, changes)
        logger.info("%s changed %s", current_call().principal, path)
        return empty_response()

    @routes.post(f"{BASE}/config/set")
    async def set_key(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(SetKey)
        return await changed(workspace_id, body.scope, setting(keys_of(body.key), body.value))

    @routes.post(f"{BASE}/config/remove")
    async def remove_key(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(RemoveKey)
        return await changed(workspace_id, body.scope, removing(keys_of(body.key)))

    @routes.post(f"{BASE}/config/model")
    async def choose_model(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(ChooseModel)
        if body.model_type not in ("large", "small"):
            raise Refused("bad_request", "`model_type` must be large or small.")
        if not (body.model.get("provider") and body.model.get("model")):
            raise Refused("bad_request", "`model` must name both provider and model.")
        slot = ("models", body.model_type)
        return await changed(workspace_id, body.scope, setting(slot, body.model))

    @routes.post(f"{BASE}/config/compact")
    async def compact(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(Compact)
        keys = ("options", "tui", "compact_mode")
        return await changed(workspace_id, body.scope, setting(keys, body.enabled))

    @routes.post(f"{BASE}/config/provider-key")
    async def provider_key(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(ProviderKey)
        return await changed(workspace_id, body.scope, *_key_changes(body))

    @routes.post(f"{BASE}/config/refresh-oauth")
    async def refresh_token(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(RefreshToken)
        config = await _config(services, workspace_id)
        provider = config.providers.get(body.provider_id)
        if provider is None:
            raise Refused("provider_not_found", "There is no such provider in the configuration.")
        if not provider.get("oauth"):
            raise Refused("bad_request", "The provider has no OAuth token; give it an `api_key`.")
        raise Refused("bad_request", "OAuth tokens are not renewed by this version; set a new one.")

    @routes.post(f"{BASE}/config/import-copilot")
    async def import_copilot(workspace_id: str) -> ResponseReturnValue:
        host.row(workspace_id)
        return answer({"token": None, "success": False})

    @routes.get(f"{BASE}/project/needs-init")
    async def needs_init(workspace_id: str) -> ResponseReturnValue:
        path = Path(host.row(workspace_id).path)
        needs = await trio.to_thread.run_sync(_needs_description, services, path)
        return answer({"needs_init": needs})

    @routes.post(f"{BASE}/project/init")
    async def init(workspace_id: str) -> ResponseReturnValue:
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            await trio.to_thread.run_sync(settings.mark_initialised, workspace.path)
            await settings.look(workspace)
        return empty_response()

    @routes.get(f"{BASE}/project/init-prompt")
    async def init_prompt(workspace_id: str) -> ResponseReturnValue:
        config = await _config(services, workspace_id)
        return answer({"prompt": _prompt(config.options.get("initialize_as") or DESCRIPTION)})

    app.register_blueprint(routes)


def _key_changes(body: ProviderKey) -> tuple[Change, ...]:
    """A key is stored as it is: what looks like a variable in it is none.

    Raises:
        Refused: ``bad_request``: no such kind, or the key is not of it.
    """
    if not body.provider_id:
        raise Refused("bad_request", "`provider_id` must name a provider.")
    place = ("providers", body.provider_id)
    if body.kind == "string":
        if not isinstance(body.api_key, str) or not body.api_key:
            raise Refused("bad_request", "`api_key` must be a string that is not empty.")
        return (
            setting((*place, "api_key"), literal(body.api_key)),
            removing((*place, "oauth")),
        )
    if body.kind == "oauth":
        token = body.api_key.get("access_token") if isinstance(body.api_key, dict) else None
        if not isinstance(token, str) or not token:
            raise Refused("bad_request", "`api_key` must be a token: an object, `access_token`.")
        return (
            setting((*place, "api_key"), literal(token)),
            setting((*place, "oauth"), body.api_key),
        )
    raise Refused("bad_request", "`kind` must be string or oauth.")


async def _config(services: Services, workspace_id: str) -> Config:
    path = Path(services.host.row(workspace_id).path)
    return await trio.to_thread.run_sync(services.settings.read, path)


def _needs_description(services: Services, path: Path) -> bool:
    """Whether a language model should be asked to describe the project; blocking.

    Only if one is set up, there is something to describe, nothing describes it yet, and nobody
    has said that it is done.
    """
    try:
        config = services.settings.read(path)
        is_empty = all(each.name.startswith(".") for each in path.iterdir())
        known = {*CONTEXT_PATHS, config.options.get("initialize_as", DESCRIPTION)}
        is_described = any((path / name).exists() for name in known)
    except (ConfigError, OSError, ValueError):  # ValueError: a NUL in a name
        return False
    is_set_up = config.model() or config.providers or environment_keys(os.environ)
    done = is_empty or is_described or services.settings.is_initialised(path)
    return bool(is_set_up and not done)


def _prompt(file: str) -> str:
    return (
        f"Look around in this project and write {file}, for a programmer who has never seen it and "
        "works on it with tools alone. Say how it is built, checked and tested, how one test is "
        "run alone, how it is laid out, and which conventions its code keeps: names, types, "
        "errors, imports, formatting. Take over what other such files in it say. State only what "
        "you have seen in it. Keep it under 60 lines. If the directory holds no project, say so "
        "and write nothing."
    )
