"""Anthropic's Messages API, and servers that are compatible with it.

Quirks of a provider: ``bearer`` (the key goes into ``Authorization``), ``no_cache`` (no marks for
the prompt cache), ``no_betas`` (nothing that needs an ``anthropic-beta`` header).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import orjson

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelRequest, ToolSpec
from crush_trio.models.dialects.anthropic import errors as anthropic_errors
from crush_trio.models.dialects.anthropic import messages as anthropic_messages
from crush_trio.models.dialects.anthropic.stream import Reader
from crush_trio.models.dialects.anthropic.thinking import Thinking, claude, thinking
from crush_trio.models.dialects.bodies import output_tokens, with_extras
from crush_trio.models.dialects.port import AnswerReader, HttpCall
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access, Target

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"
_CACHED: Final = {"type": "ephemeral"}
_SIGNED_IN: Final = "sk-ant-oat"  # begins a token of somebody who signed in
_Json = dict[str, Any]


class Anthropic:
    """The dialect; without state."""

    def call(self, request: ModelRequest, target: Target, access: Access) -> HttpCall:
        """See `Dialect.call`."""
        body, betas = _body(request, target, access)
        headers = _headers(access, target, betas)
        return HttpCall(_url(access, "messages"), headers, with_extras(body, target))

    def reader(self, request: ModelRequest, target: Target, emit: Emit) -> AnswerReader:
        """See `Dialect.reader`."""
        return Reader(request, target, emit)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, target: Target
    ) -> Failure:
        """See `Dialect.failure`."""
        return anthropic_errors.failure(status, headers, body, target)

    def models_call(self, access: Access) -> HttpCall:
        """See `Dialect.models_call`. One page holds more models than there are."""
        return HttpCall(_url(access, "models") + "?limit=1000", _headers(access, None, ()), {})

    def models(self, body: bytes) -> tuple[str, ...]:
        """See `Dialect.models`."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, list):
            raise Failure(Kind.MALFORMED, "The answer of the provider is not a list of models.")
        ids = (item.get("id") for item in data if isinstance(item, dict))
        return tuple(name for name in ids if isinstance(name, str) and name)


DIALECT: Final = Anthropic()


def _url(access: Access, last: str) -> str:
    base = re.sub(r"(?:/v1)?(?:/messages)?/*$", "", access.base_url.strip())
    return f"{base or BASE_URL}/v1/{last}"


def _headers(access: Access, target: Target | None, betas: Sequence[str]) -> dict[str, str]:
    headers = {"anthropic-version": VERSION}
    key = access.api_key.removeprefix("Bearer ").strip()
    quirks = target.provider.quirks if target else frozenset[str]()
    signed_in = key.startswith(_SIGNED_IN)
    if key and (signed_in or key != access.api_key.strip() or "bearer" in quirks):
        headers["authorization"] = f"Bearer {key}"
    elif key:
        headers["x-api-key"] = key
    if signed_in:
        betas = ("oauth-2025-04-20", *betas)
    if betas:
        headers["anthropic-beta"] = ",".join(betas)
    return _replaced(headers, access.headers)


def _replaced(headers: dict[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """``over`` counts, whatever the case of its names; beta headers add up."""
    made = dict(headers)
    for name, value in over.items():
        old = made.pop(name.lower(), "")
        if name.lower() == "anthropic-beta" and old and value:
            value = f"{old},{value}"
        made[name] = value
    return made


def _body(request: ModelRequest, target: Target, access: Access) -> tuple[_Json, tuple[str, ...]]:
    """The request's body without what was configured for it, and the beta headers it needs."""
    max_tokens = _limit(request, target)
    asked = thinking(target, max_tokens, betas=_takes_betas(target, access))
    # A summary does without thoughts: it is also the way out for who has some that are refused.
    keeps = asked.keeps and not request.summary
    messages = anthropic_messages.turns(request.messages, target, thoughts=keeps)
    if asked.needs_first and not anthropic_messages.begins_with_a_thought(messages):
        # Half a turn cannot be thought about: the API refuses it. The next turn can again.
        asked = Thinking(keeps=False)
        messages = anthropic_messages.turns(request.messages, target, thoughts=False)
    marks = "no_cache" not in target.provider.quirks
    body: _Json = {"model": target.info.model, "max_tokens": max_tokens, "stream": True}
    system = _system(request, target, marks=marks)
    if system:
        body["system"] = system
    body |= _tools(request.tools, anthropic_messages.called_tools(messages), marks=marks)
    body["messages"] = messages
    body["max_tokens"] = _room(body, max_tokens, asked, target)
    if marks:
        anthropic_messages.mark_cached(messages)
    body |= asked.body
    if not asked.is_on:
        body |= _sampling(target)
    return body, asked.betas


def _limit(request: ModelRequest, target: Target) -> int:
    """How long the answer may be in tokens; the API wants to be told, whatever is known."""
    if not target.info.max_output_tokens:
        model = claude(target.info.model)
        is_new = model is not None and model.version >= (4, 0)
        usual = limits.ANSWER_TOKENS_CLAUDE if is_new else limits.ANSWER_TOKENS_DEFAULT
        target = attrs.evolve(target, info=attrs.evolve(target.info, max_output_tokens=usual))
    return output_tokens(request, target) or limits.ANSWER_TOKENS_DEFAULT


def _takes_betas(target: Target, access: Access) -> bool:
    """Beta fields are Anthropic's own; a gateway before it has its provider's id."""
    if "no_betas" in target.provider.quirks:
        return False
    host = urlsplit(access.base_url).hostname or ""
    return target.provider.id == "anthropic" or host.endswith((".anthropic.com", ".claude.com"))


def _system(request: ModelRequest, target: Target, *, marks: bool) -> list[_Json]:
    texts = (target.provider.system_prompt_prefix, request.system)
    blocks: list[_Json] = [{"type": "text", "text": text} for text in texts if text.strip()]
    if blocks and marks:
        blocks[-1]["cache_control"] = _CACHED
    return blocks


def _tools(tools: Sequence[ToolSpec], called: Sequence[str], *, marks: bool) -> _Json:
    """What may be called. Where a history of calls is sent, tools must be named, too."""
    made: list[_Json] = [
        {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
        for tool in tools
    ]
    if made:
        if marks:
            made[-1]["cache_control"] = _CACHED
        return {"tools": made}
    if not called:
        return {}
    past = [
        {"name": name, "description": "Not available.", "input_schema": {"type": "object"}}
        for name in called
    ]
    return {"tools": past, "tool_choice": {"type": "none"}}


def _room(body: _Json, max_tokens: int, asked: Thinking, target: Target) -> int:
    """So many output tokens that prompt and answer fit the window; older models refuse more."""
    window = target.info.context_window
    if not window or max_tokens <= limits.ANSWER_TOKENS_MIN:
        return max_tokens
    parts = [body.get(key) for key in ("system", "tools", "messages")]
    left = window - anthropic_messages.characters(parts) // (limits.CHARS_PER_TOKEN - 1)
    least = limits.ANSWER_TOKENS_MIN
    if "budget_tokens" in asked.body.get("thinking", {}):
        least += asked.body["thinking"]["budget_tokens"]
    return min(max_tokens, max(left, least))


def _sampling(target: Target) -> _Json:
    choice, model = target.choice, claude(target.info.model)
    if model is not None and not model.samples:
        return {}
    wanted = {"temperature": choice.temperature, "top_p": choice.top_p, "top_k": choice.top_k}
    if model is not None and choice.temperature is not None:
        del wanted["top_p"]  # newer ones refuse both together
    return {name: value for name, value in wanted.items() if value is not None}
