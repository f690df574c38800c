"""What one model wrote, as another may read it: images, thoughts, signatures, calls. Pure."""

from __future__ import annotations

import hashlib
import re

import attrs

from crush_trio.agent.ports import ModelInfo
from crush_trio.protocol.messages import (
    BinaryPart,
    ImageUrlPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_PLAIN_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_NOT_PLAIN = re.compile(r"[^a-zA-Z0-9_-]")
_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_HEAD_CHARS = 23  # of an id that is replaced; with the digest it is 40 characters long


def call_id(name: str) -> str:
    """``name`` as an id of a call that Anthropic (its characters) and OpenAI (at most 40 of them)
    both take: the same, if it is one, else one that always comes out for this name.

    A dialect whose provider wants something narrower still, as Mistral does, maps it once more.
    """
    if _PLAIN_ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_NOT_PLAIN.sub('_', name)[:_HEAD_CHARS]}_{digest}"


def tool_name(name: str) -> str:
    """``name`` as a tool may be called with every provider; models make up others, and a request
    that tells of one is refused, and so would be each later one of its session."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    plain = _NOT_PLAIN.sub("_", name)[:63]
    return plain if _PLAIN_NAME.fullmatch(plain) else f"_{plain}"


def for_model(message: Message, info: ModelInfo) -> Message:
    """The message without what only the model that wrote it understands, and without images if this
    one is known to take none (R55); their place is taken by a text."""
    own = (message.provider, message.model) == (info.provider, info.model)
    blind = info.supports_attachments is False
    parts = tuple(shown for part in message.parts for shown in _shown(part, own, blind))
    return message if parts == message.parts else attrs.evolve(message, parts=parts)


def _shown(part: Part, own: bool, blind: bool) -> tuple[Part, ...]:
    match part:
        case ReasoningPart():
            return (part,) if own else ()
        case ToolCallPart() if not own and part.signature:
            return (attrs.evolve(part, signature=""),)
        case BinaryPart(path, data=""):  # no provider takes an image or document of nothing
            return (TextPart(f"[The file {path} is empty]"),)
        case BinaryPart(path, mime_type) if blind and mime_type.startswith("image/"):
            return (TextPart(f"[The image {path} is not shown: this model takes no images]"),)
        case ImageUrlPart() if blind:
            return (TextPart("[An image is not shown: this model takes no images]"),)
        case ToolResultPart() if blind and part.data and part.mime_type.startswith("image/"):
            note = "[The image is not shown: this model takes no images]"
            content = f"{part.content}\n{note}" if part.content else note
            return (attrs.evolve(part, content=content, data="", mime_type=""),)
    return (part,)
