"""An answer that comes line by line: JSON objects, each handed on when it has arrived."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import h11
import orjson
import trio

from crush_trio.client.api import refusal
from crush_trio.client.endpoint import Endpoint, open_stream
from crush_trio.client.errors import BadAnswer, Unreachable
from crush_trio.client.shapes import JsonObject, parse_object
from crush_trio.limits import CLIENT_ANSWER_BYTES, CLIENT_RECEIVE_BYTES


async def json_lines(
    endpoint: Endpoint,
    token: str | None,
    target: str,
    body: Mapping[str, Any],
    *,
    silence_s: float,
) -> AsyncGenerator[JsonObject, None]:
    """POST ``body`` on a connection of its own; the objects of the answer as they come.

    Use with ``aclosing``: closing it closes the connection, and the server stops what it does.

    Args:
        silence_s: Seconds without a byte after which the server counts as gone.

    Raises:
        Unreachable: No connection; it hung up in the middle; it fell silent.
        ServerRefused: A status of 400 or more.
        BadAnswer: What answers does not speak our protocol.
    """
    stream = await open_stream(endpoint)
    http = h11.Connection(h11.CLIENT)
    try:
        await _send(stream, http, endpoint, token, target, orjson.dumps(body))
        rest, read = b"", 0
        while (piece := await _next(stream, http, endpoint, silence_s)) is not None:
            read += len(piece)
            if read > CLIENT_ANSWER_BYTES:
                raise BadAnswer(f"the server's answer exceeds {CLIENT_ANSWER_BYTES} bytes")
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield parse_object(line, "a line of the answer")
    finally:
        stream.socket.close()


async def _send(
    stream: trio.SocketStream,
    http: h11.Connection,
    endpoint: Endpoint,
    token: str | None,
    target: str,
    body: bytes,
) -> None:
    headers = [
        ("Host", endpoint.host_header),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    out = http.send(h11.Request(method="POST", target=target, headers=headers)) or b""
    out += http.send(h11.Data(data=body)) or b""
    out += http.send(h11.EndOfMessage()) or b""
    try:
        await stream.send_all(out)
    except trio.BrokenResourceError:
        raise Unreachable(f"the server at {endpoint.url} hung up") from None


async def _next(
    stream: trio.SocketStream, http: h11.Connection, endpoint: Endpoint, silence_s: float
) -> bytes | None:
    """More of the answer's body; ``None`` at its end."""
    refused, status = bytearray(), 0
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await _receive(stream, endpoint, silence_s))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                if status < 400:
                    return bytes(event.data)
                refused += event.data
            elif isinstance(event, h11.EndOfMessage):
                if status >= 400:
                    raise refusal(status, bytes(refused))
                return None
    except h11.RemoteProtocolError as exc:
        if http.trailing_data[1]:
            raise Unreachable(
                f"the server at {endpoint.url} hung up in the middle of its answer"
            ) from exc
        raise BadAnswer(f"what answers at {endpoint.url} does not speak HTTP: {exc}") from exc


async def _receive(stream: trio.SocketStream, endpoint: Endpoint, silence_s: float) -> bytes:
    with trio.move_on_after(silence_s):
        try:
            return bytes(await stream.receive_some(CLIENT_RECEIVE_BYTES))
        except trio.BrokenResourceError:
            return b""
    raise Unreachable(f"the server at {endpoint.url} was silent for {silence_s:g} s")
