"""OpenAI's Responses API, stateless: ``store`` is false, what it thought goes back encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelRequest
from crush_trio.models.call_ids import session_mark
from crush_trio.models.dialects import dialect, openai_errors
from crush_trio.models.dialects.bodies import output_tokens, system_text, with_extras
from crush_trio.models.dialects.port import AnswerReader, HttpCall
from crush_trio.models.dialects.responses.input_items import items
from crush_trio.models.dialects.responses.reader import ResponsesReader
from crush_trio.models.failures import Failure
from crush_trio.models.provider import Access, Target

_Json = dict[str, Any]
_PATH = "/responses"


class OpenAIResponses:
    """The dialect ``openai-responses``.

    Quirks: ``azure`` sends the key as ``api-key``, and leads to ``/openai/v1`` of a resource;
    ``no_reasoning_summary`` asks for no summary of what the model thinks, because OpenAI gives
    none to an organization that has not shown who it is.
    """

    def call(self, request: ModelRequest, target: Target, access: Access) -> HttpCall:
        """See `Dialect.call`."""
        info, choice = target.info, target.choice
        tokens = output_tokens(request, target)
        if tokens is not None:
            tokens = max(tokens, limits.RESPONSES_OUTPUT_TOKENS_MIN)
        body: _Json = {
            "model": info.model,
            "input": items(request.messages, target),
            "stream": True,
            "store": False,
            "instructions": system_text(request, target) or None,
            "tools": [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    "strict": False,
                }
                for tool in request.tools
            ]
            or None,
            "max_output_tokens": tokens,
            "temperature": choice.temperature,
            "top_p": choice.top_p,
            "prompt_cache_key": session_mark(request.session_id),
        }
        if info.can_reason:
            body["reasoning"] = _reasoning(target)
            body["include"] = ["reasoning.encrypted_content"]
        body = {key: value for key, value in body.items() if value is not None}
        return HttpCall(
            _url(access, target), _headers(access, target), with_extras(body, _with_options(target))
        )

    def reader(self, request: ModelRequest, target: Target, emit: Emit) -> AnswerReader:
        """See `Dialect.reader`."""
        return ResponsesReader(request, target, emit)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, target: Target
    ) -> Failure:
        """See `Dialect.failure`."""
        return openai_errors.failure(status, headers, body, target)

    def models_call(self, access: Access) -> HttpCall:
        """See `Dialect.models_call`; the list is the same as for Chat Completions."""
        return dialect("openai-chat").models_call(access)

    def models(self, body: bytes) -> tuple[str, ...]:
        """See `Dialect.models`."""
        return dialect("openai-chat").models(body)


def _url(access: Access, target: Target) -> str:
    plain, question, query = access.base_url.partition("?")
    plain = plain.rstrip("/").removesuffix(_PATH)
    if "azure" in target.provider.quirks and not plain.endswith("/v1"):
        plain = plain.removesuffix("/openai") + "/openai/v1"
    return f"{plain}{_PATH}{question}{query}"


def _headers(access: Access, target: Target) -> dict[str, str]:
    made = {"content-type": "application/json", "accept": "text/event-stream"}
    if access.api_key:
        if "azure" in target.provider.quirks:
            made["api-key"] = access.api_key
        else:
            made["authorization"] = f"Bearer {access.api_key}"
    return made | {name.lower(): value for name, value in access.headers.items()}


_NESTED = {
    "reasoning_effort": ("reasoning", "effort"),
    "reasoning_summary": ("reasoning", "summary"),
    "text_verbosity": ("text", "verbosity"),
}
"""Options that a crush.json has at the top, and where the API wants them."""


def _with_options(target: Target) -> Target:
    options = dict(target.choice.options)
    for name, (outer, inner) in _NESTED.items():
        if name in options:
            held = options.get(outer)
            held = held if isinstance(held, Mapping) else {}
            options[outer] = {inner: options.pop(name), **held}
    return attrs.evolve(target, choice=attrs.evolve(target.choice, options=options))


def _reasoning(target: Target) -> _Json:
    effort = target.choice.reasoning_effort or target.info.default_reasoning_effort
    if target.choice.think is False:
        levels = target.info.reasoning_levels
        effort = levels[0] if levels and "none" not in levels else "none"
    summary = None if "no_reasoning_summary" in target.provider.quirks else "auto"
    asked = {"effort": effort or None, "summary": summary}
    return {key: value for key, value in asked.items() if value is not None}


DIALECT = OpenAIResponses()
