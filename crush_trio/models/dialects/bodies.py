"""What the requests of several dialects have in common: limits, extras, attachments."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from crush_trio.agent.ports import ModelRequest
from crush_trio.models.provider import Target
from crush_trio.protocol.messages import BinaryPart, Message

_DEEP = 200  # brackets below which no text is nested too deeply to be written
_TEXTS = frozenset(
    [
        "application/json",
        "application/xml",
        "application/javascript",
        "application/x-sh",
        "application/toml",
        "application/yaml",
        "application/x-yaml",
        "application/sql",
    ]
)


def system_text(request: ModelRequest, target: Target) -> str:
    """The system prompt, after what the provider is configured to put before it."""
    return "\n\n".join(filter(None, (target.provider.system_prompt_prefix, request.system)))


def output_tokens(request: ModelRequest, target: Target) -> int | None:
    """How long the answer may be in tokens, at least 1; ``None`` leaves it to the provider."""
    usual = target.choice.max_tokens or target.info.max_output_tokens or None
    known = [limit for limit in (usual, request.max_output_tokens) if limit is not None]
    return max(1, min(known)) if known else None


def with_extras(body: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The body with the options of the choice, and over everything those of the provider.

    Objects are merged, everything else is replaced.
    """
    return _merged(_merged(body, target.choice.options), target.provider.extra_body)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(under)
    for key, value in over.items():
        old = made.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        made[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return made


def is_own(message: Message, target: Target) -> bool:
    """Whether the target wrote it, so that what it wants back may be sent back."""
    return message.provider == target.info.provider and message.model == target.info.model


def takes_images(target: Target) -> bool:
    """Whether images go along: not if the model is known to take none."""
    return target.info.supports_attachments is not False


def attached_text(part: BinaryPart) -> str:
    """An attachment in words: a text with its name, of anything else that it is not shown."""
    kind = part.mime_type.split(";")[0].strip().lower()
    if kind.startswith("text/") or kind in _TEXTS:
        try:
            text = base64.b64decode(part.data, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return f"[The attached file {part.path} could not be read]"
        return f'<file path="{part.path}">\n{text}\n</file>'
    return f"[The attached file {part.path} ({kind}) is not shown: this model cannot read it]"


def object_in(text: str) -> dict[str, Any]:
    """The JSON object that ``text`` is; empty if it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if type(value) is dict else {}


def call_arguments(text: str) -> dict[str, Any]:
    """A call's arguments; empty if they are none, or too deep to be written again."""
    value = object_in(text)
    if text.count("[") + text.count("{") > _DEEP:
        try:
            orjson.dumps(value)  # it reads deeper ones than it writes
        except orjson.JSONEncodeError:
            return {}
    return value
