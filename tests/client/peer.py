"""A tiny real server for client tests: h11 and trio-websocket on a real socket, scripted."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import h11
import orjson
import trio
import trio_websocket

from crush_trio.client.endpoint import TcpEndpoint, UnixEndpoint

Handler = Callable[["Request"], Awaitable[tuple[int, Any]]]


@attrs.frozen
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def json(self) -> Any:
        return orjson.loads(self.body)


@attrs.define
class Prefixed(trio.abc.Stream):
    """A stream with bytes put back in front."""

    stream: trio.SocketStream
    head: bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.head:
            head, self.head = self.head, b""
            return head
        return bytes(await self.stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


class Channel:
    """The server's end of one websocket."""

    def __init__(self, connection: trio_websocket.WebSocketConnection, stream: Prefixed) -> None:
        self._connection = connection
        self._stream = stream

    async def send(self, *objects: dict[str, Any]) -> None:
        await self._connection.send_message(orjson.dumps(objects).decode())

    async def send_text(self, text: str) -> None:
        await self._connection.send_message(text)

    async def receive(self) -> Any:
        return orjson.loads(await self._connection.get_message())

    async def close(self, code: int, reason: str = "") -> None:
        with trio.move_on_after(1):
            await self._connection.aclose(code, reason)

    async def cut(self) -> None:
        """End the connection without a word."""
        await self._stream.aclose()

    async def stay(self) -> None:
        """Keep the connection until the client ends it."""
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await self._connection.get_message()


Script = Callable[[Channel], Awaitable[None]]


@attrs.define
class Peer:
    """What the peer answers, and what it was asked.

    ``routes`` maps ``"METHOD /path"`` to a handler or to a fixed answer; ``scripts`` is used up,
    one per websocket connection; ``refuse`` holds answers to upgrades that come before.
    """

    endpoint: UnixEndpoint | TcpEndpoint
    routes: dict[str, Any] = attrs.field(factory=dict)
    scripts: list[Script] = attrs.field(factory=list)
    refuse: list[tuple[int, Any]] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)
    upgrades: list[Request] = attrs.field(factory=list)
    connections: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        raw = b""
        while True:
            head: h11.Request | None = None
            body = b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    data = bytes(await stream.receive_some())
                    raw += data
                    http.receive_data(data)
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    return
                else:
                    break
            assert head is not None
            request = Request(
                head.method.decode(),
                head.target.decode(),
                {key.decode(): value.decode() for key, value in head.headers},
                body,
            )
            if request.headers.get("upgrade", "").lower() == "websocket":
                self.upgrades.append(request)
                if self.refuse:
                    await self._answer(http, stream, *self.refuse.pop(0))
                    return
                await self._talk(Prefixed(stream, raw))
                return
            self.requests.append(request)
            raw = b""
            answer = await self._find(request)
            if answer is None:
                return
            await self._answer(http, stream, *answer)
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _find(self, request: Request) -> tuple[int, Any] | None:
        found = self.routes.get(f"{request.method} {request.path}")
        if found is None:
            return 404, {"message": "there is no such thing", "code": "not_found"}
        return await found(request) if callable(found) else found  # type: ignore[no-any-return]

    async def _answer(
        self, http: h11.Connection, stream: trio.SocketStream, status: int, value: Any
    ) -> None:
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        headers = [("Content-Length", str(len(body))), ("Content-Type", "application/json")]
        out = http.send(h11.Response(status_code=status, headers=headers)) or b""
        out += http.send(h11.Data(data=body)) or b""
        await stream.send_all(out + (http.send(h11.EndOfMessage()) or b""))

    async def _talk(self, stream: Prefixed) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            channel = Channel(await request.accept(), stream)
            await self._play(channel)
            nursery.cancel_scope.cancel()

    async def _play(self, channel: Channel) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            if self.scripts:
                await self.scripts.pop(0)(channel)
            else:
                await channel.stay()


@contextlib.asynccontextmanager
async def unix_peer(path: Path) -> AsyncIterator[Peer]:
    """A peer on a unix socket at ``path``."""
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(64)
    async with _serving(sock, Peer(UnixEndpoint(path))) as peer:
        yield peer


@contextlib.asynccontextmanager
async def tcp_peer() -> AsyncIterator[Peer]:
    """A peer on a free port of 127.0.0.1."""
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    port = sock.getsockname()[1]
    async with _serving(sock, Peer(TcpEndpoint("127.0.0.1", port))) as peer:
        yield peer


@contextlib.asynccontextmanager
async def _serving(sock: trio.socket.SocketType, peer: Peer) -> AsyncIterator[Peer]:
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, peer.serve, [trio.SocketListener(sock)])
        yield peer
        nursery.cancel_scope.cancel()


HELLO = {"type": "hello", "version": "0", "server_id": "s", "epoch": "e1", "seq": 0}


def event(seq: int, kind: str = "session", **payload: Any) -> dict[str, Any]:
    """An event with that number."""
    return {
        "seq": seq,
        "ts_ms": 0,
        "workspace_id": "w",
        "type": kind,
        "payload": {"type": "updated", "payload": payload},
    }
