"""What the routes of one server share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import trio
from quart import request
from quart_trio.wrappers import TrioResponse

from crush_trio import limits
from crush_trio.host.host import Host
from crush_trio.host.kit import Kit
from crush_trio.host.workspace import Workspace
from crush_trio.protocol import codec
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import is_client_id
from crush_trio.protocol.requests import VersionInfo
from crush_trio.protocol.runs import CancelledBy
from crush_trio.protocol.sessions import Session
from crush_trio.server.edge.answers import json_response
from crush_trio.server.edge.call import current_call
from crush_trio.server.options import ServeOptions
from crush_trio.server.settings import Settings
from crush_trio.store.contract import Store

T = TypeVar("T")


@attrs.define(eq=False)
class Services:
    """One server's parts, as its routes use them.

    ``request_stop`` begins the shutdown with a reason; never waits.
    """

    host: Host
    store: Store
    kit: Kit
    options: ServeOptions
    version: VersionInfo
    stopping: trio.Event
    request_stop: Callable[[str], None]
    settings: Settings


def answer(value: Any, status: int = 200) -> TrioResponse:
    """A value of ours as a JSON answer."""
    return json_response(codec.encode(value), status)


def answer_naming(ignored: tuple[str, ...], value: Any) -> TrioResponse:
    """A value as `answer`, with the request's unknown keys named in ``ignored`` if there are any.

    For answers whose shape has no place of its own for them.
    """
    named = codec.to_json(value)
    return json_response(codec.encode({**named, "ignored": ignored} if ignored else named))


def body_as(cls: type[T]) -> tuple[T, tuple[str, ...]]:
    """The request's body, and its keys that nobody knows.

    Raises:
        DecodeError: 400.
    """
    return codec.decode_body(current_call().body, cls)


def by_caller(reason: str, client_id: str | None = None) -> CancelledBy:
    """Who asks for a cancel."""
    return CancelledBy(current_call().principal, client_id or request.args.get("client_id"), reason)


def int_argument(name: str, default: int, *, least: int, most: int) -> int:
    """An integer query parameter within its range.

    Raises:
        Refused: ``bad_request`` that names the range.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise Refused("bad_request", f"`{name}` must be a whole number from {least} to {most}.")
    return int(text)


def wait_argument() -> float:
    """How many seconds ``wait`` allows an answer to be waited for.

    Raises:
        Refused: ``bad_request`` that names the range.
    """
    text = request.args.get("wait")
    if text is None:
        return 0.0
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= limits.WAIT_MAX_S:
        raise Refused("bad_request", f"`wait` must be a number from 0 to {limits.WAIT_MAX_S:g}.")
    return wait_s


def limit_argument() -> int:
    """The ``limit`` of a list."""
    return int_argument("limit", limits.LIST_LIMIT_DEFAULT, least=1, most=limits.LIST_LIMIT_MAX)


def client_id_of(text: str | None) -> str | None:
    """What a client of Crush's protocol calls itself; ``None`` if it does not say.

    Raises:
        Refused: ``bad_request``: it is not a UUID (R20).
    """
    if not text:
        return None
    if not is_client_id(text):
        raise Refused("bad_request", "`client_id` must be a UUID of your own.")
    return text  # as it came, which is how the websocket takes it, too


def asker() -> str | None:
    """The ``client_id`` of the query, where it may be left out.

    Raises:
        Refused: ``bad_request``: it is not a UUID.
    """
    return client_id_of(request.args.get("client_id"))


def callers_env(workspace: Workspace | None) -> Mapping[str, str]:
    """What the client that asks has sent of its environment, see `Presence.environment`.

    Raises:
        Refused: ``bad_request``: its ``client_id`` is not a UUID.
    """
    client_id = asker()
    return {} if workspace is None else workspace.presence.environment(client_id)


def client_argument() -> str:
    """The ``client_id`` of the query, where nothing can be done without it.

    Raises:
        Refused: ``bad_request``: it is missing, or not a UUID.
    """
    client_id = client_id_of(request.args.get("client_id"))
    if client_id is None:
        raise Refused("bad_request", "`client_id` is required: the UUID you created with.")
    return client_id


def busy_sessions(workspace: Workspace | None) -> frozenset[str]:
    """Sessions of a workspace whose run is being driven; none if it is not open."""
    if workspace is None:
        return frozenset()
    return frozenset(
        session.id for session in workspace.open_sessions() if workspace.is_busy(session.id)
    )


def seen(workspace: Workspace | None, sessions: Sequence[Session]) -> tuple[Session, ...]:
    """Stored sessions with what is only known while the workspace is open (CW 5.10, R30)."""
    if workspace is None:
        return tuple(sessions)
    busy, watchers = busy_sessions(workspace), workspace.presence.watchers()
    return tuple(
        attrs.evolve(each, is_busy=each.id in busy, attached_clients=watchers[each.id])
        for each in sessions
    )
