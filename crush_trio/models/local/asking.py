"""One small HTTP exchange with a server on loopback: no proxy, no redirect, a bounded answer.

The network layer could do this, too; it costs 60 ms to load, which is a fifth of the time a local
server has, and those who have none should not pay for looking.
"""

from __future__ import annotations

import contextlib
from typing import Any

import h11
import orjson
import trio

from crush_trio import limits
from crush_trio.models.local.owners import Place


async def ask(place: Place, path: str, body: Any = None) -> Any:
    """The JSON that ``path`` answers, or ``None`` if it does not answer 200 with JSON.

    Takes as long as the server does: the caller sets the limit.

    Args:
        place: The server.
        path: Its path; GET, or POST if there is a body.
        body: Sent as JSON.
    """
    with contextlib.suppress(
        OSError,  # nobody is there, or hangs up
        trio.BrokenResourceError,
        h11.RemoteProtocolError,  # it speaks something else than HTTP
        orjson.JSONDecodeError,
    ):
        stream = await trio.open_tcp_stream(place.host, place.port)
        async with stream:
            answer = await _exchange(stream, place, path, body)
        return None if answer is None else orjson.loads(answer)
    return None


async def _exchange(stream: trio.abc.Stream, place: Place, path: str, body: Any) -> bytes | None:
    connection = h11.Connection(h11.CLIENT)
    payload = b"" if body is None else orjson.dumps(body)
    headers = [
        ("host", place.address),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
    ]
    if body is not None:
        headers += [("content-type", "application/json"), ("content-length", str(len(payload)))]
    request = h11.Request(method="GET" if body is None else "POST", target=path, headers=headers)
    events: list[h11.Event] = [request, h11.EndOfMessage()]
    if payload:
        events.insert(1, h11.Data(data=payload))
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
    answer = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(limits.CLIENT_RECEIVE_BYTES)))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            return None
        elif isinstance(event, h11.Data):
            answer += event.data
            if len(answer) > limits.LOCAL_ANSWER_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return bytes(answer)
        elif isinstance(event, h11.ConnectionClosed):
            return None
