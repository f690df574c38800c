"""``crush-trio watch`` at work: the event stream as text, or as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import trio

from crush_trio.cli import exit_codes
from crush_trio.cli.interrupts import Interrupts
from crush_trio.cli.link import linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import stdout_is_terminal, warn, write_lines, write_stdout
from crush_trio.cli.render import LiveText
from crush_trio.cli.sanitize import for_terminal
from crush_trio.cli.session_flow import find_session, workspace_id
from crush_trio.client.follow import Subscription, follow
from crush_trio.client.shapes import JsonObject, text


class WatchOptions(NamedTuple):
    """What ``watch`` was asked for."""

    flags: ServerFlags
    cwd: str
    session: str | None
    after: int | str
    as_json: bool
    reconnect_timeout: float


async def watch(options: WatchOptions) -> int:
    """Carry out ``watch``; ends with a signal, or when the server stays away."""
    return await until_interrupted(partial(_show, options))


async def until_interrupted(show: Callable[[], Awaitable[None]]) -> int:
    """Do ``show`` until it ends or a signal comes; the exit code."""
    scope = trio.CancelScope()

    async def leave() -> None:
        scope.cancel()

    interrupts = Interrupts(leave)
    # What the block raises must not leave inside a group, so the nursery never sees it.
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(interrupts.listen)
        try:
            with scope:
                await show()
        except Exception as exc:
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return interrupts.exit_code or exit_codes.COMPLETED


async def _show(options: WatchOptions) -> None:
    async with linked(options.flags) as link:
        workspace = await workspace_id(link, options.cwd)
        session: str | None = None
        if options.session is not None:
            session = text(await find_session(link, workspace, options.session), "id")
        wanted = Subscription(
            endpoint=link.target.endpoint,
            token=link.target.token,
            workspace=workspace,
            session=session,
            after=options.after,
            snapshot=lambda: link.api.snapshot(workspace, session),
            reconnect_timeout=options.reconnect_timeout,
        )
        live = LiveText()
        async with follow(wanted) as stream:
            while True:
                await _write(options.as_json, live, await stream.receive_batch())


async def _write(as_json: bool, live: LiveText, batch: list[JsonObject]) -> None:
    if as_json:
        await write_lines(batch)
        return
    for frame in batch:
        if frame.get("type") == "bye":
            warn(f"the server ends the stream: {text(frame, 'reason')}")
    shown = "".join(live.take(frame) for frame in batch)
    if shown:
        harmless = for_terminal(shown) if stdout_is_terminal() else shown
        await write_stdout(harmless.encode("utf-8", "backslashreplace"))
