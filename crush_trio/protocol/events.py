"""What travels on the event stream: events, transient frames and control frames (contract 4)."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from crush_trio.protocol.jobs import JobRecord
from crush_trio.protocol.messages import Message
from crush_trio.protocol.questions import QuestionNotification, QuestionRequest
from crush_trio.protocol.runs import RunComplete, RunRecord
from crush_trio.protocol.sessions import FileVersion, Session

CRUSH_KINDS = (
    "message",
    "session",
    "file",
    "run_complete",
    "agent_event",
    "permission_request",
    "permission_notification",
    "question_batch_request",
    "question_batch_notification",
    "lsp_event",
    "mcp_event",
    "skills_event",
    "config_changed",
    "update_available",
)
OWN_KINDS = ("run", "retry", "job")
TRANSIENT_KINDS = ("message_delta", "tool_output")
KINDS = (*CRUSH_KINDS, *OWN_KINDS, *TRANSIENT_KINDS)
"""Every value the ``kinds`` parameter may name. ``message`` includes ``message_delta``."""

CHANGES = ("created", "updated", "deleted")


@attrs.frozen
class AgentEvent:
    """An agent's notice: ``type`` is agent_finished, error, summarize or prune. CW's ``message`` is
    left out.

    ``tokens_before`` and ``tokens_after`` (additions to CW, of summarize and prune) say how large
    the conversation was for the model, and how large its summary, or what is sent of it, is.
    """

    type: str
    session_id: str = ""
    session_title: str = ""
    run_id: str = ""
    error: str = ""
    tokens_before: int = 0
    tokens_after: int = 0


@attrs.frozen
class Retry:
    """A model request is tried again after ``delay_s`` seconds; ``cause`` says why."""

    run_id: str
    attempt: int
    max_attempts: int
    delay_s: float
    cause: str


@attrs.frozen
class PermissionRequest:
    """A tool call that waits for a decision (CW 13.5).

    The last three are additions. ``why`` says why a command needs permission. ``covers`` says in
    words what "allow for this session" would allow. ``digest`` is
    `protocol.digests.request_digest` of all the rest.
    """

    id: str
    session_id: str
    tool_call_id: str
    tool_name: str
    description: str
    action: str
    params: Any
    path: str
    why: str = ""
    covers: str = ""
    digest: str = ""


@attrs.frozen
class PermissionNotification:
    """How a permission request ended: exactly one flag is set, exactly once (CW 6.1, R69).

    ``request_id``, ``ending`` (a word of `Resolution`) and ``decided_by`` are additions to CW.
    """

    tool_call_id: str
    granted: bool = False
    denied: bool = False
    request_id: str = ""
    ending: str = ""
    decided_by: str = ""


@attrs.frozen
class ConfigChanged:
    """The configuration of a workspace changed, or its default permission mode.

    ``error`` (an addition to CW) is the sentence why it cannot be used now. Runs that have begun
    go on with what they have; new ones are refused until it is repaired.
    """

    workspace_id: str
    error: str = ""


Payload: TypeAlias = (
    Message
    | Session
    | FileVersion
    | RunRecord
    | JobRecord
    | RunComplete
    | AgentEvent
    | Retry
    | PermissionRequest
    | PermissionNotification
    | QuestionRequest
    | QuestionNotification
    | ConfigChanged
    | dict[str, Any]
)
"""The inner payload of an event; a plain object for kinds this version has no class for."""

PAYLOAD_CLASS: dict[str, type[Any]] = {
    "message": Message,
    "session": Session,
    "file": FileVersion,
    "run": RunRecord,
    "run_complete": RunComplete,
    "agent_event": AgentEvent,
    "retry": Retry,
    "job": JobRecord,
    "permission_request": PermissionRequest,
    "permission_notification": PermissionNotification,
    "question_batch_request": QuestionRequest,
    "question_batch_notification": QuestionNotification,
    "config_changed": ConfigChanged,
}


@attrs.frozen
class Event:
    """One entry of the journal.

    ``type`` is the kind, ``change`` is created, updated or deleted. On the wire the two inner
    levels are CW's envelope: ``{"seq", "ts_ms", "workspace_id", "type", "payload": {"type":
    change, "payload": payload}}``. Transient ``message`` frames have neither seq nor ts_ms.
    """

    type: str
    change: str
    payload: Payload
    workspace_id: str = ""
    seq: int | None = None
    ts_ms: int | None = None
    truncated: dict[str, str] | None = None


@attrs.frozen
class MessageDelta:
    """Text that is being written now; ``offset`` counts code points already in the part.

    ``index`` is the position in ``parts``; ``index == len(parts)`` opens a part. ``part`` is
    text, reasoning or tool_input.
    """

    message_id: str
    session_id: str
    run_id: str
    index: int
    part: str
    offset: int
    text: str
    tool_call_id: str | None = None


@attrs.frozen
class ToolOutput:
    """Output a tool is writing now; ``offset`` counts code points of this stream of this call."""

    tool_call_id: str
    session_id: str
    stream: str
    offset: int
    text: str
    run_id: str | None = None
    job_id: str | None = None


@attrs.frozen
class Hello:
    """The first frame: who serves, and where the journal stands."""

    version: str
    server_id: str
    epoch: str
    seq: int
    workspace_id: str | None = None


@attrs.frozen
class Replayed:
    """Everything before this was history; from here on it is live."""

    seq: int
    workspace_id: str | None = None


@attrs.frozen
class Resync:
    """The cursor cannot be served: fetch the snapshot and go on with events after its ``seq``."""

    reason: str
    seq: int
    epoch: str
    workspace_id: str | None = None


@attrs.frozen
class Ping:
    """A sign of life; from the server, everything selected up to ``seq`` has been sent."""

    seq: int | None = None
    workspace_id: str | None = None


@attrs.frozen
class Pong:
    """The answer to a ping."""

    seq: int | None = None


@attrs.frozen
class Bye:
    """The last frame: ``reason`` says why the server ends the stream."""

    reason: str
    workspace_id: str | None = None


@attrs.frozen
class Subscribed:
    """What follows of this workspace belongs to the newest ``subscribe`` that named it."""

    workspace_id: str


@attrs.frozen
class Unsubscribed:
    """Nothing of this workspace follows any more."""

    workspace_id: str


@attrs.frozen
class StreamError:
    """A ``subscribe`` was refused and changed nothing; the fields are those of an HTTP error."""

    workspace_id: str
    code: str
    message: str
    retryable: bool = False


@attrs.frozen
class UnknownFrame:
    """A frame of a kind this version does not know, as it came; to be ignored."""

    type: str
    raw: dict[str, Any]

    @property
    def seq(self) -> int | None:
        """Its place in the journal, so that a reader's cursor moves past it too."""
        seq = self.raw.get("seq")
        return seq if type(seq) is int else None


Control: TypeAlias = (
    Hello | Replayed | Resync | Ping | Pong | Bye | Subscribed | Unsubscribed | StreamError
)
"""About a stream; ``workspace_id`` is set where one socket carries several workspaces."""
Frame: TypeAlias = Event | MessageDelta | ToolOutput | Control | UnknownFrame

CONTROL_CLASS: dict[str, type[Any]] = {
    "hello": Hello,
    "replayed": Replayed,
    "resync": Resync,
    "ping": Ping,
    "pong": Pong,
    "bye": Bye,
    "subscribed": Subscribed,
    "unsubscribed": Unsubscribed,
    "error": StreamError,
    "message_delta": MessageDelta,
    "tool_output": ToolOutput,
}
