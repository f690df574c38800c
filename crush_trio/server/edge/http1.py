"""HTTP/1.1 and its websockets, and nothing else, on top of Hypercorn's protocol classes.

What differs from Hypercorn 0.18: no HTTP/2 by upgrade or prior knowledge, no compressed websocket
frames, header bytes bounded however they arrive, errors below the application are JSON as well,
and a broken handshake or an oversized frame ends the connection instead of leaving it open.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any, cast

import h11
import orjson
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.protocol.events import Body, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import Handshake, WSStream
from hypercorn.typing import WebsocketAcceptEvent

from crush_trio.limits import (
    FRAME_IN_BYTES,
    HEADERS_BYTES,
    HEADERS_TIMEOUT_S,
    KEEP_ALIVE_S,
)

_SENTENCES = {
    400: ("bad_request", "The request is not valid HTTP/1.1."),
    431: ("headers_too_large", f"The request headers are larger than {HEADERS_BYTES} bytes."),
    501: ("bad_request", "The request uses a transfer encoding this server does not know."),
    505: ("bad_request", "This server speaks HTTP/1.1 only."),
}


def make_config() -> Config:
    """Hypercorn's settings for our edge; what it would say goes to the log ``crush_trio.http``."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("crush_trio.http")
    config.include_server_header = False
    config.h11_max_incomplete_size = HEADERS_BYTES
    config.keep_alive_max_requests = sys.maxsize  # Hypercorn would end a connection at 1,000
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.ssl_handshake_timeout = HEADERS_TIMEOUT_S
    config.websocket_max_message_size = FRAME_IN_BYTES
    config.alpn_protocols = ["http/1.1"]
    return config


class PlainWebsocket(WSStream):
    """Hypercorn's websocket without permessage-deflate and with an end to oversized messages."""

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        # Deflate costs eight times the CPU and 0.1 MB per connection; with no extension offered,
        # none is accepted. This is the one place where it is switched off.
        self.handshake.extensions = None
        await super()._accept(message)

    async def _handle_events(self) -> None:
        await super()._handle_events()
        if self.buffer.length > self.buffer.max_length:
            # 1009 has been sent. Hypercorn would go on collecting what the peer still sends.
            await self.send(StreamClosed(stream_id=self.stream_id))


class Http1(H11Protocol):
    """One HTTP/1.1 connection."""

    @property
    def owes_a_reading(self) -> bool:
        """Whether the peer may still be sending, so that closing at once would reset it."""
        if isinstance(self.connection, H11WSConnection):
            return True
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    _cut_off = False

    def _is_too_late(self, event: Event) -> bool:
        """Whether the handler was cut off and this is the 500 Hypercorn answers in its place.

        Nothing may follow the head of an answer but its own body, and nothing at all its end.
        """
        if isinstance(event, Response) and self.connection.our_state is h11.SEND_BODY:
            self._cut_off = True
        return self._cut_off or self.connection.our_state in (
            h11.DONE,
            h11.MUST_CLOSE,
            h11.CLOSED,
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """Never leaves HTTP/1.1; Hypercorn would start HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)
        if request.http_version not in (b"1.1", b"1.0"):
            return await self._refuse(505)
        if sum(len(name) + len(value) + 4 for name, value in headers) > HEADERS_BYTES:
            return await self._refuse(431)
        kind: type[WSStream | HTTPStream] = HTTPStream
        if _wants_websocket(request.method, headers):
            if not Handshake(headers, request.http_version.decode()).is_valid():
                return await self._refuse(400)
            kind = PlainWebsocket
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        self._cut_off = False
        self.stream = kind(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        return None

    async def stream_send(self, event: Event) -> None:
        """As Hypercorn, and an answer that is the connection's last one says so.

        It is the last one if the body was not read before it, or if the server is ending.
        """
        if isinstance(event, (Response, Body, EndBody)) and self._is_too_late(event):
            return
        last = self.owes_a_reading or self.context.terminated.is_set()
        if isinstance(event, Response) and event.status_code >= 200 and last:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        code, message = _SENTENCES.get(status_code, _SENTENCES[400])
        body = orjson.dumps({"message": message, "code": code, "retryable": False}) + b"\n"
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        response: Any = h11.Response(status_code=status_code, headers=headers)
        await self._send_h11_event(response)
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _wants_websocket(method: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    upgrades = [value for name, value in headers if name == b"upgrade"]
    tokens = b",".join(value for name, value in headers if name == b"connection").lower()
    return (
        method == b"GET"
        and any(value.strip().lower() == b"websocket" for value in upgrades)
        and b"upgrade" in (token.strip() for token in tokens.split(b","))
    )


def text_frame(payload: bytes) -> bytes:
    """A websocket's text frame as a server sends it: whole and not masked (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
