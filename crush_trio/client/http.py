"""Bounded HTTP exchanges over one kept connection, with h11 and nothing above it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs
import h11
import trio

from crush_trio.client.endpoint import Endpoint, open_stream
from crush_trio.client.errors import BadAnswer, Unreachable
from crush_trio.limits import CLIENT_ANSWER_BYTES, CLIENT_RECEIVE_BYTES, REQUEST_TIMEOUT_S


@attrs.frozen
class Answer:
    """A complete answer: its status and its body."""

    status: int
    body: bytes


class _Stale(Exception):
    """A kept connection ended before a byte of the answer came."""


@attrs.define
class _Link:
    """One connection to the server and its HTTP state."""

    stream: trio.SocketStream
    http: h11.Connection
    used: bool = False

    async def exchange(self, request: h11.Request, body: bytes) -> Answer:
        out = self.http.send(request)
        if body:
            out = (out or b"") + (self.http.send(h11.Data(data=body)) or b"")
        out = (out or b"") + (self.http.send(h11.EndOfMessage()) or b"")
        with contextlib.suppress(trio.BrokenResourceError):
            # A server may answer (413) and close before it has read everything.
            await self.stream.send_all(out)
        return await self._answer()

    async def _answer(self) -> Answer:
        status, body = 0, bytearray()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self._more(started=bool(status)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > CLIENT_ANSWER_BYTES:
                    raise BadAnswer(f"the server's answer exceeds {CLIENT_ANSWER_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, bytes(body))

    async def _more(self, *, started: bool) -> bytes:
        try:
            data = await self.stream.receive_some(CLIENT_RECEIVE_BYTES)
        except trio.BrokenResourceError:
            data = b""
        if not data and not started:
            raise _Stale
        return bytes(data)

    def keep(self) -> bool:
        """Whether one more exchange may use this connection."""
        self.used = True
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False


class Http:
    """Requests to one server. Keeps at most one idle connection; several tasks may use it.

    Used as ``async with open_http(endpoint, token) as http``.
    """

    def __init__(self, endpoint: Endpoint, token: str | None) -> None:
        self.endpoint = endpoint
        self._headers = [("Host", endpoint.host_header), ("Accept", "application/json")]
        if token is not None:
            self._headers.append(("Authorization", f"Bearer {token}"))
        self._idle: _Link | None = None

    async def exchange(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT_S,
        repeatable: bool = False,
        byte_range: str | None = None,
    ) -> Answer:
        """One request and its whole answer.

        Args:
            method: An HTTP method.
            target: Path and query, already quoted.
            body: JSON bytes, or ``None`` for no body.
            timeout: Seconds for everything, connecting included.
            repeatable: Sending it twice does no harm, so that a kept connection that turns out
                to be closed is replaced without telling the caller. ``GET`` always is.
            byte_range: Ask for this part of the answer, as ``0-1023``.

        Raises:
            Unreachable: No connection, or no whole answer in time.
            UnsafeSocket: See `open_stream`.
            BadAnswer: What answers does not speak HTTP.
        """
        request = h11.Request(
            method=method, target=target, headers=self._request_headers(body, byte_range)
        )
        with trio.move_on_after(timeout):
            while True:
                link = await self._take()
                fresh = not link.used
                try:
                    return await self._use(link, request, body or b"")
                except _Stale:
                    if fresh or not (repeatable or method == "GET"):
                        raise Unreachable(
                            f"the server at {self.endpoint.url} hung up without an answer"
                        ) from None
        raise Unreachable(f"the server at {self.endpoint.url} did not answer within {timeout:g} s")

    def _request_headers(self, body: bytes | None, byte_range: str | None) -> list[tuple[str, str]]:
        if byte_range is not None:
            return [*self._headers, ("Range", f"bytes={byte_range}")]
        if body is None:
            return self._headers
        return [
            *self._headers,
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]

    async def _take(self) -> _Link:
        link, self._idle = self._idle, None
        if link is None:
            stream = await open_stream(self.endpoint)
            link = _Link(stream, h11.Connection(h11.CLIENT))
        return link

    async def _use(self, link: _Link, request: h11.Request, body: bytes) -> Answer:
        keep = False
        try:
            answer = await link.exchange(request, body)
            keep = link.keep() and self._idle is None
        except h11.RemoteProtocolError as exc:
            if link.http.trailing_data[1]:
                raise Unreachable(
                    f"the server at {self.endpoint.url} hung up in the middle of its answer"
                ) from exc
            raise BadAnswer(
                f"what answers at {self.endpoint.url} does not speak HTTP: {exc}"
            ) from exc
        finally:
            if keep:
                self._idle = link
            else:
                link.stream.socket.close()
        return answer

    def close(self) -> None:
        """Drop the idle connection."""
        if self._idle is not None:
            self._idle.stream.socket.close()
            self._idle = None


@contextlib.asynccontextmanager
async def open_http(endpoint: Endpoint, token: str | None = None) -> AsyncIterator[Http]:
    """Requests to ``endpoint`` for as long as the block lasts; connects when first needed."""
    http = Http(endpoint, token)
    try:
        yield http
    finally:
        http.close()
