"""The bare web application: gated, bounded, answering errors as JSON; routes are added to it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Final

import trio
from quart import Quart, request, websocket
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.wrappers import Websocket
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from crush_trio.limits import BODY_AGENT_BYTES, BODY_BYTES, BODY_TIMEOUT_S
from crush_trio.protocol.errors import CrushError
from crush_trio.server.edge.access_log import AccessLog
from crush_trio.server.edge.answers import answer_error
from crush_trio.server.edge.asgi import GatedHTTP, GatedWebsocket
from crush_trio.server.edge.call import call_of, current_call
from crush_trio.server.edge.gate import Gate
from crush_trio.server.edge.tokens import FailureDelays

LARGE_BODIES: Final = re.compile(r"/v1/workspaces/[^/]+/(agent|permissions/grant)\Z")
"""Paths whose bodies may have `BODY_AGENT_BYTES` (contract 3)."""

_log = logging.getLogger("crush_trio.http")


class EdgeApp(QuartTrio):
    """A Quart-Trio app behind our gate.

    It has no lifespan: nothing may use ``app.nursery``, ``add_background_task`` or
    ``before_serving``, whose errors Hypercorn and Quart-Trio swallow.

    Attributes:
        gate: Judges each request before its body is read; may be replaced while serving.
        access_log: Gets a line per request, or ``None``.
        delays: What failed authentications wait.
    """

    asgi_http_class = GatedHTTP
    asgi_websocket_class = GatedWebsocket

    def __init__(self, gate: Gate, access_log: AccessLog | None) -> None:
        super().__init__("crush_trio", static_folder=None)
        self.gate = gate
        self.access_log = access_log
        self.delays = FailureDelays()

    def body_limit(self, method: str, path: str) -> int:
        """Bytes that the body of a request to ``path`` may have."""
        return BODY_AGENT_BYTES if method == "POST" and LARGE_BODIES.match(path) else BODY_BYTES

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Matches by path alone; the name a client called us by is the gate's business."""
        if request is None:
            return None
        return self.url_map.bind(
            "localhost",
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
            query_args=request.query_string.decode("latin1"),
        )

    async def handle_user_exception(
        self, error: Exception | BaseExceptionGroup[BaseException]
    ) -> HTTPException | ResponseReturnValue:
        """Answers an error; a group as its one refusal, or as a 500 logged whole."""
        if not isinstance(error, BaseExceptionGroup):
            return await super().handle_user_exception(error)
        cancelled, rest = error.split(trio.Cancelled)
        if cancelled is not None:  # the client has gone, so nobody reads an answer
            if rest is not None:
                _log.error("a request failed while its client left", exc_info=rest)
            raise cancelled
        leaves = list(_leaves(error))
        if len(leaves) == 1 and isinstance(leaves[0], CrushError):
            return answer_error(leaves[0])
        if not isinstance(error, Exception):
            raise error
        return await Quart.handle_user_exception(self, error)

    async def handle_websocket(self, websocket: Websocket) -> ResponseTypes | None:
        """Serves a websocket; an error after the upgrade closes it with 1011, never with 1000."""
        response = await super().handle_websocket(websocket)
        call = call_of(websocket.scope)
        if response is not None and call.accepted and not call.closed:
            await websocket.close(1011, "internal error")
        return response


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def create_quart_app(gate: Gate, access_log: AccessLog | None = None) -> EdgeApp:
    """An application without routes, ready to be given some and served by `serve_http`.

    What a handler may rely on: the gate has let the request in; its body has been read in full
    and within its limit (``current_call().body``), so that answering without looking at it is
    harmless; whatever it raises becomes one JSON answer.

    Args:
        gate: Who may come in.
        access_log: Where each request is noted.
    """
    app = EdgeApp(gate, access_log)
    app.config["RESPONSE_TIMEOUT"] = None  # a stream lasts as long as it lasts; sends are bounded
    app.config["BODY_TIMEOUT"] = BODY_TIMEOUT_S
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # no answer to a preflight
    # No redirects: they would be built from a Host that is not checked on the unix socket.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.before_request(_enter)
    app.before_websocket(_enter_websocket)
    app.after_request(_finish)
    app.after_websocket(_finish_websocket)
    app.register_error_handler(Exception, answer_error)
    app.register_error_handler(HTTPException, answer_error)
    return app


async def _enter() -> None:
    call = current_call()
    if request.url_rule is not None:
        call.route = request.url_rule.rule
        call.run_id = (request.view_args or {}).get("run_id")
    if call.verdict.refused is not None:
        raise call.verdict.refused
    # A handler that answers before the body is there would cost the connection.
    call.body = await request.get_data(cache=True, as_text=False, parse_form_data=False)


async def _enter_websocket() -> None:
    call = current_call()
    if websocket.url_rule is not None:
        call.route = websocket.url_rule.rule
    if call.verdict.refused is not None:
        raise call.verdict.refused


async def _finish(response: ResponseTypes) -> ResponseTypes:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


async def _finish_websocket(response: ResponseTypes | None) -> ResponseTypes | None:
    return None if response is None else await _finish(response)
