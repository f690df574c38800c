"""A real server on real sockets, and a client that writes raw bytes to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import h11
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from crush_trio.server.edge.hypercorn_fixes import serve_http
from crush_trio.server.edge.sockets import Bind, BoundSocket, UnixBind, bind

TOKEN = "correct-horse-battery-staple"


@attrs.frozen
class Answer:
    """One response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Wire:
    """One connection of a client that can misbehave."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes | str) -> None:
        await self.stream.send_all(data if isinstance(data, bytes) else data.encode("latin1"))

    async def answer(self, method: str = "GET") -> Answer:
        """The next response; interim ones are skipped."""
        if self.h11.our_state is h11.IDLE:
            # h11 wants to have sent the request it reads the answer of; the bytes were ours.
            self.h11.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            self.h11.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body = b""
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                if self.h11.their_state is h11.DONE and self.h11.our_state is h11.DONE:
                    self.h11.start_next_cycle()
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Answer(head.status_code, headers, body)
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("the server closed without an answer")

    async def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        host: str | None = "localhost",
    ) -> Answer:
        """Sends one request and reads its answer."""
        lines = [f"{method} {target} HTTP/1.1"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join(lines) + "\r\n\r\n")
        if body:
            await self.send(body)
        return await self.answer(method)

    async def seconds_to_eof(self, within: float) -> float:
        """How long until the server closes; raises `trio.TooSlowError` if it does not."""
        started = trio.current_time()
        with trio.fail_after(within):
            try:
                while await self.stream.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                pass
        return trio.current_time() - started

    def close(self) -> None:
        self.stream.socket.close()


@attrs.define
class Running:
    """A server that serves while its block is open."""

    socket: BoundSocket
    stop: trio.Event
    ended: trio.Event
    _open: list[Wire] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        return int(self.socket.url.rpartition(":")[2])

    async def connect(self) -> Wire:
        if self.socket.url.startswith("unix://"):
            stream = await trio.open_unix_socket(self.socket.url.removeprefix("unix://"))
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        wire = Wire(stream)
        self._open.append(wire)
        return wire

    async def seconds_to_end(self, within: float) -> float:
        """Stops the server and tells how long it took."""
        started = trio.current_time()
        self.stop.set()
        with trio.fail_after(within):
            await self.ended.wait()
        return trio.current_time() - started

    def close_clients(self) -> None:
        for wire in self._open:
            wire.close()


@asynccontextmanager
async def serving(
    app: ASGIFramework,
    where: Bind | Path,
    *,
    graceful_timeout_s: float = 1.0,
    config: Config | None = None,
) -> AsyncIterator[Running]:
    """``app`` served on ``where`` (a directory gets a unix socket in it)."""
    with bind(UnixBind(where / "s.sock") if isinstance(where, Path) else where) as socket:
        stop, started, ended = trio.Event(), trio.Event(), trio.Event()
        serve = partial(
            serve_http,
            app,
            [socket.listener],
            stop=stop,
            graceful_timeout_s=graceful_timeout_s,
            config=config,
        )

        async def run() -> None:
            try:
                async with trio.open_nursery() as server:
                    await server.start(serve)
                    started.set()
            finally:
                ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await started.wait()
            running = Running(socket, stop, ended)
            try:
                yield running
            finally:
                stop.set()
                running.close_clients()
                nursery.cancel_scope.cancel()
