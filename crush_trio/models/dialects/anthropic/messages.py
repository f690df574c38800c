"""A conversation as the Messages API takes it: turns that alternate, made of content blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from crush_trio import limits
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

REDACTED = "redacted_thinking:"
"""Begins the signature of a thought that came encrypted; the rest is its data."""

_IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
_IMAGE_CHARS = limits.CHARS_PER_TOKEN * 1_600
_ID_CHARS = 64
_GO_ON = "Continue."
_NO_OUTPUT = "(no output)"
_TOO_LARGE = "[The image is too large to be shown: make it smaller]"
_Json = dict[str, Any]


def turns(messages: Iterable[Message], target: Target, *, thoughts: bool) -> list[_Json]:
    """The turns of a valid conversation (G7); the first and the last are the user's.

    All results of a turn's calls stand first in the user's turn right after it. Nothing that the
    API refuses is sent: empty text, a thought that is not signed by this very model, a thought at
    the end of a turn, an image that is too large, names and ids in characters it does not take.

    Args:
        thoughts: Whether thoughts are sent back at all.
    """
    writer = _Writer(target, thoughts)
    made: list[_Json] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in writer.blocks(part, message)]
        if not blocks:
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        else:
            made.append({"role": role, "content": blocks})
    return _alternating(made)


def _alternating(made: list[_Json]) -> list[_Json]:
    """Without thoughts at the end of a turn, and so that each turn is another's than the last."""
    kept: list[_Json] = []
    for turn in made:
        while turn["role"] == "assistant" and turn["content"] and is_thought(turn["content"][-1]):
            turn["content"].pop()
        if not turn["content"]:
            continue
        if kept and kept[-1]["role"] == turn["role"]:
            kept[-1]["content"] += turn["content"]
        else:
            kept.append(turn)
    asks: _Json = {"role": "user", "content": [{"type": "text", "text": _GO_ON}]}
    if not kept or kept[0]["role"] == "assistant":
        kept.insert(0, asks)
    if kept[-1]["role"] == "assistant":  # newer models do not go on with a turn of their own
        kept.append({**asks, "content": [dict(asks["content"][0])]})
    return kept


def is_thought(block: _Json) -> bool:
    """Whether a content block is a thought, readable or not."""
    return block["type"] in ("thinking", "redacted_thinking")


def begins_with_a_thought(made: list[_Json]) -> bool:
    """Whether the turn that is still calling tools begins with a thought; true if none is."""
    first: _Json | None = None
    for turn in reversed(made):
        if turn["role"] == "assistant":
            first = turn["content"][0]
        elif first is None:
            if turn["content"][0]["type"] != "tool_result":
                return True
        elif any(block["type"] != "tool_result" for block in turn["content"]):
            break
    return first is None or is_thought(first)


def called_tools(made: list[_Json]) -> list[str]:
    """The names of all tools that were called, each once, in order."""
    calls = (block for turn in made for block in turn["content"] if block["type"] == "tool_use")
    return list(dict.fromkeys(block["name"] for block in calls))


def mark_cached(made: list[_Json]) -> None:
    """Mark the ends of the last two turns of the user, so that what is before them is cached."""
    for turn in [turn for turn in made if turn["role"] == "user"][-2:]:
        turn["content"][-1]["cache_control"] = {"type": "ephemeral"}


def characters(value: Any) -> int:
    """About how many characters a model reads in a part of a body; an image counts as text."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(characters, value))
    if isinstance(value, dict):
        if value.get("type") == "image":
            return _IMAGE_CHARS
        return sum(map(characters, value.values()))
    return 1


@attrs.define
class _Writer:
    """Writes parts as content blocks; remembers what each call's id became."""

    target: Target
    thoughts: bool
    _ids: dict[str, str] = attrs.field(factory=dict)
    _used: set[str] = attrs.field(factory=set)

    def blocks(self, part: Part, message: Message) -> list[_Json]:
        """The blocks of one part."""
        match part:
            case TextPart(text):
                return _text(text)
            case ReasoningPart(thinking, signature):
                sent = self.thoughts and signature and is_own(message, self.target)
                return [_thought(thinking, signature)] if sent else []
            case ToolCallPart(id, name, input):
                return [
                    {
                        "type": "tool_use",
                        "id": self._id(id),
                        "name": _name(name),
                        "input": call_arguments(input),
                    }
                ]
            case ToolResultPart():
                return [self._result(part)]
            case BinaryPart(mime_type=mime_type, data=data):
                image = self._image(mime_type, data)
                return [image] if image else _text(attached_text(part))
            case ImageUrlPart(url):
                return [self._linked(url)]
        return []

    def _result(self, part: ToolResultPart) -> _Json:
        content = _text(part.content)
        image = self._image(part.mime_type, part.data)
        if image and not part.is_error:  # an error may hold nothing but text
            content.append(image)
        elif len(part.data) > limits.ANTHROPIC_IMAGE_CHARS:
            content += _text(_TOO_LARGE)
        result: _Json = {
            "type": "tool_result",
            "tool_use_id": self._id(part.tool_call_id),
            "content": content or _text(_NO_OUTPUT),  # an error without text is refused
        }
        if part.is_error:
            result["is_error"] = True
        return result

    def _image(self, mime_type: str, data: str) -> _Json | None:
        kind = mime_type.split(";")[0].strip().lower().replace("image/jpg", "image/jpeg")
        if kind not in _IMAGES or not data or not takes_images(self.target):
            return None
        if len(data) > limits.ANTHROPIC_IMAGE_CHARS:
            return None
        source = {"type": "base64", "media_type": kind, "data": data}
        return {"type": "image", "source": source}

    def _linked(self, url: str) -> _Json:
        inline = re.fullmatch(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/=]+)", url)
        if inline:
            note = "[An image is not shown]"
            return self._image(inline[1], inline[2]) or {"type": "text", "text": note}
        if url.startswith("https://") and takes_images(self.target):
            return {"type": "image", "source": {"type": "url", "url": url}}
        return {"type": "text", "text": f"[Image: {url}]"}

    def _id(self, call_id: str) -> str:
        """The same id in characters the API takes, unlike any other's of this conversation."""
        if call_id not in self._ids:
            plain = re.sub(r"[^A-Za-z0-9_-]", "_", call_id)[:_ID_CHARS] or "call"
            made, number = plain, 1
            while made in self._used:
                number += 1
                made = f"{plain[: _ID_CHARS - 8]}_{number}"
            self._ids[call_id] = made
            self._used.add(made)
        return self._ids[call_id]


def _text(text: str) -> list[_Json]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _thought(thinking: str, signature: str) -> _Json:
    if signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:128] or "unknown"
