"""Messages of a transcript and their parts, in the shapes of CW 3.5 and 13.3."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId


@attrs.frozen
class TextPart:
    """Plain text."""

    text: str


@attrs.frozen
class ReasoningPart:
    """What the model thought; times are unix seconds."""

    thinking: str
    signature: str = ""
    started_at: int = 0
    finished_at: int = 0


@attrs.frozen
class ImageUrlPart:
    """An image by its address."""

    url: str
    detail: str = ""


@attrs.frozen
class BinaryPart:
    """An attachment. ``data`` is base64 text; the wire keys are capitalised (CW 3.5)."""

    path: str
    mime_type: str
    data: str


@attrs.frozen
class ToolCallPart:
    """A tool the model asked for. ``input`` is JSON text, empty while it streams.

    ``signature`` (an addition to CW) is sent back to the same provider unchanged, if not empty.
    """

    id: str
    name: str
    input: str
    finished: bool = False
    signature: str = ""


@attrs.frozen
class ToolResultPart:
    """What a tool answered. ``metadata`` is JSON text or empty; ``data`` is base64 text."""

    tool_call_id: str
    name: str
    content: str
    metadata: str = ""
    is_error: bool = False
    data: str = ""
    mime_type: str = ""


@attrs.frozen
class FinishPart:
    """The end of a message; ``time`` is unix seconds.

    ``reason`` is end_turn, max_tokens, tool_use, canceled, error, content_filter, unknown or stop
    (CW 3.5). An assistant message without this part is still open.
    """

    reason: str
    time: int
    message: str = ""
    details: str = ""


@attrs.frozen
class ShellCommandPart:
    """A command a person ran in the session."""

    command: str
    output: str
    exit_code: int


@attrs.frozen
class UnknownPart:
    """A part of a kind this version does not know; it is kept as it came."""

    type: str
    data: dict[str, Any]


Part: TypeAlias = (
    TextPart
    | ReasoningPart
    | ImageUrlPart
    | BinaryPart
    | ToolCallPart
    | ToolResultPart
    | FinishPart
    | ShellCommandPart
    | UnknownPart
)


@attrs.frozen
class Message:
    """One message of a session. ``created_at`` and ``updated_at`` are unix seconds.

    ``run_id`` (an addition to CW) names the run that wrote it. Messages are ordered by (accept
    sequence of their run, ordinal), which the store keeps; never by time (G7). ``leaves_out``
    (an addition, of a summary) names runs that waited when it was written although they stand
    before it: it does not tell what became of them. ``covers`` (likewise) names runs that it does
    tell of although they stand behind it. Both mean all that stands at the place of those runs,
    the prompts that were folded into them too.
    """

    id: MessageId
    role: str
    session_id: SessionId
    parts: tuple[Part, ...]
    model: str = ""
    provider: str = ""
    created_at: int = 0
    updated_at: int = 0
    is_summary_message: bool = False
    run_id: RunId | None = None
    leaves_out: tuple[RunId, ...] = ()
    covers: tuple[RunId, ...] = ()

    def finish(self) -> FinishPart | None:
        """The finish part, or ``None`` while the message is open."""
        return next((part for part in self.parts if isinstance(part, FinishPart)), None)

    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))

    def tool_results(self) -> tuple[ToolResultPart, ...]:
        """The tool results, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolResultPart))
