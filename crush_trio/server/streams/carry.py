"""One workspace's stream on a websocket, in whichever socket it travels (contract 4)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
import trio
from quart import websocket

from crush_trio import limits
from crush_trio.journal import JournalReader, control_entry
from crush_trio.protocol.events import Bye, Control, Hello, Ping, Pong
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.server.services import Services

NORMAL_END = 1001
BAD_FRAME = 4400
PURGED = 4404
SILENT = 4408

Send = Callable[[bytes], Awaitable[None]]
"""Sends one frame, whole or not at all; the edge bounds it by `limits.SEND_BLOCKED_S`."""


async def send_control(send: Send, *frames: Control) -> None:
    """Send control objects in one frame."""
    await send(b"[%b]" % b",".join([control_entry(frame).data for frame in frames]))


@attrs.define
class PeerLife:
    """What is known of a peer's life: a passive reader is fine, one that pinged must go on.

    A ping is answered at once, by who reads it, so that a quiet journal does not delay it.
    """

    send: Send
    last_heard: float = math.inf
    silent: bool = False

    async def take(self, kind: str) -> bool:
        """Note and answer a sign of life; whether the object was one."""
        if kind not in ("ping", "pong"):
            return False
        self.last_heard = trio.current_time()
        if kind == "ping":
            await send_control(self.send, Pong())
        return True

    def deadline(self) -> float:
        """When it will be taken for dead; never, if it never pinged."""
        return self.last_heard + limits.PEER_SILENT_S


def hello(services: Services, seq: int, workspace_id: WorkspaceId | None = None) -> Hello:
    """The first object of a stream."""
    version = services.version
    return Hello(version.version, version.server_id, services.store.epoch, seq, workspace_id)


async def write_stream(
    reader: JournalReader, send: Send, peer: PeerLife | None, tag: WorkspaceId | None = None
) -> None:
    """Send what the reader gives until the feed closes or the peer falls silent.

    Its progress goes out with a ping every `limits.PING_INTERVAL_S`; ``tag`` is named there.
    Without ``peer`` somebody else watches it.
    """
    next_ping = trio.current_time() + limits.PING_INTERVAL_S
    while True:
        deadline = math.inf if peer is None else peer.deadline()
        frame = await reader.next_frame(max(0.0, min(next_ping, deadline) - trio.current_time()))
        if frame is None:
            return
        if frame:
            await send(frame)
        now = trio.current_time()
        if peer is not None and now >= peer.deadline():
            peer.silent = True
            return
        if now >= next_ping:
            next_ping = now + limits.PING_INTERVAL_S
            await send_control(send, Ping(reader.progress, tag))


async def say_bye(send: Send, reason: str) -> None:
    """The end of a whole socket that is not the peer's fault: `bye`, then the close frame."""
    await send_control(send, Bye(reason))
    await websocket.close(PURGED if reason == "purged" else NORMAL_END, reason)


def objects_of(data: Any) -> list[dict[str, Any]] | None:
    """The typed objects of a client's frame, an array or a single one; ``None`` for garbage."""
    try:
        value = orjson.loads(data)
    except (orjson.JSONDecodeError, TypeError):
        return None
    items = value if isinstance(value, list) else [value]
    if all(isinstance(item, dict) and isinstance(item.get("type"), str) for item in items):
        return items
    return None
