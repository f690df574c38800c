"""The event stream of a workspace from a cursor, across broken connections (G8).

Every event after the cursor is handed out once and in order, however often the connection
breaks; where the server can no longer serve the cursor, one ``resync`` object carries the
snapshot to go on from.
"""

from __future__ import annotations

import contextlib
import random as random_module
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote, urlencode

import attrs
import trio

from crush_trio.client.endpoint import Endpoint
from crush_trio.client.errors import ServerRefused, Unreachable
from crush_trio.client.shapes import JsonObject, number, parse_objects, text
from crush_trio.client.websocket import Cut, Socket, open_socket
from crush_trio.limits import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    RECONNECT_TIMEOUT_S,
    SERVER_SILENT_S,
    WS_CLOSE_TIMEOUT_S,
)
from crush_trio.protocol.errors import CrushError

_BATCHES_AHEAD = 4  # then the reader waits, and with it the server's feed


@attrs.frozen(kw_only=True)
class Subscription:
    """What to follow and how patiently.

    ``after`` is a cursor, ``now`` or ``start``; ``epoch`` belongs to a cursor that came from an
    earlier stream. ``snapshot`` fetches the state to go on from after a ``resync``. ``revive``
    starts the server again; it is called at most once, when nothing listens any more.
    ``random`` returns a number from 0 to 1 and sets the jitter of the back-off.
    """

    endpoint: Endpoint
    workspace: str
    snapshot: Callable[[], Awaitable[JsonObject]]
    token: str | None = None
    session: str | None = None
    after: int | str = "now"
    epoch: str | None = None
    kinds: tuple[str, ...] = ()
    detail: str = "delta"
    client_id: str | None = None
    revive: Callable[[], Awaitable[None]] | None = None
    reconnect_timeout: float = RECONNECT_TIMEOUT_S
    random: Callable[[], float] = random_module.random


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after failure ``attempt`` (from 0): doubling, capped, half of it jitter."""
    full = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16))
    return full * (0.5 + random() / 2)


class Follow:
    """An open subscription; made by `follow`. One task may receive at a time."""

    def __init__(self, wanted: Subscription) -> None:
        self._wanted = wanted
        self._cursor: int | None = None
        self._epoch = wanted.epoch
        self._greeted = False
        self._ready = trio.Event()
        self._failure: CrushError | None = None
        self._pending: deque[JsonObject] = deque()
        self._in, self._out = trio.open_memory_channel[list[JsonObject]](_BATCHES_AHEAD)
        if isinstance(wanted.after, int):
            self._cursor = wanted.after
        elif wanted.after == "start":
            self._cursor = 0

    @property
    def cursor(self) -> int | None:
        """Everything up to this ``seq`` has been read from the server."""
        return self._cursor

    @property
    def epoch(self) -> str | None:
        """The numbering the cursor belongs to."""
        return self._epoch

    def __aiter__(self) -> Follow:
        return self

    async def __anext__(self) -> JsonObject:
        return await self.receive()

    async def receive(self) -> JsonObject:
        """The next object: an event, a transient frame, or hello, replayed, resync, bye.

        A ``resync`` carries the fetched ``snapshot``; pings are answered and not handed out.

        Raises:
            Unreachable: The server stayed away for longer than ``reconnect_timeout``.
            ServerRefused: It will not serve this stream (any more).
            BadAnswer: It does not speak the protocol.
        """
        while not self._pending:
            self._pending.extend(await self.receive_batch())
        return self._pending.popleft()

    async def receive_batch(self) -> list[JsonObject]:
        """Everything that came in one frame; raises as `receive` does."""
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            if self._failure is None:
                raise Unreachable("the event stream ended") from None
            raise self._failure from None

    async def _established(self) -> None:
        """Wait for the first hello; raises as `receive` does if there will be none."""
        await self._ready.wait()
        if not self._greeted and self._failure is not None:
            raise self._failure

    # --- the task that keeps the connection ---------------------------------------------

    async def _keep(self) -> None:
        """Connect, read, and connect again until given up; the reason goes to the receiver."""
        with self._in:
            try:
                await self._connect_for_ever()
            except CrushError as failure:
                self._failure = failure
            finally:
                self._ready.set()

    async def _connect_for_ever(self) -> None:
        revive, attempt = self._wanted.revive, 0
        broken = trio.current_time()
        while True:
            self._greeted = False
            cause: Exception
            try:
                async with open_socket(
                    self._wanted.endpoint, self._resource(), self._wanted.token
                ) as socket:
                    await self._read(socket)
            except (Cut, Unreachable) as exc:
                cause = exc
            except ServerRefused as exc:
                if exc.status < 500 and exc.status != 429:
                    raise
                cause = exc
            if self._greeted:
                broken, attempt = trio.current_time(), 0
            if revive is not None and isinstance(cause, Unreachable) and cause.refused:
                await revive()
                revive, broken, attempt = None, trio.current_time(), 0
                continue
            pause = backoff(attempt, self._wanted.random)
            attempt += 1
            if trio.current_time() + pause - broken > self._wanted.reconnect_timeout:
                raise Unreachable(f"the event stream was lost: {cause}") from cause
            await trio.sleep(pause)

    def _resource(self) -> str:
        wanted = self._wanted
        query: dict[str, str] = {
            "after": str(wanted.after if self._cursor is None else self._cursor)
        }
        if self._epoch is not None and self._cursor is not None:
            query["epoch"] = self._epoch
        if wanted.session is not None:
            query["session_id"] = wanted.session
        if wanted.kinds:
            query["kinds"] = ",".join(wanted.kinds)
        if wanted.detail != "delta":
            query["detail"] = wanted.detail
        if wanted.client_id is not None:
            query["client_id"] = wanted.client_id
        return f"/v1/workspaces/{quote(wanted.workspace, safe='')}/ws?{urlencode(query)}"

    async def _read(self, socket: Socket) -> None:
        while True:
            with trio.move_on_after(SERVER_SILENT_S) as silence:
                raw = await socket.receive()
            if silence.cancelled_caught:
                raise Cut(1006, f"the server was silent for {SERVER_SILENT_S:g} s")
            batch = []
            for item in parse_objects(raw, "a frame of the event stream"):
                kept = await self._take(item, socket)
                if kept is not None:
                    batch.append(kept)
            if batch:
                await self._in.send(batch)

    async def _take(self, item: JsonObject, socket: Socket) -> JsonObject | None:
        """Keep the cursor up to date; the object to hand out, or ``None``."""
        kind = item.get("type")
        if kind == "hello":
            return self._greet(item)
        if kind == "ping":
            self._advance(item)
            await _pong(socket)
            return None
        if kind == "pong":
            return None
        if kind == "replayed":
            self._advance(item)
            return item
        if kind == "resync":
            snapshot = await self._wanted.snapshot()
            self._cursor, self._epoch = number(snapshot, "seq"), text(snapshot, "epoch")
            return {**item, "snapshot": snapshot}
        seq = item.get("seq")
        if type(seq) is int:
            if self._cursor is not None and seq <= self._cursor:
                return None
            self._cursor = seq
        return item

    def _greet(self, hello: JsonObject) -> JsonObject:
        if self._cursor is None:
            self._cursor = number(hello, "seq")
        if self._epoch is None:
            self._epoch = text(hello, "epoch")
        self._greeted = True
        self._ready.set()
        return hello

    def _advance(self, item: JsonObject) -> None:
        seq = item.get("seq")
        if type(seq) is int and (self._cursor is None or seq > self._cursor):
            self._cursor = seq


async def _pong(socket: Socket) -> None:
    with trio.move_on_after(WS_CLOSE_TIMEOUT_S) as scope:
        await socket.send('{"type":"pong"}')
    if scope.cancelled_caught:
        raise Cut(1006, "the server stopped reading")


@contextlib.asynccontextmanager
async def follow(wanted: Subscription) -> AsyncIterator[Follow]:
    """The event stream for as long as the block lasts; entered once the server has said hello.

    Raises:
        Unreachable: No server within ``reconnect_timeout``.
        ServerRefused: It will not serve this stream.
    """
    stream = Follow(wanted)
    # An exception of the block must not leave inside a group, so the nursery never sees it.
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream._keep)
        try:
            await stream._established()
            yield stream
        except Exception as exc:
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
