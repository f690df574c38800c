"""Quart-Trio's two connection classes with the gate in front and the access log behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIWebsocketConnection
from werkzeug.datastructures import Headers

from crush_trio.server.edge.access_log import CLIENT_GONE
from crush_trio.server.edge.answers import answer_error
from crush_trio.server.edge.call import Call, Scope, begin_call, call_of, view_of
from crush_trio.server.edge.hypercorn_fixes import FixedHTTP

if TYPE_CHECKING:
    from crush_trio.server.edge.app_base import EdgeApp


async def _admit(app: EdgeApp, scope: Scope) -> Call:
    """Asks the gate; a failed authentication waits here, before any of the body is taken in."""
    view = view_of(scope)
    verdict = app.gate.judge(view)
    call = begin_call(scope, verdict, view)
    if verdict.refused is not None and verdict.refused.code == "unauthorized":
        await trio.sleep(app.delays.note(view.peer.address, call.started))
    if not scope["path"]:
        scope["path"] = "/"  # Quart needs one to build even the refusal
    return call


def _log(app: EdgeApp, call: Call) -> None:
    if app.access_log is not None:
        app.access_log.write(call.access(trio.current_time(), CLIENT_GONE))


class GatedHTTP(FixedHTTP):
    """One HTTP request."""

    app: EdgeApp

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Judges the request, lets the app answer, and writes the access log."""

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                call_of(self.scope).status = message["status"]
            await send(message)

        call = await _admit(self.app, self.scope)
        try:
            await super().__call__(receive, send_and_note)
        except Exception as error:  # outside of what Quart catches: no request could be made of it
            if call.status is not None:
                raise  # the answer has begun, so all that is left is to cut it short
            await self._send_response(send_and_note, answer_error(error))
        finally:
            call.at_end.close()
            _log(self.app, call)

    def _create_request_from_scope(self, send: ASGISendCallable) -> Request:
        request = super()._create_request_from_scope(send)
        call = call_of(self.scope)
        limit = self.app.body_limit(call.view.method, call.view.path)
        # What comes beyond the limit is dropped as it comes.
        request.body = request.body_class(request.content_length, limit)
        return request


class GatedWebsocket(TrioASGIWebsocketConnection):
    """One websocket."""

    app: EdgeApp

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Judges the upgrade, lets the app serve it, and writes the access log at its end."""

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "websocket.http.response.start":
                call_of(self.scope).status = message["status"]
            await send(message)

        call = await _admit(self.app, self.scope)
        try:
            await super().__call__(receive, send_and_note)
        finally:
            _log(self.app, call)

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, receive: ASGIReceiveCallable
    ) -> None:
        """Hands messages on, an empty one as an empty one (Quart-Trio makes it ``None``)."""
        while True:
            event: Any = await receive()
            if event["type"] == "websocket.receive":
                data = event.get("bytes")
                await self.send_channel.send(event["text"] if data is None else data)
            elif event["type"] == "websocket.disconnect":
                break
        nursery.cancel_scope.cancel()

    async def send_data(self, send: ASGISendCallable, data: str | bytes) -> None:
        """Sends one message; no signal is emitted for each, which a fan-out would pay for."""
        text = isinstance(data, str)
        message = {
            "type": "websocket.send",
            "text": data if text else None,
            "bytes": None if text else data,
        }
        await send(cast("ASGISendEvent", message))

    async def accept_connection(
        self, send: ASGISendCallable, headers: Headers, subprotocol: str | None
    ) -> None:
        """Notes that from here on a refusal is a close code."""
        call = call_of(self.scope)
        call.accepted, call.status = True, 101
        await super().accept_connection(send, headers, subprotocol)

    async def close_connection(self, send: ASGISendCallable, code: int, reason: str) -> None:
        """Notes that the close frame is ours."""
        call_of(self.scope).closed = True
        await super().close_connection(send, code, reason)
