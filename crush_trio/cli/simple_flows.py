"""Commands that ask the server one thing and print the answer: cancel, ps, stop and others."""

from __future__ import annotations

import time

from crush_trio.cli import exit_codes
from crush_trio.cli.link import linked, target_of
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import say, warn, write_lines
from crush_trio.cli.render import jobs_table, runs_table
from crush_trio.cli.session_flow import find_session, workspace_id
from crush_trio.client.api import Api
from crush_trio.client.autostart import wait_gone
from crush_trio.client.errors import Unreachable
from crush_trio.client.http import open_http
from crush_trio.client.shapes import children, text


async def cancel(
    flags: ServerFlags, run_id: str | None, session: str | None, cwd: str, as_json: bool
) -> int:
    """``cancel``: what it covered."""
    async with linked(flags) as link:
        if run_id is not None:
            receipt = await link.api.cancel_run(run_id)
        else:
            workspace = await workspace_id(link, cwd)
            found = await find_session(link, workspace, session or "")
            receipt = await link.api.cancel_session(workspace, text(found, "id"))
    if as_json:
        await write_lines([receipt])
        return 0
    for covered in children(receipt, "runs"):
        say(f"cancelled {text(covered, 'run_id')} ({text(covered, 'was')})")
    late = receipt.get("too_late")
    for missed in late if type(late) is list else []:
        say(f"too late for {missed}: its end was already decided")
    if not children(receipt, "runs") and not late:
        say("nothing to cancel")
    return 0


async def list_runs(flags: ServerFlags, everything: bool, limit: int, as_json: bool) -> int:
    """``ps``: open runs, or the latest ones in any state; and the background jobs that run."""
    async with linked(flags) as link:
        if everything:
            records = await link.api.runs(limit=limit)
        else:
            records = [
                *await link.api.runs(state="queued", limit=limit),
                *await link.api.runs(state="running", limit=limit),
            ]
        jobs = [] if as_json else await link.api.running_jobs()
    if as_json:
        await write_lines([records])
        return 0
    now_ms = time.time_ns() // 1_000_000
    for found in (runs_table(records, now_ms), jobs_table(jobs, now_ms)):
        if found:
            say(found)
    return 0


async def stop(flags: ServerFlags) -> int:
    """``stop``: ask, then wait until nothing listens any more."""
    target = target_of(flags)
    async with open_http(target.endpoint, target.token) as http:
        try:
            await Api(http).control("shutdown")
        except Unreachable as exc:
            if exc.refused:
                warn(f"no server at {target.endpoint.url}")
                return 0
            # It may go before its answer has arrived; whether it has gone is seen below.
        if not await wait_gone(http):
            warn(f"the server at {target.endpoint.url} has not ended yet")
            return exit_codes.FAILED
    return 0
