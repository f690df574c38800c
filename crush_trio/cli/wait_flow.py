"""``crush-trio wait`` at work: long polls for a record until it is finished."""

from __future__ import annotations

import random
from typing import NamedTuple

import trio

from crush_trio.cli import exit_codes
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import say, warn, write_lines
from crush_trio.cli.render import failure_sentence
from crush_trio.cli.result import result_line
from crush_trio.client.errors import ServerRefused, Unreachable
from crush_trio.client.follow import backoff
from crush_trio.client.shapes import JsonObject, text
from crush_trio.limits import WAIT_SLICE_S


class WaitOptions(NamedTuple):
    """What ``wait`` was asked for."""

    flags: ServerFlags
    run_id: str
    timeout: float | None
    as_json: bool
    reconnect_timeout: float


async def wait_for_run(options: WaitOptions) -> int:
    """Carry out ``wait``; the exit code is the run's, or 124."""
    record: JsonObject | None = None
    async with linked(options.flags) as link:
        limit = float("inf") if options.timeout is None else options.timeout
        with trio.move_on_after(limit):
            record = await finished(link, options.run_id, options.reconnect_timeout)
            while record.get("outcome") == "steered" and text(record, "steered_into"):
                joined = text(record, "steered_into")
                record = await finished(link, joined, options.reconnect_timeout)
    if record is None:
        warn(f"it has not ended yet; for its end: crush-trio wait {options.run_id}")
    code = exit_codes.WAIT_TIMEOUT if record is None else exit_codes.exit_code(record)
    await _tell(options, record, code)
    return code


async def finished(link: Link, run_id: str, patience: float) -> JsonObject:
    """The record of ``run_id`` once it has ended, across a server that leaves and comes back.

    Raises:
        Unreachable: No answer for ``patience`` seconds.
        ServerRefused: Unknown run, or no access.
    """
    attempt, broken = 0, trio.current_time()
    while True:
        try:
            asked = trio.current_time()
            record = await link.api.run(run_id, wait=WAIT_SLICE_S)
            if record.get("state") == "finished":
                return record
            attempt, broken = 0, trio.current_time()
            if trio.current_time() - asked > WAIT_SLICE_S / 2:
                continue  # the slice was used up; otherwise the server is stopping
        except Unreachable:
            if trio.current_time() - broken > patience:
                raise
            if link.autostart and link.target.data_dir:
                await link.revive()
        except ServerRefused as exc:
            if exc.status != 503 or trio.current_time() - broken > patience:
                raise
        await trio.sleep(backoff(attempt, random.random))
        attempt += 1


async def _tell(options: WaitOptions, record: JsonObject | None, code: int) -> None:
    if options.as_json:
        line = result_line(
            run_id=options.run_id,
            session_id=text(record, "session_id") or None,
            record=record,
            exit_code=code,
            steered_into=_joined(options.run_id, record),
            reason="wait_timeout" if record is None else None,
        )
        await write_lines([line])
    elif text(record, "text"):
        say(text(record, "text"))
    if record is not None and failure_sentence(record):
        warn(failure_sentence(record))


def _joined(run_id: str, record: JsonObject | None) -> str | None:
    found = text(record, "id")
    return found if found and found != run_id else None
