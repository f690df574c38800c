"""What goes through a feed: objects of contract 4, encoded once for all subscribers."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio.protocol.codec import encode, frame_to_json
from crush_trio.protocol.events import Control, MessageDelta, ToolOutput
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.store.contract import StoredEvent
from crush_trio.store.encoding import encode_transient


@attrs.frozen
class FeedEntry:
    """One encoded object.

    ``seq`` is its place in the journal; transient and control objects have none. ``key`` names
    the open thing that a transient object belongs to, as in `Feed.hold`. ``session_ids`` are its
    session and that session's ancestors.
    """

    seq: int | None
    kind: str
    session_ids: tuple[SessionId, ...]
    data: bytes
    key: str | None = None


def event_entry(event: StoredEvent) -> FeedEntry:
    """A committed event."""
    return FeedEntry(event.seq, event.kind, event.session_ids, event.data)


def transient_entry(
    frame: MessageDelta | ToolOutput, *, session_ids: tuple[SessionId, ...], key: str
) -> FeedEntry:
    """A piece of what is being written now."""
    data = encode(frame_to_json(frame))
    kind = "message_delta" if isinstance(frame, MessageDelta) else "tool_output"
    return FeedEntry(None, kind, session_ids, data, key)


def present_message(
    workspace_id: WorkspaceId, message: Message, *, session_ids: tuple[SessionId, ...], key: str
) -> FeedEntry:
    """The whole present state of an open message; too long strings are cut and named."""
    data = encode_transient("message", "updated", message, workspace_id)
    return FeedEntry(None, "message", session_ids, data, key)


def control_entry(frame: Control) -> FeedEntry:
    """A control object."""
    value: dict[str, Any] = frame_to_json(frame)
    return FeedEntry(None, value["type"], (), encode(value))
