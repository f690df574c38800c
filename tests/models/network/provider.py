"""A provider on loopback that does exactly what a test says, byte for byte, and sees all of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import attrs
import h11
import orjson
import trio
import trio.testing

from crush_trio.http.certificates import Certificates
from crush_trio.http.dialing import Dial, Line, Origin
from crush_trio.http.proxies import Proxy


@attrs.define(eq=False)
class Exchange:
    """One request as it arrived, and the means to answer it.

    ``closed`` is set in the moment in which the other side hangs up.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    closed: trio.Event
    _stream: trio.abc.Stream
    keep: bool = True

    @property
    def json(self) -> dict[str, object]:
        """The request's body."""
        read: dict[str, object] = orjson.loads(self.body)
        return read

    async def send(self, *pieces: bytes) -> None:
        """Send these bytes, each piece by itself; nothing is added to them."""
        for piece in pieces:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_all(piece)  # the other side may have hung up
            await trio.lowlevel.checkpoint()

    async def hang_up(self) -> None:
        """Close the connection here and now."""
        self.keep = False
        await trio.aclose_forcefully(self._stream)


Answering: TypeAlias = Callable[[Exchange], Awaitable[None]]


@attrs.define(eq=False)
class FakeProvider:
    """What a running one has seen."""

    host: str
    port: int
    scheme: str
    exchanges: list[Exchange] = attrs.field(factory=list)
    connections: int = 0
    """How many were accepted, in all."""
    open_connections: int = 0
    arrived: trio.Event = attrs.field(factory=trio.Event)
    """Set when a request has arrived; replaced by a fresh one by `next_arrival`."""

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def next_arrival(self) -> trio.Event:
        """An event for the next request."""
        self.arrived = trio.Event()
        return self.arrived


@attrs.define(eq=False)
class MemoryEnd:
    """Our end of a connection in memory, with what a socket can do without waiting."""

    stream: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]

    def close(self) -> None:
        """See `dialing.Handle`."""
        self.stream.receive_stream.close()
        self.stream.send_stream.close()

    def is_readable(self) -> bool:
        """See `dialing.Handle`; nothing of these tests comes unasked."""
        return False


@asynccontextmanager
async def provider_in_memory(answer: Answering) -> AsyncIterator[tuple[FakeProvider, Dial]]:
    """The same without sockets, so that time can be virtual, and what connects to it."""
    async with trio.open_nursery() as nursery:
        provider = FakeProvider("127.0.0.1", 80, "http")

        async def dial(origin: Origin, proxy: Proxy | None, certificates: Certificates) -> Line:
            ours, theirs = trio.testing.memory_stream_pair()
            handler = partial(_connection, provider=provider, answer=answer, tls=None)
            nursery.start_soon(handler, theirs)
            await trio.lowlevel.checkpoint()
            return Line(ours, MemoryEnd(ours))

        yield provider, dial
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def fake_provider(
    answer: Answering,
    *,
    tls: Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]] | None = None,
    host: str = "127.0.0.1",
    name: str | None = None,
) -> AsyncIterator[FakeProvider]:
    """Run one; ``answer`` is called for each request, and a connection is kept unless it closes it.

    Args:
        tls: Makes a connection secure, or fails.
        name: What its URL calls it, default its address.
    """
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        port = listeners[0].socket.getsockname()[1]
        provider = FakeProvider(name or host, port, "http" if tls is None else "https")
        handler = partial(_connection, provider=provider, answer=answer, tls=tls)
        await nursery.start(trio.serve_listeners, handler, listeners)
        try:
            yield provider
        finally:
            nursery.cancel_scope.cancel()


async def _connection(
    stream: trio.abc.Stream,
    *,
    provider: FakeProvider,
    answer: Answering,
    tls: Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]] | None,
) -> None:
    provider.connections += 1
    provider.open_connections += 1
    try:
        async with stream:
            secured: trio.abc.Stream = stream
            if tls is not None:
                try:
                    secured = await tls(stream)
                except trio.BrokenResourceError:
                    return  # they do not trust us
            await _requests(secured, provider, answer)
    finally:
        provider.open_connections -= 1


async def _requests(stream: trio.abc.Stream, provider: FakeProvider, answer: Answering) -> None:
    number, closed = provider.connections, trio.Event()
    send, receive = trio.open_memory_channel[bytes](64)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, stream, send, closed)
        http = h11.Connection(h11.SERVER)
        while (request := await _request(http, receive)) is not None:
            head, body = request
            exchange = Exchange(
                head.method.decode(),
                head.target.decode(),
                {key.decode(): value.decode() for key, value in head.headers},
                body,
                number,
                closed,
                stream,
            )
            provider.exchanges.append(exchange)
            provider.arrived.set()
            await answer(exchange)
            if not exchange.keep:
                break
            http = h11.Connection(h11.SERVER)
        nursery.cancel_scope.cancel()


async def _read(
    stream: trio.abc.Stream, send: trio.MemorySendChannel[bytes], closed: trio.Event
) -> None:
    async with send:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some(65_536):  # until either side hangs up
                await send.send(bytes(data))
        closed.set()


async def _request(
    http: h11.Connection, receive: trio.MemoryReceiveChannel[bytes]
) -> tuple[h11.Request, bytes] | None:
    head, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            try:
                http.receive_data(await receive.receive())
            except trio.EndOfChannel:
                return None
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return head, body
        else:
            return None


# --- answers ------------------------------------------------------------------------------

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def head(status: int, **headers: str) -> bytes:
    """The head of an answer; underscores in names become dashes."""
    lines = [f"HTTP/1.1 {status} Reason"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(status: int, body: bytes, **headers: str) -> bytes:
    """A complete answer."""
    return head(status, content_length=str(len(body)), **headers) + body


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: str, name: str = "") -> bytes:
    """One server-sent event, as a chunk."""
    return chunk((f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode())


def streaming(*events: bytes) -> Answering:
    """Answers every request with these chunks, and ends the body."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM, *events, END)

    return answer


def in_turn(*answers: Answering) -> Answering:
    """Answers the first request with the first, and so on; the last one answers the rest."""
    left = list(answers)

    async def answer(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return answer


def sending(data: bytes, *, then_close: bool = False) -> Answering:
    """Answers with these bytes, and hangs up if asked to."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)
        if then_close:
            await exchange.hang_up()

    return answer


async def silent(exchange: Exchange) -> None:
    """Says nothing until the other side hangs up."""
    await exchange.closed.wait()
