"""The websocket: cursor in, joined frames out, a sign of life in both directions (contract 4)."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import attrs
import orjson
import trio
from quart import Blueprint, websocket
from werkzeug.datastructures import MultiDict

from crush_trio import limits
from crush_trio.host.workspace import Workspace
from crush_trio.journal import JournalReader
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.events import KINDS
from crush_trio.protocol.ids import SessionId
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import accept_websocket
from crush_trio.server.services import Services
from crush_trio.store.contract import Selection

logger = logging.getLogger(__name__)

GOING_AWAY = 1001
SILENT = 4408
_PARAMETERS = frozenset({"after", "epoch", "session_id", "kinds", "detail", "client_id"})


@attrs.frozen
class StreamRequest:
    """What a subscriber asked for; ``cursor`` is ``None`` for "from now on"."""

    cursor: int | None
    epoch: str | None
    selection: Selection
    detail: Literal["delta", "snapshot"]
    client_id: str | None


def parse_stream_request(arguments: MultiDict[str, str]) -> StreamRequest:
    """The stream parameters of contract 4.

    Raises:
        Refused: ``bad_cursor`` or ``bad_request``, with the allowed values.
    """
    unknown = sorted(set(arguments) - _PARAMETERS)
    if unknown:
        raise Refused("bad_request", f"Unknown stream parameter {', '.join(unknown)}.")
    kinds: frozenset[str] | None = None
    if "kinds" in arguments:
        kinds = frozenset(arguments["kinds"].split(","))
        if strange := sorted(kinds - set(KINDS)):
            raise Refused(
                "bad_request",
                f"Unknown kind {', '.join(strange)!r}; the kinds are {', '.join(KINDS)}.",
            )
    asked = arguments.get("detail", "delta")
    detail: Literal["delta", "snapshot"] = "snapshot" if asked == "snapshot" else "delta"
    if asked != detail:
        raise Refused("bad_request", "`detail` must be delta or snapshot.")
    session_id = arguments.get("session_id")
    return StreamRequest(
        cursor=_cursor(arguments.get("after", "now")),
        epoch=arguments.get("epoch") or None,
        selection=Selection(SessionId(session_id) if session_id else None, kinds),
        detail=detail,
        client_id=arguments.get("client_id"),
    )


def _cursor(after: str) -> int | None:
    if after == "now":
        return None
    if after == "start":
        return 0
    if after.isascii() and after.isdigit() and len(after) <= 18:
        return int(after)
    raise Refused("bad_cursor", "`after` must be a sequence number, `now` or `start`.")


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the websocket of one workspace."""
    routes = Blueprint("stream", __name__)

    @routes.websocket("/v1/workspaces/<workspace_id>/ws")
    async def stream(workspace_id: str) -> None:
        wanted = parse_stream_request(websocket.args)
        workspace = await services.host.open(workspace_id)
        session_id = wanted.selection.session_id
        if session_id is not None:
            await _check_session(workspace, session_id)
        with services.host.subscribing(workspace, wanted.client_id):
            await _serve(services, workspace, wanted)

    app.register_blueprint(routes)


async def _check_session(workspace: Workspace, session_id: SessionId) -> None:
    """A filter that selects nothing is a mistake.

    It is no 404, which tells a client that its workspace is gone (CW 2.1).

    Raises:
        Refused: ``bad_request``.
    """
    try:
        await workspace.session(session_id)
    except Refused as refused:
        raise Refused("bad_request", f"`session_id`: {refused.message}") from refused


async def _serve(services: Services, workspace: Workspace, wanted: StreamRequest) -> None:
    """One subscriber, from the upgrade to the close frame."""
    feed = workspace.feed
    with JournalReader(
        services.store,
        feed,
        cursor=wanted.cursor,
        selection=wanted.selection,
        detail=wanted.detail,
        epoch=wanted.epoch,
    ) as reader:
        await accept_websocket()
        hello = {
            "type": "hello",
            "version": services.version.version,
            "server_id": services.version.server_id,
            "epoch": services.store.epoch,
            "seq": feed.last_seq,
        }
        await _send_control(hello)
        peer = PeerLife()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, peer)
            await _write(reader, peer)
            nursery.cancel_scope.cancel()
        if peer.silent:
            await websocket.close(SILENT, "silent")
            return
        await _send_control({"type": "bye", "reason": feed.closed or "closed"})
        await websocket.close(GOING_AWAY, feed.closed or "closed")


@attrs.define
class PeerLife:
    """What is known of a peer's life: a passive reader is fine, one that pinged must go on.

    A ping is answered at once, in the listener, so that a quiet journal does not delay it.
    """

    last_heard: float = math.inf
    silent: bool = False

    def heard(self, kind: str) -> None:
        """A frame came in."""
        if kind in ("ping", "pong"):
            self.last_heard = trio.current_time()

    def deadline(self) -> float:
        """When it will be taken for dead; never, if it never pinged."""
        return self.last_heard + limits.PEER_SILENT_S


async def _write(reader: JournalReader, peer: PeerLife) -> None:
    """Send what the reader gives until the feed closes or the peer falls silent."""
    next_ping = trio.current_time() + limits.PING_INTERVAL_S
    while True:
        frame = await reader.next_frame(
            max(0.0, min(next_ping, peer.deadline()) - trio.current_time())
        )
        if frame is None:
            return
        if frame:
            await websocket.send(frame.decode())
        now = trio.current_time()
        if now >= peer.deadline():
            peer.silent = True
            return
        if now >= next_ping:
            next_ping = now + limits.PING_INTERVAL_S
            await _send_control({"type": "ping", "seq": reader.progress})


async def _listen(peer: PeerLife) -> None:
    """Take in whatever the peer sends; without this its disconnect would go unnoticed."""
    while True:
        data = await websocket.receive()
        for kind in _kinds_of(data):
            peer.heard(kind)
            if kind == "ping":
                await _send_control({"type": "pong"})


def _kinds_of(data: Any) -> list[str]:
    """The types of a client's frame: an array of objects, or one object; else nothing."""
    try:
        value = orjson.loads(data)
    except (orjson.JSONDecodeError, TypeError):
        return []
    items = value if isinstance(value, list) else [value]
    kinds = (item.get("type") for item in items if isinstance(item, dict))
    return [kind for kind in kinds if isinstance(kind, str)]


async def _send_control(frame: dict[str, Any]) -> None:
    await websocket.send(orjson.dumps([frame]).decode())
