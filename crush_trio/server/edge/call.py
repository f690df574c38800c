"""What the edge knows of the request being handled, for its handlers and for the access log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
import trio
from hypercorn.typing import HTTPScope, WebsocketScope
from quart import has_websocket_context, request, websocket

from crush_trio.server.edge.access_log import Access
from crush_trio.server.edge.gate import SUBPROTOCOL, RequestView, Verdict
from crush_trio.server.edge.peer import Peer

Scope = HTTPScope | WebsocketScope


@attrs.define
class Call:
    """One request, from its head to the end of its answer.

    Attributes:
        view: Its head.
        verdict: What the gate said of it.
        started: On Trio's clock.
        body: All of it; empty for a websocket.
        run_id: Of the run it is about, once a handler has said so.
        route: The template it matched.
        status: Of the answer, as soon as one has begun; 101 for an accepted websocket.
        accepted: Whether a websocket was accepted.
        closed: Whether we have sent a close frame.
        at_end: What is left when the request is over, however it ends; nothing in it may wait.
    """

    view: RequestView
    verdict: Verdict
    started: float
    body: bytes = b""
    run_id: str | None = None
    route: str | None = None
    status: int | None = None
    accepted: bool = False
    closed: bool = False
    at_end: ExitStack = attrs.field(factory=ExitStack)

    @property
    def peer(self) -> Peer:
        """Who sent it."""
        return self.view.peer

    @property
    def principal(self) -> str:
        """Who acts; empty on the open paths of TCP."""
        return self.verdict.principal or ""

    def access(self, now: float, gone: int) -> Access:
        """Its line in the access log; ``gone`` is the status if no answer was begun."""
        peer = self.peer
        return Access(
            peer=f"unix pid={peer.pid} uid={peer.uid}" if peer.is_unix else peer.address,
            principal=self.verdict.principal,
            method=self.view.method,
            route=self.route,
            status=self.status or gone,
            run_id=self.run_id,
            duration_ms=round((now - self.started) * 1000, 3),
        )


def begin_call(scope: Scope, verdict: Verdict, view: RequestView) -> Call:
    """Attaches a new `Call` to the scope."""
    call = Call(view, verdict, trio.current_time())
    cast("dict[str, Any]", scope["state"])["call"] = call
    return call


def call_of(scope: Scope) -> Call:
    """The `Call` attached to a scope."""
    return cast("Call", scope["state"]["call"])


def current_call() -> Call:
    """The `Call` of the request or websocket being handled by this task."""
    return call_of(websocket.scope if has_websocket_context() else request.scope)


async def accept_websocket() -> None:
    """Accepts the upgrade; call it when nothing can be refused any more.

    `SUBPROTOCOL` is selected if it was offered. Until this is called, a `Refused` is answered
    with JSON instead of an upgrade.
    """
    offered = websocket.requested_subprotocols
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)


def websocket_sender() -> Callable[[bytes], Awaitable[None]]:
    """Sends one frame of UTF-8 text on this task's accepted websocket; see `Connection.send_text`.

    To be asked for once and used until the websocket is closed.
    """
    return cast("Callable[[bytes], Awaitable[None]]", websocket.scope["state"]["send_text"])


def view_of(scope: Scope) -> RequestView:
    """The head of the request of a scope that our `Connection` made."""
    target = scope["raw_path"].decode("latin1")
    path = scope["path"]
    return RequestView(
        method="GET" if scope["type"] == "websocket" else scope["method"],
        target=target,
        path=path if path.startswith("/") else urlsplit(path).path,
        headers=tuple(
            (name.decode("latin1").lower(), value.decode("latin1"))
            for name, value in scope["headers"]
        ),
        peer=scope["state"]["peer"],
        local=cast("tuple[str, int] | None", scope["server"]),
        is_websocket=scope["type"] == "websocket",
    )
