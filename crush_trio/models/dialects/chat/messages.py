"""A conversation as Chat Completions read it: a list of messages with roles."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import attrs
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
_CALL_ID_CHARS = 40  # OpenAI refuses a longer one; other providers and dialects give such
_NINE = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)  # all that Mistral takes
_Json = dict[str, Any]


def chat_messages(system: str, messages: Sequence[Message], target: Target) -> list[_Json]:
    """The messages of a valid conversation (G7), after the system prompt, if there is one.

    Prompts that follow each other are joined, because many local templates refuse two in a row.
    Pictures from tools follow their results as a prompt: a result can hold text alone.
    """
    return _Writer(target).write(system, messages)


@attrs.define
class _Writer:
    target: Target
    _made: list[_Json] = attrs.field(factory=list, init=False)
    _pictures: list[_Json] = attrs.field(factory=list, init=False)

    def write(self, system: str, messages: Sequence[Message]) -> list[_Json]:
        quirks = self.target.provider.quirks
        if system:
            self._made.append(
                {"role": "user" if "system_as_user" in quirks else "system", "content": system}
            )
        for message in messages:
            if message.role == "tool":
                for part in message.tool_results():
                    self._result(part)
                continue
            self._show_pictures()
            if message.role == "assistant":
                self._said(message)
            elif message.role == "system":
                self._made.append({"role": "system", "content": message.text()})
            else:
                self._given([item for part in message.parts for item in self._prompt(part)])
        self._show_pictures()
        return self._made

    def _said(self, message: Message) -> None:
        text = "\n\n".join(p.text for p in message.parts if isinstance(p, TextPart) and p.text)
        own = is_own(message, self.target)
        calls = [self._call(part, own) for part in message.tool_calls()]
        if not text and not calls:
            return  # a thought alone is no message of this protocol
        said: _Json = {"role": "assistant", "content": text}
        if calls:
            said["tool_calls"] = calls
            if not text and not self.target.provider.is_local:
                said["content"] = None  # local templates would print it as "None"
        if own:
            said |= self._thoughts(message)
        self._made.append(said)

    def _thoughts(self, message: Message) -> _Json:
        """What the provider wants back of what its model thought."""
        thoughts = [part for part in message.parts if isinstance(part, ReasoningPart)]
        if "openrouter" in self.target.provider.quirks:
            signed = dict.fromkeys(part.signature for part in thoughts if part.signature)
            details = [item for text in signed for item in _list(text)]
            return {"reasoning_details": details} if details else {}
        words = "".join(part.thinking for part in thoughts)
        wanted = "send_reasoning" in self.target.provider.quirks
        return {"reasoning_content": words} if wanted and words else {}

    def _call(self, part: ToolCallPart, own: bool) -> _Json:
        made: _Json = {
            "id": self._id(part.id),
            "type": "function",
            "function": {"name": part.name, "arguments": part.input or "{}"},
        }
        extra = object_in(part.signature) if own and part.signature else {}
        return made | ({"extra_content": extra} if extra else {})

    def _result(self, part: ToolResultPart) -> None:
        words = f"Error: {part.content}" if part.is_error else part.content
        made: _Json = {
            "role": "tool",
            "tool_call_id": self._id(part.tool_call_id),
            "content": words or "(no output)",  # some servers refuse an empty one
        }
        if part.data and part.mime_type in _IMAGES and takes_images(self.target):
            picture = _image(f"data:{part.mime_type};base64,{part.data}")
            if "mistral" in self.target.provider.quirks:  # no prompt may follow a result there
                made["content"] = [_text(made["content"]), picture]
            else:
                self._pictures += [_text(f"The image that {part.name} returned:"), picture]
        self._made.append(made)

    def _show_pictures(self) -> None:
        pictures, self._pictures = self._pictures, []
        self._given(pictures)

    def _prompt(self, part: Part) -> list[_Json]:
        shows = takes_images(self.target)
        match part:
            case TextPart(text):
                return [_text(text)] if text else []
            case BinaryPart(path, mime_type, data):
                if mime_type in _IMAGES and shows:
                    return [_image(f"data:{mime_type};base64,{data}")]
                reads_pdf = self.target.provider.quirks & {"openai", "openrouter"}
                if mime_type == "application/pdf" and shows and reads_pdf:
                    file = {
                        "filename": path.rsplit("/", 1)[-1],
                        "file_data": f"data:{mime_type};base64,{data}",
                    }
                    return [{"type": "file", "file": file}]
                return [_text(attached_text(part))]
            case ImageUrlPart(url, detail):
                if shows:
                    return [_image(url, detail)]
                return [_text("[An image is not shown: this model takes none]")]
        return []

    def _given(self, items: list[_Json]) -> None:
        if not items:
            return
        if self._made and self._made[-1]["role"] == "user":
            before = self._made.pop()["content"]
            items = [*(before if type(before) is list else [_text(before)]), *items]
        words = [item["text"] for item in items if item["type"] == "text"]
        plain = len(words) == len(items)  # as one text: not every server reads lists
        self._made.append({"role": "user", "content": "\n\n".join(words) if plain else items})

    def _id(self, call_id: str) -> str:
        if "mistral" in self.target.provider.quirks:
            return call_id if _NINE.fullmatch(call_id) else _digest(call_id)[:9]
        return call_id if len(call_id) <= _CALL_ID_CHARS else f"call_{_digest(call_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _text(text: str) -> _Json:
    return {"type": "text", "text": text}


def _image(url: str, detail: str = "") -> _Json:
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def _list(text: str) -> list[Any]:
    value = _parsed(text)
    return value if type(value) is list else []


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
