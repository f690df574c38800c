"""HTTP/1.1 exchanges on connections of our own, below `httpx2.AsyncClient`.

Imported only when the first request is made: httpx2 takes 60 ms.
"""

from __future__ import annotations

import collections
from collections.abc import AsyncGenerator, Callable, Mapping

import attrs
import h11
import httpx2
import trio

from crush_trio import limits
from crush_trio.http.certificates import Certificates
from crush_trio.http.dialing import Dial, Line, Origin
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.proxies import Proxy, proxy_for
from crush_trio.http.quoting import quotable

PROGRESS = "crush_trio.progress"
"""The request extension that is told of each `Progress`: a plain function, called at once."""


class Progress:
    """How far a request has come."""

    WAITS = "waits"
    CONNECTS = "connects"
    SENDS = "sends"
    SENT = "sent"


class _Stale(Exception):
    """A kept connection ended before a byte of the answer came."""


@attrs.define(eq=False)
class _Link:
    """One connection and its HTTP state."""

    line: Line
    origin: Origin
    proxy: Proxy | None
    http: h11.Connection = attrs.field(init=False)
    expires: float = attrs.field(default=0.0, init=False)
    used: bool = attrs.field(default=False, init=False)
    has_ended: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.HTTP_HEAD_BYTES)

    async def begin(self, request: httpx2.Request) -> h11.Response:
        """Send the request; the head of its answer."""
        out = self.http.send(self._head(request)) or b""
        content = request.content
        try:
            for start in range(0, len(content), limits.HTTP_SEND_BYTES):
                if start:
                    await self.line.stream.send_all(out)
                    out = b""
                piece = content[start : start + limits.HTTP_SEND_BYTES]
                out += self.http.send(h11.Data(data=piece)) or b""
            out += self.http.send(h11.EndOfMessage()) or b""
            await self.line.stream.send_all(out)
        except trio.BrokenResourceError:
            if self.used:
                raise _Stale from None
            # A server may refuse and close before it has read everything: see what it says.
        tell(request, Progress.SENT)
        return await self._answer_head()

    def _head(self, request: httpx2.Request) -> h11.Request:
        headers = request.headers.raw
        target = request.url.raw_path
        if self.proxy is not None and self.origin.scheme == "http":
            target = f"http://{self.origin.name}".encode() + target
            if self.proxy.authorization:
                headers = [*headers, (b"Proxy-Authorization", self.proxy.authorization)]
        return h11.Request(method=request.method.encode(), target=target, headers=headers)

    async def _answer_head(self) -> h11.Response:
        heard = False
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                data = await self._receive()
                if not data:
                    if self.used and not heard:
                        raise _Stale
                    raise HttpFailure(
                        HttpKind.NETWORK,
                        f"{self.origin.name} closed the connection without an answer.",
                    )
                heard = True
                self.http.receive_data(data)
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise HttpFailure(
                    HttpKind.MALFORMED, f"{self.origin.name} answers with another protocol."
                )

    async def more(self) -> None:
        """Wait for more of the answer."""
        data = await self._receive()
        self.has_ended = not data
        self.http.receive_data(data)

    def body(self) -> tuple[bytes, bool]:
        """What of the answer's body is at hand, and whether that was its end."""
        parts = []
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            else:
                return b"".join(parts), event is not h11.NEED_DATA

    def may_be_kept(self) -> bool:
        """Whether one more request can be made here; its HTTP state is then ready for it."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self.used = True
            return True
        return False

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as exc:
            if self.has_ended:
                raise broken_off(self.origin) from None
            said = quotable(str(exc))
            raise HttpFailure(
                HttpKind.MALFORMED, f"{self.origin.name} sends what is not HTTP: {said}."
            ) from None

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.line.stream.receive_some(limits.HTTP_RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.http.their_state is h11.SEND_BODY:
                raise broken_off(self.origin) from None
            return b""


def broken_off(origin: Origin) -> HttpFailure:
    """The connection ended inside an answer."""
    return HttpFailure(HttpKind.TRUNCATED, f"{origin.name} broke off in the middle of its answer.")


def tell(request: httpx2.Request, progress: str) -> None:
    """Tell whoever made the request how far it has come."""
    told: Callable[[str], None] | None = request.extensions.get(PROGRESS)
    if told is not None:
        told(progress)


@attrs.define(eq=False)
class _Body(httpx2.AsyncByteStream):
    """The body of one answer; whoever leaves it early closes its connection."""

    link: _Link | None
    pool: Transport

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        link = self.link
        while link is not None:
            data, is_over = link.body()
            if data:
                yield data
            if is_over:
                self.link = None
                self.pool.take_back(link)
                return
            await link.more()

    async def aclose(self) -> None:
        if self.link is not None:
            link, self.link = self.link, None
            self.pool.drop(link)


@attrs.define(eq=False)
class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of servers.

    A connection is kept for the next request to the same place only if its answer was read to the
    end; a failed, cancelled or abandoned one is closed at once, in one synchronous step.
    """

    certificates: Certificates
    environ: Mapping[str, str]
    dial: Dial
    _idle: collections.deque[_Link] = attrs.field(factory=collections.deque, init=False)
    _busy: set[_Link] = attrs.field(factory=set, init=False)
    _room: trio.Semaphore = attrs.field(init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._room = trio.Semaphore(limits.HTTP_CONNECTIONS)

    @property
    def open_connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are kept for later."""
        return len(self._busy), len(self._idle)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange, up to the head of the answer.

        Raises:
            HttpFailure: It could not be had; the sentence names the host.
        """
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        origin = Origin(url.scheme, url.raw_host.decode("ascii"), port)
        proxy = proxy_for(origin.scheme, origin.host, origin.port, self.environ)
        tell(request, Progress.WAITS)
        await self._room.acquire()
        try:
            link, head = await self._exchange(request, origin, proxy)
        except BaseException:
            self._room.release()
            raise
        return httpx2.Response(
            head.status_code, headers=list(head.headers.raw_items()), stream=_Body(link, self)
        )

    async def _exchange(
        self, request: httpx2.Request, origin: Origin, proxy: Proxy | None
    ) -> tuple[_Link, h11.Response]:
        while True:
            link = self._kept(origin, proxy)
            if link is None:
                tell(request, Progress.CONNECTS)
                link = _Link(await self.dial(origin, proxy, self.certificates), origin, proxy)
            self._busy.add(link)
            tell(request, Progress.SENDS)
            try:
                return link, await link.begin(request)
            except _Stale:
                self._close(link)  # it ended while nobody used it: that is no failure
            except h11.LocalProtocolError:  # its text may hold the key
                self._close(link)
                raise HttpFailure(
                    HttpKind.HEADER,
                    "A header of the request holds characters that HTTP does not allow.",
                ) from None
            except BaseException:
                self._close(link)
                raise

    def _kept(self, origin: Origin, proxy: Proxy | None) -> _Link | None:
        """A kept connection that is still good; those that are not any more are closed."""
        now, found = trio.current_time(), None
        for link in tuple(self._idle):
            if link.expires <= now or link.line.socket.is_readable():
                self._idle.remove(link)
                link.line.close()
            elif link.origin == origin and link.proxy == proxy:
                found = link  # the one used last is the likeliest to be alive
        if found is not None:
            self._idle.remove(found)
        return found

    def take_back(self, link: _Link) -> None:
        """Its answer was read to the end."""
        if self._is_closed or not link.may_be_kept():
            self.drop(link)
            return
        self._busy.discard(link)
        self._room.release()
        link.expires = trio.current_time() + limits.HTTP_KEEP_S
        self._idle.append(link)
        while len(self._idle) > limits.HTTP_KEPT_CONNECTIONS:
            self._idle.popleft().line.close()

    def drop(self, link: _Link) -> None:
        """Its answer was not read to the end, and nobody will."""
        self._close(link)
        self._room.release()

    def _close(self, link: _Link) -> None:
        self._busy.discard(link)
        link.line.close()

    async def aclose(self) -> None:
        """See `close_all`."""
        self.close_all()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def close_all(self) -> None:
        """Close what is kept and what is in use; requests under way fail."""
        self._is_closed = True
        while self._idle:
            self._idle.popleft().line.close()
        for link in tuple(self._busy):
            link.line.close()
