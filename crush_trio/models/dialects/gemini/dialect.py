"""Google Gemini: ``streamGenerateContent`` with server-sent events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import orjson

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelRequest
from crush_trio.models.dialects.bodies import output_tokens, system_text, with_extras
from crush_trio.models.dialects.gemini import errors as gemini_errors
from crush_trio.models.dialects.gemini.messages import contents, generation
from crush_trio.models.dialects.gemini.reader import GeminiReader
from crush_trio.models.dialects.gemini.schema import parameters
from crush_trio.models.dialects.port import AnswerReader, HttpCall
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access, Target

_Json = dict[str, Any]
_VERSION = "/v1beta"
"""The version of the API that this speaks; for an address that names none."""
_NAMES_VERSION = re.compile(r"/v\d\w*$|/publishers/")
"""The end of such a path, or Vertex's; any other is a gateway's, to which Google's SDKs add it."""


class Gemini:
    """The dialect ``gemini``."""

    def call(self, request: ModelRequest, target: Target, access: Access) -> HttpCall:
        """See `Dialect.call`."""
        body: _Json = {"contents": contents(request.messages, target)}
        system = system_text(request, target)
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        if request.tools:
            declarations = [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parametersJsonSchema": parameters(tool.parameters),
                }
                for tool in request.tools
            ]
            body["tools"] = [{"functionDeclarations": declarations}]
        config = _generation_config(request, target)
        if config:
            body["generationConfig"] = config
        url = f"{_base(access)}/{_path(target.info.model)}:streamGenerateContent?alt=sse"
        return HttpCall(url, _headers(access), with_extras(body, _with_options(target)))

    def reader(self, request: ModelRequest, target: Target, emit: Emit) -> AnswerReader:
        """See `Dialect.reader`."""
        return GeminiReader(request, target, emit)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, target: Target
    ) -> Failure:
        """See `Dialect.failure`."""
        return gemini_errors.failure(status, headers, body, target)

    def models_call(self, access: Access) -> HttpCall:
        """See `Dialect.models_call`; one page holds more models than there are."""
        return HttpCall(f"{_base(access)}/models?pageSize=1000", _headers(access), {})

    def models(self, body: bytes) -> tuple[str, ...]:
        """See `Dialect.models`; only those that generate content, where the list tells."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        listed = value.get("models") if type(value) is dict else None
        if type(listed) is not list:
            raise Failure(Kind.URL, _NO_LIST)
        return tuple(
            item["name"].removeprefix("models/")
            for item in listed
            if type(item) is dict and type(item.get("name")) is str and _generates(item)
        )


_NO_LIST = "The address does not answer with a list of Gemini models: check base_url."


def _generates(item: _Json) -> bool:
    methods = item.get("supportedGenerationMethods")
    return type(methods) is not list or "generateContent" in methods


def _base(access: Access) -> str:
    base = access.base_url.rstrip("/")
    return base if _NAMES_VERSION.search(urlsplit(base).path) else base + _VERSION


def _path(model: str) -> str:
    named = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    return quote(named, safe="/@.-_")


def _headers(access: Access) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    if access.api_key:
        headers["x-goog-api-key"] = access.api_key
    return headers | {name.lower(): value for name, value in access.headers.items()}


def _generation_config(request: ModelRequest, target: Target) -> _Json:
    choice = target.choice
    config = {
        "temperature": choice.temperature,
        "topP": choice.top_p,
        "topK": choice.top_k,
        "frequencyPenalty": choice.frequency_penalty,
        "presencePenalty": choice.presence_penalty,
        "maxOutputTokens": output_tokens(request, target),
        "thinkingConfig": _thinking(target) if target.info.can_reason else None,
    }
    return {key: value for key, value in config.items() if value is not None}


def _with_options(target: Target) -> Target:
    """The target with its ``thinking_config`` where Gemini looks for it, and as it writes it.

    A crush.json has it among the options, in snake case.
    """
    options = dict(target.choice.options)
    given = options.pop("thinking_config", None)
    if not isinstance(given, Mapping):
        return target
    config = {re.sub(r"_(\w)", lambda m: m[1].upper(), key): given[key] for key in given}
    rest = options.get("generationConfig", {})
    options["generationConfig"] = {"thinkingConfig": config, **rest}
    return attrs.evolve(target, choice=attrs.evolve(target.choice, options=options))


def _thinking(target: Target) -> _Json:
    """How much it thinks: Gemini 3 takes a level, 2.5 a budget; without one it decides itself."""
    info = target.info
    effort = target.choice.reasoning_effort or info.default_reasoning_effort
    if target.choice.think is False:
        effort = "none"
    config: _Json = {"includeThoughts": True}
    if "thinking_config" in target.choice.options:
        return config  # says how much by itself; both are refused
    if generation(info.model) >= 3:
        levels = info.reasoning_levels or tuple(limits.GEMINI_BUDGETS)
        if effort == "none":  # it cannot do without: the least it takes
            effort = next((level for level in levels if level != "none"), "low")
        if effort:
            config["thinkingLevel"] = effort.upper()
    elif effort == "none":
        least = limits.GEMINI_BUDGET_PRO if "pro" in info.model else 0
        config = {"includeThoughts": False, "thinkingBudget": least}
    elif effort:
        highest = limits.GEMINI_BUDGETS["high"]
        config["thinkingBudget"] = limits.GEMINI_BUDGETS.get(effort, highest)
    return config


DIALECT = Gemini()
