"""A conversation as Gemini reads it: turns of a user and a model, made of parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from crush_trio.models.dialects.bodies import attached_text, call_arguments, is_own, takes_images
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

FOREIGN_SIGNATURE = "skip_thought_signature_validator"
"""What Google documents as the signature of a call that another model, or nobody, has signed."""

_IMAGES = frozenset(("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"))
_SHOWN = _IMAGES | {"application/pdf"}
_IN_RESULTS = frozenset(("image/png", "image/jpeg", "image/webp", "application/pdf"))
_Json = dict[str, Any]


def generation(model: str) -> int:
    """Which Gemini it is: 2 for older ones and for models that are none, as Gemma."""
    name = model.rsplit("/", 1)[-1]
    numbered = re.match(r"gemini-(\d{1,3})", name)
    if numbered:
        return max(2, int(numbered[1]))
    return 3 if name.startswith("gemini-") else 2  # gemini-flash-latest


@attrs.define
class _Turn:
    """What one side says; results of tools are answered in a turn of their own."""

    role: str
    is_results: bool = False
    parts: list[_Json] = attrs.field(factory=list)
    images: list[_Json] = attrs.field(factory=list)


def contents(messages: Iterable[Message], target: Target) -> list[_Json]:
    """The turns of a valid conversation (G7), the first of them the user's."""
    turns: list[_Turn] = []
    for message in messages:
        turn = _turn(message, target)
        if not turn.parts:
            continue
        last = turns[-1] if turns else None
        if last and (last.role, last.is_results) == (turn.role, turn.is_results):
            last.parts += turn.parts
            last.images += turn.images
        else:
            turns.append(turn)
    if turns and turns[0].role == "model":
        turns.insert(0, _Turn("user", parts=[{"text": "Continue."}]))
    return [{"role": turn.role, "parts": turn.parts + turn.images} for turn in turns]


def _turn(message: Message, target: Target) -> _Turn:
    if message.role == "assistant":
        return _Turn("model", parts=_spoken(message, target))
    turn = _Turn("user", is_results=message.role == "tool")
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            turn.parts.append(_result(part, target, turn.images))
        else:
            turn.parts += _given(part, target)
    return turn


def _given(part: Part, target: Target) -> list[_Json]:
    """A part of a prompt."""
    match part:
        case TextPart(text):
            return [{"text": text}] if text else []
        case BinaryPart():
            if part.mime_type in _SHOWN and takes_images(target):
                return [_inline(part.mime_type, part.data)]
            return [{"text": attached_text(part)}]
        case ImageUrlPart(url):
            inline = re.fullmatch(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/=]+)", url)
            if inline and inline[1] in _IMAGES and takes_images(target):
                return [_inline(inline[1], inline[2])]
            return [{"text": "[An image is not shown]" if inline else f"[Image: {url}]"}]
    return []


def _inline(mime_type: str, data: str) -> _Json:
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def _spoken(message: Message, target: Target) -> list[_Json]:
    """What a model said. A signature without a thought belongs to the text before it."""
    own = is_own(message, target)
    needs_signature = generation(target.info.model) >= 3
    parts: list[_Json] = []
    for part in message.parts:
        match part:
            case TextPart(text) if text:
                parts.append({"text": text})
            case ReasoningPart(thinking, signature) if own and signature:
                if thinking:
                    thought = {"thought": True, "text": thinking, "thoughtSignature": signature}
                    parts.append(thought)
                elif parts and "text" in parts[-1] and "thought" not in parts[-1]:
                    parts[-1]["thoughtSignature"] = signature
            case ToolCallPart(id, name, input):
                call: _Json = {
                    "functionCall": {"id": id, "name": name, "args": call_arguments(input)}
                }
                if own and part.signature:
                    call["thoughtSignature"] = part.signature
                elif needs_signature:  # only the first call of a step has to be signed
                    call["thoughtSignature"] = FOREIGN_SIGNATURE
                needs_signature = False
                parts.append(call)
    return parts


def _result(part: ToolResultPart, target: Target, images: list[_Json]) -> _Json:
    """A tool's answer; an image that cannot be part of it goes to ``images``, with its name."""
    response = {"error" if part.is_error else "output": part.content}
    made: _Json = {"id": part.tool_call_id, "name": part.name, "response": response}
    if part.data and part.mime_type in _SHOWN and takes_images(target):
        inline = _inline(part.mime_type, part.data)
        if generation(target.info.model) >= 3 and part.mime_type in _IN_RESULTS:
            made["parts"] = [inline]
        else:
            images += [{"text": f"What {part.name} ({part.tool_call_id}) returned:"}, inline]
    return {"functionResponse": made}
