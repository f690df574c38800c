"""Routes about background jobs: list, one, its output by position, kill."""

from __future__ import annotations

import time

from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio import limits
from crush_trio.host.jobs.job import Job
from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.jobs import JobOutput, JobRecord
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.services import Services, answer, int_argument, wait_argument

BASE = "/v1/workspaces/<workspace_id>/jobs"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("jobs", __name__)
    host, store = services.host, services.store

    async def records(workspace_id: str, session_id: str | None) -> tuple[JobRecord, ...]:
        row = host.row(workspace_id)
        workspace = host.find_open(row.id)
        if workspace is not None:
            jobs = workspace.home.jobs
            await jobs.load()
            return jobs.records(session_id)
        rows = await store.jobs(row.id, SessionId(session_id) if session_id else None)
        return tuple(job.record for job in rows if not _is_forgotten(job.record))

    async def stored(workspace_id: str, job_id: str) -> JobRecord:
        wanted = job_id.upper()
        for record in await records(workspace_id, None):
            if record.job_id == wanted:
                return record
        raise Refused("job_not_found", f"There is no job {job_id!r} here.")

    def running(workspace_id: str, job_id: str) -> tuple[Workspace, Job] | None:
        """A job whose output is still known, with the workspace that owns it."""
        workspace = host.find_open(host.row(workspace_id).id)
        job = workspace.home.jobs.find(job_id) if workspace is not None else None
        return (workspace, job) if workspace is not None and job is not None else None

    @routes.get(BASE)
    async def listing(workspace_id: str) -> ResponseReturnValue:
        return answer({"jobs": await records(workspace_id, request.args.get("session_id"))})

    @routes.get(f"{BASE}/<job_id>")
    async def show(workspace_id: str, job_id: str) -> ResponseReturnValue:
        return answer(await stored(workspace_id, job_id))

    @routes.get(f"{BASE}/<job_id>/output")
    async def output(workspace_id: str, job_id: str) -> ResponseReturnValue:
        after = int_argument("after", 0, least=0, most=limits.INT_MAX)
        most = limits.JOB_OUTPUT_MAX_BYTES
        limit = int_argument("limit", limits.JOB_OUTPUT_BYTES, least=4, most=most)
        wait_s = wait_argument()
        record = await stored(workspace_id, job_id)
        found = running(workspace_id, job_id)
        if found is None:  # its output was forgotten when its workspace closed
            position = max(after, record.output_bytes)
            return answer(JobOutput("", position, True, max(0, record.output_bytes - after)))
        workspace, job = found
        with host.using(workspace):
            await job.wait_output(after, wait_s)
            return answer(await job.read(after, limit))

    @routes.post(f"{BASE}/<job_id>/kill")
    async def kill(workspace_id: str, job_id: str) -> ResponseReturnValue:
        record = await stored(workspace_id, job_id)
        found = running(workspace_id, job_id)
        if found is None:
            return answer(record)
        workspace, job = found
        with host.using(workspace):
            await job.kill()
        return answer(job.shown())

    app.register_blueprint(routes)


def _is_forgotten(record: JobRecord) -> bool:
    ended_at_ms = record.ended_at_ms or 0
    return bool(ended_at_ms) and time.time() - ended_at_ms / 1000 > limits.JOB_KEPT_S
