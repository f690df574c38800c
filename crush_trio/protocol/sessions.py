"""Sessions and stored file versions, in the shapes of CW 13.2 and 13.7."""

from __future__ import annotations

import attrs

from crush_trio.protocol.ids import MessageId, SessionId

TODO_STATUS = ("pending", "in_progress", "completed")


@attrs.frozen
class Todo:
    """One line of a session's to-do list; ``status`` is one of `TODO_STATUS`.

    ``active_form`` is what it is called while somebody is at it.
    """

    content: str
    status: str
    active_form: str


@attrs.frozen
class Session:
    """One conversation. Times are unix seconds; ``cost`` is US dollars.

    ``is_busy`` and ``attached_clients`` are computed for REST answers and are false and 0 in
    events (CW 5.10).
    """

    id: SessionId
    parent_session_id: str = ""
    title: str = ""
    message_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    summary_message_id: MessageId | str = ""
    cost: float = 0.0
    todos: tuple[Todo, ...] = ()
    created_at: int = 0
    updated_at: int = 0
    is_busy: bool = False
    attached_clients: int = 0


@attrs.frozen
class FileVersion:
    """One stored state of a file that a tool changed; version 0 is what was there before."""

    id: str
    session_id: SessionId
    path: str
    content: str
    version: int
    created_at: int
    updated_at: int
