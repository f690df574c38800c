"""Our corrections to Quart-Trio 0.12 and Hypercorn 0.18, and the loop that serves with them.

(A) `FixedHTTP`: after the last body chunk Hypercorn reports a disconnect, and Quart-Trio then
cancels the task in which Hypercorn is still closing or recycling the connection: ``Connection:
close`` is ignored and the keep-alive timer never restarts.

(B) `Connection`: Hypercorn sends in a shield without a bound, so that one client that stops
reading blocks its handler and the shutdown for ever; it closes a socket with unread bytes in it,
which resets the connection under the answer; an error in one connection ends the server; it stops
reading behind a request that came early, and so does not see its peer go.

``tests/server/test_hypercorn_fixes.py`` has a test per defect, each against a real socket.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from contextlib import suppress
from functools import partial
from types import TracebackType

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
)
from hypercorn.utils import parse_socket_addr
from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIHTTPConnection

from crush_trio.limits import (
    FILES_RESERVED,
    FILES_RESERVED_SHARE,
    HEADERS_TIMEOUT_S,
    KEEP_ALIVE_S,
    LINGER_BYTES,
    LINGER_S,
    READ_AHEAD_BYTES,
    SEND_BLOCKED_S,
    TURN_AWAY_S,
)
from crush_trio.server.edge.http1 import Http1, make_config, text_frame
from crush_trio.server.edge.peer import peer_of, watch_for_death

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_log = logging.getLogger("crush_trio.http")
_TOO_MANY = b'{"message":"Too many connections; try again.","code":"overloaded","retryable":true}'
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_TOO_MANY), _TOO_MANY)
)
"""The answer to who comes when nearly all descriptors are taken."""


class FixedHTTP(TrioASGIHTTPConnection):
    """Correction A: a request whose answer is complete is not cancelled by its own end."""

    _answered = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles one request; a disconnect before the end of the answer cancels the handler."""

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._answered = True
            await send(message)

        await super().__call__(receive, send_and_note)

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Takes the body in until the client goes or the connection is free again."""
        await ASGIHTTPConnection.handle_messages(self, request, receive)
        if not self._answered:
            nursery.cancel_scope.cancel()


class ConnectionTasks(TaskGroup):
    """Hypercorn's task group, able to end its own block.

    Hypercorn's forgets what its nursery says of the block's exception. If the group is cancelled
    while the block waits, as by a send to a peer that has gone, the cancellation leaves the group
    and takes the listeners with it: one torn request would end the server.
    """

    async def __aexit__(  # type: ignore[override]
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        if self._nursery_manager is None:
            raise RuntimeError("the group was not entered")
        try:
            # Leaving a nursery is waiting for its tasks; the server bounds it by cancelling.
            return await self._nursery_manager.__aexit__(exc_type, exc_value, tb)  # noqa: ASYNC102
        finally:
            self._nursery_manager = self._nursery = None


class Paused:
    """What a connection waits for when a peer has begun its next request before our answer ended.

    Hypercorn stops reading then, and a stream's handler, which only sends, would never learn that
    the peer has gone: an endless answer to nobody. So reading goes on into the parser's buffer,
    up to `READ_AHEAD_BYTES`. Behaves as Hypercorn's event otherwise.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._set = trio.Event()

    async def set(self) -> None:
        """The answer has ended: go on with the next request."""
        self._set.set()

    async def clear(self) -> None:
        """The answer goes on."""
        self._set = trio.Event()

    def is_set(self) -> bool:
        """Whether the answer has ended."""
        return self._set.is_set()

    async def wait(self) -> None:
        """Wait for the end of the answer; a peer that goes meanwhile ends the connection."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead)
            await self._set.wait()
            nursery.cancel_scope.cancel()

    async def _read_ahead(self) -> None:
        left = READ_AHEAD_BYTES
        while left > 0:
            try:
                data = await self._connection.stream.receive_some(min(MAX_RECV, left))
            except _GONE:
                data = b""
            if not data:
                self._connection._hang_up()
                return
            left -= len(data)
            self._connection.protocol.connection.receive_data(bytes(data))


class Connection(TCPServer):
    """Correction B: one accepted connection, from its first byte until its socket is closed.

    Sends are atomic for the protocol above (a cancelled handler cannot cut a frame in half) and
    bounded: one that is not through within `SEND_BLOCKED_S` closes the socket. Cancelling the
    connection closes the socket too, so nothing outlives the cancellation. When the socket is
    closed, for whatever reason, everything the connection runs is cancelled.
    """

    protocol: Http1  # type: ignore[assignment]
    stream: trio.SocketStream  # type: ignore[assignment]

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, stream: trio.SocketStream
    ) -> None:
        super().__init__(app, config, context, LifespanState({}), stream)  # type: ignore[arg-type]
        self._reading = trio.CancelScope()
        self._linger = False
        self._patience: trio.CancelScope | None = None
        self._patience_s = HEADERS_TIMEOUT_S

    async def run(self) -> None:
        """Serves the connection; returns when its socket is closed and its tasks have ended."""
        sock = self.stream.socket
        try:
            peer = peer_of(sock)
            watch_for_death(sock)
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
        except OSError:  # gone before it was looked at
            self.stream.socket.close()
            return
        try:
            async with ConnectionTasks() as group:
                self._task_group = group
                group.spawn(self._close_when_cancelled)
                self.protocol = Http1(
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState({**self.state, "peer": peer, "send_text": self.send_text}),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                self.protocol.can_read = Paused(self)
                await self.idle_task.restart(group, self._idle_timeout)
                with self._reading:
                    await self._read_data()
                if self._linger:
                    await self._drain()
                self._hang_up()
        finally:
            self.stream.socket.close()

    async def protocol_send(self, event: Event) -> None:
        """Sends bytes, or closes, or notes whether a request is being handled."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            # The reading task closes the socket: closing here would reset an answer that the
            # peer has not read yet while it still sends.
            self._linger = self.protocol.owes_a_reading
            self._reading.cancel()
        elif isinstance(event, Updated) and event.idle:
            self._patience_s = KEEP_ALIVE_S
            await self.idle_task.restart(self._task_group, self._idle_timeout)
        elif isinstance(event, Updated):
            self._patience = None
            await self.idle_task.stop()

    async def send_text(self, payload: bytes) -> None:
        """Sends one text frame of an accepted websocket, whole or not at all.

        Past the layers above, which cost three times as much as the rest of a fan-out, and without
        waiting if the socket takes it at once: who sends in a loop has a checkpoint elsewhere.
        """
        frame = text_frame(payload)
        if not self.send_lock.locked():
            # No checkpoint until `_send` has the lock: nothing gets between the parts of a frame.
            frame = frame[self._send_at_once(frame) :]
        if frame:
            await self._send(frame)

    def _send_at_once(self, data: bytes) -> int:
        """Gives the socket what it takes without waiting; how many bytes that were."""
        try:
            return os.write(self.stream.socket.fileno(), data)  # trio's sockets never block
        except BlockingIOError:
            return 0
        except OSError:
            self._hang_up()
            return len(data)

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(SEND_BLOCKED_S, shield=True) as scope:
            async with self.send_lock:
                try:
                    await self.stream.send_all(data)
                except _GONE:
                    self._hang_up()
        if scope.cancelled_caught:
            self._hang_up()
        # Everything above is shielded, so without this a handler that only sends would never
        # learn that it has been cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _read_data(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some(MAX_RECV)
            except _GONE:
                return
            await self.protocol.handle(RawData(bytes(data)))
            if not data:
                return
            if self._patience is not None:  # a request has begun but not all of its headers came
                deadline = trio.current_time() + HEADERS_TIMEOUT_S
                self._patience.deadline = min(self._patience.deadline, deadline)
                self._patience = None

    async def _drain(self) -> None:
        """Takes in what the peer still sends, so that it can read our answer before the end."""
        left = LINGER_BYTES
        with trio.move_on_after(LINGER_S), suppress(*_GONE):
            async with self.send_lock:
                await self.stream.send_eof()
            while left > 0 and (data := await self.stream.receive_some(MAX_RECV)):
                left -= len(data)

    async def _idle_timeout(self) -> None:
        deadline = trio.current_time() + self._patience_s
        with trio.CancelScope(deadline=deadline) as self._patience:
            await self.context.terminated.wait()
        self._reading.cancel()

    async def _close_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stream.socket.close()  # wakes a shielded send

    def _hang_up(self) -> None:
        self.stream.socket.close()
        nursery = self._task_group._nursery
        if nursery is not None:
            nursery.cancel_scope.cancel()


def _files() -> tuple[int, int]:
    """How many descriptors there may be, and how many of them no connection gets."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return sys.maxsize, 0
    return allowed, min(FILES_RESERVED, allowed // FILES_RESERVED_SHARE)


async def _turn_away(stream: trio.SocketStream, *, at_once: bool) -> None:
    """Say that there are too many connections, and end this one.

    So the last descriptors are left to what runs already: a store that cannot open a file has
    failed, and a tool that gets no pipe has, too. Unless ``at_once`` the request is waited for, a
    moment: who is still sending may not look for an answer.
    """
    descriptor = stream.socket.fileno()
    if not at_once:
        with trio.move_on_after(TURN_AWAY_S):
            await trio.lowlevel.wait_readable(descriptor)
    with suppress(OSError):  # closing over unread bytes would take the answer back
        os.read(descriptor, MAX_RECV)
    with suppress(OSError):  # gone, or it takes nothing: then it is told nothing
        os.write(descriptor, TOO_MANY)
    stream.socket.close()


async def serve_http(
    app: ASGIFramework,
    listeners: list[trio.SocketListener],
    *,
    stop: trio.Event,
    graceful_timeout_s: float,
    config: Config | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves ``app`` on ``listeners`` until ``stop`` is set, then ends in order.

    The order: the listeners are closed (their owner unlinks the socket), idle connections are
    closed, busy ones get ``graceful_timeout_s`` seconds, what is left is cancelled and its sockets
    are closed. There is no lifespan: what the app needs is entered before and left after.

    Args:
        app: An ASGI application that knows no lifespan scope.
        listeners: Owned from now on; closed when this returns, however it returns.
        stop: Begins the end.
        graceful_timeout_s: Longest wait between ``stop`` and the return, in seconds, apart from
            what handlers do under shields of their own.
        config: Hypercorn's settings, by default those of `make_config`.
        task_status: Told when connections are accepted.
    """
    config = config or make_config()
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)

    async def serve_connection(stream: trio.SocketStream) -> None:
        files, reserved = _files()
        spare = files - stream.socket.fileno()  # the kernel gives out the lowest free one
        if spare <= reserved:
            await _turn_away(stream, at_once=spare <= reserved // 2)
            return
        # One connection's error must not end the others: this is the edge's last resort, a
        # request's own errors became answers long before.
        try:
            await Connection(wrapped, config, context, stream).run()
        except* Exception:
            _log.exception("a connection ended with an error")

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            await accepting.start(
                partial(
                    trio.serve_listeners,
                    serve_connection,
                    listeners,
                    handler_nursery=connections,
                )
            )
            task_status.started()
            await stop.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + graceful_timeout_s
