"""How many tokens a request is, where no provider has counted it (CW 5.11). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from crush_trio import limits
from crush_trio.agent.ports import ToolSpec
from crush_trio.protocol.messages import (
    BinaryPart,
    ImageUrlPart,
    Message,
    Part,
    ShellCommandPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)


def of_text(text: str) -> int:
    """A token per `limits.CHARS_PER_TOKEN` characters; of UTF-8, so that a text in Chinese or in
    emoji, where a character is a token or more, is not taken for a quarter of its size."""
    length = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-length // limits.CHARS_PER_TOKEN)


def of_message(message: Message) -> int:
    """A message as it is sent. Thoughts are left out: most providers drop those of earlier steps,
    and who does not has counted them."""
    return limits.MESSAGE_TOKENS + sum(map(_of_part, message.parts))


def of_messages(messages: Iterable[Message]) -> int:
    """All of them."""
    return sum(map(of_message, messages))


def of_frame(system: str, tools: Sequence[ToolSpec]) -> int:
    """What each request holds besides its messages: the system prompt and the tools, as JSON."""
    shown = [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for tool in tools
    ]
    return of_text(system) + (of_text(orjson.dumps(shown).decode()) if shown else 0)


def _of_part(part: Part) -> int:
    match part:
        case TextPart(text):
            return of_text(text)
        case ToolCallPart(_, name, text):
            return of_text(name) + of_text(text)
        case ToolResultPart():
            return of_text(part.content) + (limits.IMAGE_TOKENS if part.data else 0)
        case BinaryPart(_, mime_type, data):
            if mime_type.startswith("image/"):
                return limits.IMAGE_TOKENS
            return len(data) * 3 // 4 // limits.CHARS_PER_TOKEN  # base64, shown as its text
        case ImageUrlPart():
            return limits.IMAGE_TOKENS
        case ShellCommandPart(command, output):
            return of_text(command) + of_text(output)
    return 0
