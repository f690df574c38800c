"""Several workspaces on one websocket: `GET /v1/ws` (contract 3 and 4)."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from quart import websocket

from crush_trio import limits
from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.events import Bye, Control, Ping, StreamError, Subscribed, Unsubscribed
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.server.edge.call import accept_websocket, websocket_sender
from crush_trio.server.services import Services
from crush_trio.server.streams import carry
from crush_trio.server.streams.request import StreamRequest, check_session, parse_subscribe


async def serve_many(services: Services) -> None:
    """One socket, from the upgrade to the close frame."""
    await accept_websocket()
    send = websocket_sender()
    with services.host.attending():
        async with trio.open_nursery() as nursery:
            socket = ManySocket(services, nursery, send)
            nursery.start_soon(socket.listen)
            nursery.start_soon(socket.obey)
            nursery.start_soon(socket.watch_peer)
            nursery.start_soon(socket.end_with_server)
        if socket.end is None:
            await carry.say_bye(send, "shutdown")
        else:
            await websocket.close(*socket.end)


@attrs.define(eq=False)
class Subscription:
    """One workspace that is being carried; ``done`` is set when nothing of it follows."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class ManySocket:
    """The tasks of one socket and what they share.

    A writer per subscription, and one turn at the socket: whoever has a frame waits in line, so
    that a busy workspace gets every n-th frame of n and starves nobody. Each writer holds one
    frame at most, and a send that blocks ends the socket as any other (G9). Orders are obeyed one
    after another: the answers come in the order of the questions.
    """

    services: Services
    nursery: trio.Nursery
    _send_now: carry.Send
    end: tuple[int, str] | None = attrs.field(default=None, init=False)
    """Close code and reason, where the client is the cause."""
    _carried: dict[WorkspaceId, Subscription] = attrs.field(factory=dict, init=False)
    _peer: carry.PeerLife = attrs.field(init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _orders: tuple[
        trio.MemorySendChannel[dict[str, Any]], trio.MemoryReceiveChannel[dict[str, Any]]
    ] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._peer = carry.PeerLife(self._send_now)
        self._orders = trio.open_memory_channel(limits.STREAMS_PER_SOCKET)

    # --- what comes in --------------------------------------------------------------------

    async def listen(self) -> None:
        """Answer pings at once and pass orders on; a flood of orders waits in the kernel."""
        while True:
            objects = carry.objects_of(await websocket.receive())
            if objects is None:
                return self._leave(carry.BAD_FRAME, "a frame must be JSON objects with a type")
            for item in objects:
                if await self._peer.take(item["type"]):
                    continue
                if item["type"] in ("subscribe", "unsubscribe"):
                    if not isinstance(item.get("workspace_id"), str):
                        return self._leave(carry.BAD_FRAME, "workspace_id is missing")
                    await self._orders[0].send(item)

    async def obey(self) -> None:
        """Subscribe and unsubscribe, one order after another."""
        async for order in self._orders[1]:
            workspace_id = WorkspaceId(order["workspace_id"])
            if order["type"] == "unsubscribe":
                await self._drop(workspace_id)
                await self._say(Unsubscribed(workspace_id))
                continue
            try:
                await self._subscribe(workspace_id, order)
            except (Refused, StoreError) as exc:
                retryable = not isinstance(exc, Refused) or exc.retryable
                await self._say(StreamError(workspace_id, exc.code, exc.message, retryable))

    async def _subscribe(self, workspace_id: WorkspaceId, order: dict[str, Any]) -> None:
        wanted = parse_subscribe(order)
        self.services.host.row(workspace_id)
        most = limits.STREAMS_PER_SOCKET
        if workspace_id not in self._carried and len(self._carried) >= most:
            raise Refused("too_many_streams", f"A socket carries at most {most} workspaces.")
        await self.nursery.start(self._carry, workspace_id, wanted)

    async def _drop(self, workspace_id: WorkspaceId) -> None:
        """End a subscription and wait until nothing of it can follow; harmless without one."""
        found = self._carried.get(workspace_id)
        if found is not None:
            found.scope.cancel()
            await found.done.wait()

    # --- what goes out --------------------------------------------------------------------

    async def _carry(
        self,
        workspace_id: WorkspaceId,
        wanted: StreamRequest,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """One subscription, from its check to its last object.

        An older one of the same workspace goes on until this one is found good.
        """
        host = self.services.host
        workspace = await host.open(workspace_id)
        with host.subscribing(workspace, wanted.client_id):
            await check_session(workspace, wanted)
            await self._drop(workspace.id)
            mine = self._carried[workspace.id] = Subscription()
            task_status.started()
            try:
                with mine.scope:
                    await self._write(workspace, wanted)
            finally:
                del self._carried[workspace.id]
                mine.done.set()

    async def _write(self, workspace: Workspace, wanted: StreamRequest) -> None:
        services, feed, tag = self.services, workspace.feed, workspace.id
        with wanted.reader(services.store, feed, tag=True) as reader:
            hello = carry.hello(services, feed.last_seq, tag)
            await self._say(Subscribed(tag), hello)
            await carry.write_stream(reader, self._send, None, tag)
            await self._say(Bye(feed.closed or "closed", tag))

    async def _send(self, data: bytes) -> None:
        async with self._turn:
            await self._send_now(data)

    async def _say(self, *frames: Control) -> None:
        await carry.send_control(self._send, *frames)

    # --- how it ends ----------------------------------------------------------------------

    async def watch_peer(self) -> None:
        """Close on a peer that pinged once and fell silent; ping where no stream does."""
        next_ping = trio.current_time() + limits.PING_INTERVAL_S
        while True:
            await trio.sleep_until(min(next_ping, self._peer.deadline()))
            now = trio.current_time()
            if now >= self._peer.deadline():
                return self._leave(carry.SILENT, "silent")
            if now >= next_ping:
                next_ping = now + limits.PING_INTERVAL_S
                if not self._carried:
                    await self._say(Ping())

    async def end_with_server(self) -> None:
        """When the server stops and every workspace has said its last word, end the socket."""
        await self.services.stopping.wait()
        while self._carried:
            await next(iter(self._carried.values())).done.wait()
        self.nursery.cancel_scope.cancel()

    def _leave(self, code: int, reason: str) -> None:
        self.end = (code, reason)
        self.nursery.cancel_scope.cancel()
