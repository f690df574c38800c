"""Routes about runs: records, waiting, cancel, edit, drop, and a session's queue."""

from __future__ import annotations

import trio
from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio.host.editing import edit as edit_run
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.requests import EditRequest
from crush_trio.protocol.runs import CancelReceipt, RunRecord, RunState
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.routes.prompts import check_command
from crush_trio.server.services import (
    Services,
    answer,
    answer_naming,
    body_as,
    by_caller,
    limit_argument,
    wait_argument,
)
from crush_trio.store.contract import RunRow

BASE = "/v1/workspaces/<workspace_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("runs", __name__)
    host, store = services.host, services.store

    async def stored(run_id: str, workspace_id: str | None = None) -> RunRow:
        owner = None if workspace_id is None else host.row(workspace_id).id
        row = await store.run(RunId(run_id))
        if row is None or owner not in (None, row.record.workspace_id):
            raise Refused("run_not_found", f"There is no run {run_id!r}.")
        return row

    def opened(run_id: str, workspace_id: str | None) -> OpenRun | None:
        owner = None if workspace_id is None else host.row(workspace_id).id
        found = host.open_run(run_id)
        if found is None or owner not in (None, found.row.record.workspace_id):
            return None
        return found

    async def session_of(open_run: OpenRun) -> Session:
        workspace = await host.open(open_run.row.record.workspace_id)
        return await workspace.session(open_run.session_id)

    @routes.get("/v1/runs/<run_id>")
    @routes.get(f"{BASE}/runs/<run_id>")
    async def show(run_id: str, workspace_id: str | None = None) -> ResponseReturnValue:
        wait_s = wait_argument()
        open_run = opened(run_id, workspace_id)
        if open_run is not None and wait_s:
            await wait_for_end(open_run, wait_s, services.stopping)
        return answer((await stored(run_id, workspace_id)).record)

    @routes.get("/v1/runs")
    async def listing() -> ResponseReturnValue:
        return answer({"runs": await _list(services, request.args.get("workspace_id"))})

    @routes.get(f"{BASE}/runs")
    async def workspace_listing(workspace_id: str) -> ResponseReturnValue:
        return answer({"runs": await _list(services, workspace_id)})

    @routes.post("/v1/runs/<run_id>/cancel")
    @routes.post(f"{BASE}/runs/<run_id>/cancel")
    async def cancel(run_id: str, workspace_id: str | None = None) -> ResponseReturnValue:
        open_run = opened(run_id, workspace_id)
        if open_run is None:
            record = (await stored(run_id, workspace_id)).record
            return answer(CancelReceipt(record.accept_seq, too_late=(record.id,)))
        session = await session_of(open_run)
        ticket = session.cancel(by_caller("user"), open_run.id)
        return answer((await ticket.wait()).value)

    @routes.patch("/v1/runs/<run_id>")
    @routes.patch(f"{BASE}/runs/<run_id>")
    async def edit(run_id: str, workspace_id: str | None = None) -> ResponseReturnValue:
        body, ignored = body_as(EditRequest)
        if body.prompt is None and body.position is None:
            raise Refused("bad_request", "Name a new `prompt` or a new `position`.")
        if body.prompt is not None and not body.prompt.strip():
            raise Refused("prompt_empty", "The prompt is empty.")
        if body.position is not None and body.position < 0:
            raise Refused("bad_request", "`position` counts from 0, the next run to start.")
        open_run = await queued_run(run_id, workspace_id)
        if body.prompt is not None and open_run.row.record.kind == "shell":
            check_command(body.prompt)
        session = await session_of(open_run)
        changed = await edit_run(session, RunId(run_id), body.prompt, body.position).wait()
        return answer_naming(ignored, changed.value.record)

    @routes.delete("/v1/runs/<run_id>")
    @routes.delete(f"{BASE}/runs/<run_id>")
    async def drop(run_id: str, workspace_id: str | None = None) -> ResponseReturnValue:
        open_run = await queued_run(run_id, workspace_id)
        session = await session_of(open_run)
        if open_run.run not in session.queue.waiting():
            raise Refused("run_not_queued", "The run is not waiting any more; cancel it instead.")
        ticket = session.cancel(by_caller("drop"), open_run.id)
        return answer((await ticket.wait()).value)

    async def queued_run(run_id: str, workspace_id: str | None) -> OpenRun:
        open_run = opened(run_id, workspace_id)
        if open_run is None:
            await stored(run_id, workspace_id)
            raise Refused("run_not_queued", "The run has ended; nothing was changed.")
        return open_run

    app.register_blueprint(routes)


async def wait_for_end(open_run: OpenRun, wait_s: float, stopping: trio.Event) -> None:
    """Wait until the run has ended, the time is over, or the server stops."""
    with trio.move_on_after(wait_s):
        async with trio.open_nursery() as nursery:

            async def leave_when(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave_when, open_run.ended)
            nursery.start_soon(leave_when, stopping)


async def _list(services: Services, workspace_id: str | None) -> tuple[RunRecord, ...]:
    state = request.args.get("state")
    if state is not None and state not in set(RunState):
        raise Refused("bad_request", f"`state` must be one of {', '.join(RunState)}.")
    session_id = request.args.get("session_id")
    before = request.args.get("before")
    if before and await services.store.run(RunId(before)) is None:
        raise Refused("bad_request", "`before` must be the id of a run, the last one of a list.")
    return await services.store.runs(
        workspace_id=services.host.row(workspace_id).id if workspace_id else None,
        session_id=SessionId(session_id) if session_id else None,
        state=state,
        limit=limit_argument(),
        before=RunId(before) if before else None,
    )
