"""Routes about workspaces: create, list, release, close, purge, configuration, snapshot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio
from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio.host.joining import join_workspace
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.protocol.requests import CreateWorkspace, Snapshot, WorkspaceInfo
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.pending import pending_permissions, pending_questions
from crush_trio.server.services import (
    Services,
    answer,
    body_as,
    by_caller,
    callers_env,
    client_argument,
    client_id_of,
    seen,
)
from crush_trio.store.contract import WorkspaceRow


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("workspaces", __name__)
    host = services.host

    async def info(row: WorkspaceRow, env: Mapping[str, str]) -> WorkspaceInfo:
        config, notices = await services.kit.describe(Path(row.path), env)
        workspace = host.find_open(row.id)
        return WorkspaceInfo(
            id=row.id,
            path=row.path,
            config=config,
            notices=notices,
            version=services.version.version,
            yolo=workspace is not None and workspace.default_mode == "allow",
            data_dir=str(services.options.data_dir),
            open=workspace is not None,
        )

    @routes.post("/v1/workspaces")
    async def create() -> ResponseReturnValue:
        body, ignored = body_as(CreateWorkspace)
        path = await trio.to_thread.run_sync(checked_directory, body.path)
        client_id = client_id_of(body.client_id)
        workspace = await join_workspace(host, path, client_id, environment(body.env))
        with host.using(workspace):
            services.settings.note(
                workspace, await trio.to_thread.run_sync(services.settings.state, path)
            )
            if body.yolo:
                await workspace.set_default_mode("allow", current_call().principal)
            described = await info(workspace.row, workspace.presence.environment(client_id))
        return answer(attrs.evolve(described, ignored=ignored))

    @routes.get("/v1/workspaces")
    async def listing() -> ResponseReturnValue:
        rows = [workspace.row for workspace in host.workspaces()]
        if request.args.get("known") == "true":
            rows = list(host.known.values())
        return answer([await info(row, callers_env(host.find_open(row.id))) for row in rows])

    @routes.get("/v1/workspaces/<workspace_id>")
    async def show(workspace_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        return answer(await info(row, callers_env(host.find_open(row.id))))

    @routes.get("/v1/workspaces/<workspace_id>/config")
    async def config(workspace_id: str) -> ResponseReturnValue:
        workspace = await host.open(workspace_id)
        setup = await trio.to_thread.run_sync(services.kit.setup, workspace.path)
        used = await services.kit.used(workspace.path, callers_env(workspace))
        return answer(setup.public(used))

    @routes.delete("/v1/workspaces/<workspace_id>")
    async def release(workspace_id: str) -> ResponseReturnValue:
        if request.args.get("purge") == "true":
            path = Path(host.row(workspace_id).path)
            await host.purge(workspace_id)
            await trio.to_thread.run_sync(services.settings.forget, path)
            return empty_response()
        client_id = client_argument()
        workspace = host.find_open(WorkspaceId(workspace_id))
        if workspace is not None:
            workspace.presence.release(client_id)
        return empty_response()  # CW 2.3: 200 for an unknown workspace too

    @routes.post("/v1/workspaces/<workspace_id>/close")
    async def close(workspace_id: str) -> ResponseReturnValue:
        await host.end(workspace_id, by_caller("workspace"))
        return empty_response()

    @routes.get("/v1/workspaces/<workspace_id>/snapshot")
    async def snapshot(workspace_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        rows = await services.store.snapshot(row.id, None, messages=0, before=None)
        return answer(
            Snapshot(
                seq=rows.seq,
                epoch=services.store.epoch,
                runs=rows.runs,
                jobs=tuple(job.record for job in rows.jobs),
                permissions=pending_permissions(rows.asks),
                questions=pending_questions(rows.asks),
                sessions=seen(host.find_open(row.id), rows.sessions),
            )
        )

    app.register_blueprint(routes)


def environment(entries: tuple[str, ...]) -> dict[str, str] | None:
    """The variables of a create's ``env`` (CW 13.1), odd entries left out; ``None`` without any."""
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, equals, value in pairs if name and equals} or None


def checked_directory(path: str) -> Path:
    """The directory a client named, symlinks resolved; blocking.

    Raises:
        Refused: ``path_required``, ``path_relative``, ``path_missing``, ``path_unreadable``.
    """
    if not path:
        raise Refused("path_required", "`path` is required: the absolute path of a directory.")
    if "\0" in path or not os.path.isabs(path):
        raise Refused("path_relative", f"`path` must be an absolute path, not {path!r}.")
    resolved = Path(os.path.realpath(path))
    if not resolved.is_dir():
        raise Refused("path_missing", f"{path} is not a directory.")
    if not os.access(resolved, os.R_OK | os.X_OK):
        raise Refused("path_unreadable", f"{path} cannot be read; check its permissions.")
    return resolved
