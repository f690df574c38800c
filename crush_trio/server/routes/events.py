"""Crush's event stream: server-sent events in its kinds and its envelope (CW 3.1, contract 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import TracebackType

import attrs
import orjson
import trio
from quart import Blueprint, request
from quart.typing import ResponseReturnValue
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse

from crush_trio import limits
from crush_trio.host.workspace import Workspace
from crush_trio.journal import Feed, FeedEntry, JournalReader
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.events import CRUSH_KINDS
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.services import Services, client_id_of
from crush_trio.server.streams.request import parse_stream_request
from crush_trio.store.contract import Selection

logger = logging.getLogger(__name__)

_PARAMETERS = frozenset({"client_id", "after", "epoch"})
_SELECTION = Selection(kinds=frozenset(CRUSH_KINDS))
_LAST_ID = "Last-Event-ID"
_CRUSH_PARTS = frozenset(
    {
        "text",
        "reasoning",
        "image_url",
        "binary",
        "tool_call",
        "tool_result",
        "finish",
        "shell_command",
    }
)  # CW 3.5


@attrs.frozen
class EventsRequest:
    """What a subscriber asked for.

    ``cursor`` is ``None`` for "from now on". Who names one, or ``after=now``, is ``resumable``:
    it gets ids to come back with, signs of life, and first of all the present state of what is
    open. Anybody else gets what Crush's server sends, and nothing more.
    """

    cursor: int | None
    epoch: str | None
    resumable: bool
    client_id: str | None


def parse_events_request(arguments: Mapping[str, str], last_id: str | None) -> EventsRequest:
    """The query and the header ``Last-Event-ID``, which is newer than ``after`` if both are there.

    Raises:
        Refused: ``bad_request`` or ``bad_cursor``.
    """
    client_id = client_id_of(arguments.get("client_id"))
    if unknown := sorted(set(arguments) - _PARAMETERS):
        raise Refused("bad_request", f"Unknown stream parameter {', '.join(unknown)}.")
    asked = {name: arguments[name] for name in ("after", "epoch") if name in arguments}
    if last_id:
        asked["after"] = last_id
    wanted = parse_stream_request(asked)
    return EventsRequest(wanted.cursor, wanted.epoch, "after" in asked, client_id)


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the event stream of one workspace."""
    routes = Blueprint("events", __name__)
    host = services.host

    @routes.get("/v1/workspaces/<workspace_id>/events")
    async def events(workspace_id: str) -> ResponseReturnValue:
        wanted = parse_events_request(request.args, request.headers.get(_LAST_ID))
        workspace = await host.open(workspace_id)
        if request.method == "HEAD":
            return _streaming(b"")
        # From here on nothing is missed (R1); the head is sent after it, and at once. It lasts
        # until the last chunk is sent: a server that stops waits for it.
        at_end = current_call().at_end
        at_end.enter_context(host.subscribing(workspace, wanted.client_id))
        reader = at_end.enter_context(_reader(services, workspace, wanted))
        body = EventBody(workspace.feed, reader, wanted.resumable, services.stopping)
        await body.begin()
        return _streaming(body)

    app.register_blueprint(routes)


def _reader(services: Services, workspace: Workspace, wanted: EventsRequest) -> JournalReader:
    return JournalReader(
        services.store,
        workspace.feed,
        cursor=wanted.cursor,
        selection=_SELECTION,
        detail="snapshot",
        epoch=wanted.epoch,
    )


def _streaming(body: ResponseBody | bytes) -> TrioResponse:
    response = TrioResponse(body, content_type="text/event-stream")
    response.headers.pop("Content-Length", None)
    response.headers["X-Accel-Buffering"] = "no"  # or a proxy would collect events
    response.timeout = None
    return response


class EventBody(ResponseBody):
    """The body of an event stream: each piece is whole events, at most one joined frame.

    However the stream ends, iterating ends too, so that the last chunk is sent. The one exception
    is a peer that takes nothing: its connection is cut after `limits.SEND_BLOCKED_S`.

    Args:
        stopping: Set when the server stops; what the closed feed still has is bounded in time.
    """

    def __init__(
        self, feed: Feed, reader: JournalReader, resumable: bool, stopping: trio.Event
    ) -> None:
        self._feed = feed
        self._reader = reader
        self._resumable = resumable
        self._stopping = stopping
        self._first = b""
        self._last_id = 0
        self._next_sign = trio.current_time() + limits.PING_INTERVAL_S if resumable else math.inf
        self._ends_at = math.inf
        self._ended = False

    async def begin(self) -> None:
        """Take what comes before the head; to be called once, before anything else.

        Raises:
            Refused: ``resync_required``: the events after the cursor are not to be had.
        """
        while not self._ended:
            batch = await self._reader.next_batch(0)
            if batch is None:
                self._ended = True
                return
            for entry in batch:
                if entry.kind == "resync":
                    raise _resync_required(entry)
            if self._resumable:
                self._first = self._text(batch)
                return
            # What is open is shown when it changes from here on, not as it stands (R1).
            self._first += self._text([entry for entry in batch if entry.seq is not None])
            if any(entry.kind == "replayed" for entry in batch):
                return

    async def __aenter__(self) -> EventBody:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Nothing to leave: the request's end lets go of the reader."""

    def __aiter__(self) -> EventBody:
        return self

    async def __anext__(self) -> bytes:
        piece, self._first = self._first, b""
        try:
            while not piece and not self._ended:
                piece = await self._next()
        except Exception:  # the head has been sent: all that can be done is to end in order
            logger.exception("an event stream ended early")
            self._ended = True
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> bytes:
        """What is ready, waited for; maybe empty. Notes the end."""
        now = trio.current_time()
        if self._stopping.is_set() and self._feed.closed and self._ends_at == math.inf:
            # Who is far behind comes back with its id: G11 leaves no time for a long replay.
            self._ends_at = now + limits.SHUTDOWN_SUBSCRIBERS_S / 2
        batch = await self._reader.next_batch(max(0.0, self._next_sign - now))
        if batch is None or trio.current_time() >= self._ends_at:
            self._ended = True
            return b""
        if any(entry.kind == "resync" for entry in batch):
            # Too far behind: its next attempt is told, or it loads everything again (R17).
            self._ended = True
            return b""
        piece = self._text(batch)
        if trio.current_time() >= self._next_sign:
            self._next_sign = trio.current_time() + limits.PING_INTERVAL_S
            piece += self._sign_of_life()
        return piece

    def _sign_of_life(self) -> bytes:
        """A comment; with it the id that stands for everything selected so far."""
        if self._reader.progress <= self._last_id:
            return b":\n\n"
        self._last_id = self._reader.progress
        return b":\nid: %d\n\n" % self._last_id

    def _text(self, batch: Sequence[FeedEntry]) -> bytes:
        pieces = []
        for entry in batch:
            if entry.kind not in CRUSH_KINDS:  # about the stream itself
                continue
            if self._resumable and entry.seq is not None:
                self._last_id = entry.seq
                pieces.append(b"id: %d\n" % entry.seq)
            pieces.append(b"data: %b\n\n" % crush_envelope(entry))
        return b"".join(pieces)


def crush_envelope(entry: FeedEntry) -> bytes:
    """An event as Crush writes it: ``{"type", "payload": {"type", "payload"}}`` and no more.

    Parts of a message that Crush does not know are left out: one of them would fail its decoder
    for the whole message (CW 3.5). Strings too long for a frame are cut, as everywhere.
    """
    if entry.kind != "message" and b'"truncated":' not in entry.data:
        # What comes before is numbers and an id.
        return b"{" + entry.data[entry.data.index(b'"type":"') :]
    value = orjson.loads(entry.data)
    if entry.kind == "message":
        message = value["payload"]["payload"]
        parts = message.get("parts", [])  # a message cut to its ids has none
        message["parts"] = [part for part in parts if part["type"] in _CRUSH_PARTS]
    return orjson.dumps({"type": value["type"], "payload": value["payload"]})


def _resync_required(entry: FeedEntry) -> Refused:
    told = orjson.loads(entry.data)
    return Refused(
        "resync_required",
        f"The events after this cursor are not to be had ({told['reason']}):"
        f" fetch the snapshot and subscribe with after={told['seq']}.",
    )
