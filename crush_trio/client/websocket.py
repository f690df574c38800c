"""One websocket connection to a server's event stream: checked, bounded, and always let go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio
import trio_websocket

from crush_trio.client.api import refusal
from crush_trio.client.endpoint import Endpoint, open_stream
from crush_trio.client.errors import ServerRefused, Unreachable
from crush_trio.limits import (
    CLIENT_FRAME_BYTES,
    CLIENT_FRAMES_AHEAD,
    CLIENT_RECEIVE_BYTES,
    WS_CLOSE_TIMEOUT_S,
    WS_CONNECT_TIMEOUT_S,
)

FINAL_CLOSE = {
    4400: "bad_request",
    4401: "unauthorized",
    4403: "forbidden",
    4404: "workspace_not_found",
}
"""Close codes after which connecting again cannot help (contract 4)."""


class Cut(Exception):
    """The connection ended; ``code`` is the close code, 1006 without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code


class Socket:
    """The open connection, for as long as the block of `open_socket` lasts."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            Cut: The connection ended.
            ServerRefused: It ended with a code that is final.
        """
        try:
            return await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def send(self, message: str) -> None:
        """Send a text message.

        Raises:
            Cut: The connection ended.
            ServerRefused: It ended with a code that is final.
        """
        try:
            await self._connection.send_message(message)
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed


def _closed(closed: trio_websocket.ConnectionClosed) -> Cut | ServerRefused:
    why = closed.reason
    code, text = (1006, "") if why is None else (why.code, why.reason or "")
    if code in FINAL_CLOSE:
        return ServerRefused(0, FINAL_CLOSE[code], text or f"the server closed with {code}")
    return Cut(code, text)


@contextlib.asynccontextmanager
async def open_socket(
    endpoint: Endpoint, resource: str, token: str | None
) -> AsyncIterator[Socket]:
    """A websocket to ``resource``; offers no compression, and drops the stream at the end.

    Raises:
        Unreachable: Nothing listens, or no handshake within its time limit.
        ServerRefused: The server answered the upgrade with an error.
        UnsafeSocket: See `open_stream`.
    """
    stream = await open_stream(endpoint)
    # An exception of the block must not leave inside a group, so the nursery never sees it.
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                connection = await _upgrade(nursery, stream, endpoint, resource, token)
                yield Socket(connection)
                with trio.move_on_after(WS_CLOSE_TIMEOUT_S):
                    await connection.aclose()
            except Exception as exc:
                failure = exc
            nursery.cancel_scope.cancel()
    except* trio_websocket.ConnectionRejected as group:
        failure = _rejected(group)
    finally:
        stream.socket.close()
    if failure is not None:
        raise failure


async def _upgrade(
    nursery: trio.Nursery,
    stream: trio.SocketStream,
    endpoint: Endpoint,
    resource: str,
    token: str | None,
) -> trio_websocket.WebSocketConnection:
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    with trio.move_on_after(WS_CONNECT_TIMEOUT_S):
        return await trio_websocket.wrap_client_stream(
            nursery,
            stream,
            endpoint.host_header,
            resource,
            extra_headers=headers,
            message_queue_size=CLIENT_FRAMES_AHEAD,
            max_message_size=CLIENT_FRAME_BYTES,
            receive_buffer_size=CLIENT_RECEIVE_BYTES,
        )
    raise Unreachable(f"the server at {endpoint.url} did not answer the upgrade in time")


def _rejected(group: BaseExceptionGroup[BaseException]) -> Exception:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    if isinstance(leaf, trio_websocket.ConnectionRejected):
        return refusal(leaf.status_code, leaf.body or b"")
    return Unreachable(str(leaf))
