"""What a subscriber asks for: the stream parameters of contract 4, from a query or an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from crush_trio.host.workspace import Workspace
from crush_trio.journal import Feed, JournalReader
from crush_trio.protocol import codec
from crush_trio.protocol.errors import DecodeError, Refused
from crush_trio.protocol.events import KINDS
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.requests import SubscribeFrame
from crush_trio.store.contract import Selection, Store

_PARAMETERS = frozenset({"after", "epoch", "session_id", "kinds", "detail", "client_id"})


@attrs.frozen
class StreamRequest:
    """What a subscriber asked for; ``cursor`` is ``None`` for "from now on"."""

    cursor: int | None
    epoch: str | None
    selection: Selection
    detail: Literal["delta", "snapshot"]
    client_id: str | None

    def reader(self, store: Store, feed: Feed, *, tag: bool = False) -> JournalReader:
        """A reader of what was asked for; with ``tag`` control objects name the workspace."""
        return JournalReader(
            store,
            feed,
            cursor=self.cursor,
            selection=self.selection,
            detail=self.detail,
            epoch=self.epoch,
            tag=tag,
        )


def parse_stream_request(arguments: Mapping[str, str]) -> StreamRequest:
    """The parameters of a query.

    Raises:
        Refused: ``bad_cursor`` or ``bad_request``, with the allowed values.
    """
    unknown = sorted(set(arguments) - _PARAMETERS)
    if unknown:
        raise Refused("bad_request", f"Unknown stream parameter {', '.join(unknown)}.")
    kinds: frozenset[str] | None = None
    if "kinds" in arguments:
        kinds = frozenset(arguments["kinds"].split(","))
        if strange := sorted(kinds - set(KINDS)):
            raise Refused(
                "bad_request",
                f"Unknown kind {', '.join(strange)!r}; the kinds are {', '.join(KINDS)}.",
            )
    asked = arguments.get("detail", "delta")
    detail: Literal["delta", "snapshot"] = "snapshot" if asked == "snapshot" else "delta"
    if asked != detail:
        raise Refused("bad_request", "`detail` must be delta or snapshot.")
    session_id = arguments.get("session_id")
    return StreamRequest(
        cursor=_cursor(arguments.get("after", "now")),
        epoch=arguments.get("epoch") or None,
        selection=Selection(SessionId(session_id) if session_id else None, kinds),
        detail=detail,
        client_id=arguments.get("client_id"),
    )


def parse_subscribe(frame: dict[str, Any]) -> StreamRequest:
    """The parameters of a ``subscribe`` object, whose ``after`` may be a number.

    Raises:
        Refused: As `parse_stream_request`.
    """
    try:
        wanted, unknown = codec.decode_body(codec.encode(frame), SubscribeFrame)
    except DecodeError as exc:
        raise Refused("bad_request", f"{exc}.") from exc
    if type(wanted.after) not in (int, str, type(None)):
        raise Refused("bad_cursor", _CURSORS)
    asked = {name: getattr(wanted, name) for name in _PARAMETERS}
    arguments = {name: str(value) for name, value in asked.items() if value is not None}
    return parse_stream_request(arguments | dict.fromkeys(unknown, ""))


_CURSORS = "`after` must be a sequence number, `now` or `start`."


def _cursor(after: str) -> int | None:
    if after == "now":
        return None
    if after == "start":
        return 0
    if after.isascii() and after.isdigit() and len(after) <= 18:
        return int(after)
    raise Refused("bad_cursor", _CURSORS)


async def check_session(workspace: Workspace, wanted: StreamRequest) -> None:
    """A filter that selects nothing is a mistake.

    It is no 404, which tells a client that its workspace is gone (CW 2.1).

    Raises:
        Refused: ``bad_request``.
    """
    session_id = wanted.selection.session_id
    if session_id is None:
        return
    try:
        await workspace.session(session_id)
    except Refused as refused:
        raise Refused("bad_request", f"`session_id`: {refused.message}") from refused
