"""A conversation as the Responses API reads it: a flat list of input items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from crush_trio.models.dialects.bodies import attached_text, is_own, object_in, takes_images
from crush_trio.models.provider import Target
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

_IMAGES = frozenset(("image/png", "image/jpeg", "image/webp", "image/gif"))
_CALL_ID_CHARS = 64  # a longer one is refused; other providers give such
_Json = dict[str, Any]


def items(messages: Iterable[Message], target: Target) -> list[_Json]:
    """The items of a valid conversation (G7).

    Thoughts are there only if the target had them, directly before what they led to: a thought
    that led to nothing is refused.
    """
    made: list[_Json] = []
    for message in messages:
        if message.role == "assistant":
            made += _without_loose_thoughts(_said(message, target))
        elif message.role == "tool":
            made += [_output(part, target) for part in message.tool_results()]
        else:
            content = [item for part in message.parts for item in _given(part, target)]
            if content:
                made.append({"type": "message", "role": "user", "content": content})
    return made


def signature(item: _Json) -> str:
    """What of a reasoning item must be sent back, as `ReasoningPart.signature`; "" if nothing."""
    kept = {key: item.get(key) for key in ("id", "encrypted_content")}
    if not all(type(value) is str and value for value in kept.values()):
        return ""
    return orjson.dumps(kept).decode()


def phase_signature(phase: str) -> str:
    """The phase of the message that follows, likewise: newer models want it back, too."""
    return orjson.dumps({"phase": phase}).decode()


def _said(message: Message, target: Target) -> Iterator[_Json]:
    own = is_own(message, target)
    phase: str | None = None
    for part in message.parts:
        match part:
            case ReasoningPart(thinking, signed) if own and signed:
                kept = object_in(signed)
                phase = kept.get("phase", phase)
                if kept.get("encrypted_content"):
                    words = [{"type": "summary_text", "text": thinking}] if thinking else []
                    yield {"type": "reasoning", "summary": words, **kept}
            case TextPart(text) if text:
                # A list of output_text would need an id, which strict servers insist on.
                said = {"type": "message", "role": "assistant", "content": text}
                yield {**said, "phase": phase} if phase else said
                phase = None
            case ToolCallPart(id, name, input):
                yield {
                    "type": "function_call",
                    "call_id": _id(id),
                    "name": name,
                    "arguments": input,
                }


def _without_loose_thoughts(said: Iterable[_Json]) -> list[_Json]:
    kept: list[_Json] = []
    waiting: list[_Json] = []
    for item in said:
        if item["type"] == "reasoning":
            waiting.append(item)
        else:
            kept += [*waiting, item]
            waiting = []
    return kept


def _given(part: Part, target: Target) -> list[_Json]:
    """A part of a prompt."""
    match part:
        case TextPart(text):
            return [_text(text)] if text else []
        case BinaryPart(path, mime_type, data):
            if mime_type in _IMAGES and takes_images(target):
                return [_image(f"data:{mime_type};base64,{data}")]
            if mime_type == "application/pdf" and takes_images(target):
                file = f"data:{mime_type};base64,{data}"
                name = path.rsplit("/", 1)[-1]
                return [{"type": "input_file", "filename": name, "file_data": file}]
            return [_text(attached_text(part))]
        case ImageUrlPart(url, detail):
            if takes_images(target):
                return [_image(url, detail)]
            return [_text("[An image is not shown: this model takes none]")]
    return []


def _output(part: ToolResultPart, target: Target) -> _Json:
    """A tool's answer. There is no mark for an error: it is said in words."""
    words = f"Error: {part.content}" if part.is_error else part.content
    output: str | list[_Json] = words
    if part.data and part.mime_type in _IMAGES and takes_images(target):
        image = _image(f"data:{part.mime_type};base64,{part.data}")
        output = [_text(words), image] if words else [image]
    return {"type": "function_call_output", "call_id": _id(part.tool_call_id), "output": output}


def _id(call: str) -> str:
    """The call's id, or a shorter one that is as unique."""
    return call if len(call) <= _CALL_ID_CHARS else hashlib.sha256(call.encode()).hexdigest()


def _text(text: str) -> _Json:
    return {"type": "input_text", "text": text}


def _image(url: str, detail: str = "") -> _Json:
    return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
