"""OpenAI's Chat Completions, and what calls itself compatible with them.

A provider's quirks (`Provider.quirks`) say how it differs:

- ``openai``: the official interface. Reasoning models get ``max_completion_tokens``; PDFs go along.
- ``azure``: Azure OpenAI. The key goes as ``api-key``. A base URL that ends in ``/openai/v1`` is
  its newer surface; otherwise the model is a deployment, at
  ``…/openai/deployments/{model}/chat/completions?api-version=…``. The version is in the base URL's
  query, or the quirk ``api-version=…``, or `_AZURE_VERSION`. Reasoning models as with ``openai``.
- ``openrouter``: names this project, asks for the cost of each request (`StepEnd.cost_usd`), takes
  the effort as ``reasoning``, and gets ``reasoning_details`` back.
- ``max_completion_tokens``: the limit of the answer has this name for each model.
- ``no_stream_options``: refuses ``stream_options``, so its usage is unknown.
- ``system_as_user``: has no system role; the system prompt is the beginning of the first prompt.
- ``send_reasoning``: wants its own ``reasoning_content`` back (DeepSeek, Kimi and MiniMax when a
  thinking model calls tools).
- ``mistral``: call ids of nine letters and digits; pictures inside of tool results.
- ``text_tools``: tool calls that the model writes as text are taken for calls, as they always are
  for a local provider; see `tool_text`.

What a stream may look like beyond the specification, the reader knows without being told; see
`reader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from crush_trio.agent.ports import Emit, ModelRequest, ToolSpec
from crush_trio.models.dialects import openai_errors
from crush_trio.models.dialects.bodies import output_tokens, system_text, with_extras
from crush_trio.models.dialects.chat.messages import chat_messages
from crush_trio.models.dialects.chat.reader import ChatReader
from crush_trio.models.dialects.port import AnswerReader, HttpCall
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access, Choice, Target

_PATH = "/chat/completions"
_PROJECT = "crush-trio"
_AZURE_VERSION = "2024-10-21"  # the newest dated one that is not a preview
_AZURE_HOST = re.compile(r"https?://[^/?]*\.azure\.com(?::\d+)?(?=[/?]|$)", re.IGNORECASE)
_REASONERS = re.compile(r"(?:^|/)(?:o[1-9]|gpt-(?:[5-9]|\d\d)|codex)", re.IGNORECASE)
_PLAIN: Final = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty")


class OpenAIChat:
    """The dialect; it has no state."""

    def call(self, request: ModelRequest, target: Target, access: Access) -> HttpCall:
        """The request for one step."""
        quirks, choice = target.provider.quirks, target.choice
        body: dict[str, Any] = {
            "model": target.info.model,
            "messages": chat_messages(system_text(request, target), request.messages, target),
            "stream": True,
        }
        if "no_stream_options" not in quirks:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = _tools(request.tools)
        limit = output_tokens(request, target)
        if limit is not None:
            body[_limit_name(target)] = limit
        body |= {name: v for name in _PLAIN if (v := getattr(choice, name)) is not None}
        body |= _thinking(choice, target)
        if "openrouter" in quirks:
            body["usage"] = {"include": True}
        url = _url(access.base_url, _PATH, target)
        return HttpCall(url, _headers(access, quirks), with_extras(body, target))

    def reader(self, request: ModelRequest, target: Target, emit: Emit) -> AnswerReader:
        """What reads the answer to one such call for ``request``."""
        return ChatReader(request, target, emit)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, target: Target
    ) -> Failure:
        """What an answer with an error status means; see `openai_errors`."""
        return openai_errors.failure(status, headers, body, target)

    def models_call(self, access: Access) -> HttpCall:
        """The GET request that lists the models.

        It knows no quirks, so it shows the key in Azure's way, too, where the address is Azure's.
        """
        base_url, azure = access.base_url, _AZURE_HOST.match(access.base_url)
        if azure and "/openai/v1" not in base_url:
            base_url = f"{azure[0]}/openai/v1"  # the surface that lists models without a version
        headers = _headers(access, frozenset({"azure"} if azure else ()))
        headers["accept"] = "application/json"
        return HttpCall(_joined(base_url, "/models"), headers, {})

    def models(self, body: bytes) -> tuple[str, ...]:
        """Model ids, in the server's order, each once.

        Raises:
            Failure: It is no list, neither bare nor as ``data`` or ``models``.
        """
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise Failure(Kind.URL, _NO_LIST) from exc
        if type(value) is dict:
            lists = (value[key] for key in ("data", "models") if key in value)
            value = next(([] if found is None else found for found in lists), None)  # Ollama: null
        if type(value) is not list:
            raise Failure(Kind.URL, _NO_LIST)
        names = (_model_name(item) for item in value)
        return tuple(dict.fromkeys(name for name in names if name))


_NO_LIST = "The address does not answer with a list of models: check base_url of the provider."


def _model_name(item: Any) -> str:
    if type(item) is str:
        return item
    if type(item) is not dict:
        return ""
    return next((v for k in ("id", "name", "model") if type(v := item.get(k)) is str and v), "")


def _tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in tools
    ]


def _limit_name(target: Target) -> str:
    quirks = target.provider.quirks
    official = "openai" in quirks or "azure" in quirks
    reasons = target.info.can_reason or _REASONERS.search(target.info.model) is not None
    if "max_completion_tokens" in quirks or (official and reasons):
        return "max_completion_tokens"
    return "max_tokens"


def _thinking(choice: Choice, target: Target) -> dict[str, Any]:
    """Whether and how hard to think, where the choice says so."""
    effort, think = choice.reasoning_effort, choice.think
    if "openrouter" in target.provider.quirks:
        if effort:
            return {"reasoning": {"effort": effort}}
        return {} if think is None else {"reasoning": {"enabled": think}}
    said: dict[str, Any] = {"reasoning_effort": effort} if effort else {}
    if think is not None and target.provider.is_local:
        said["chat_template_kwargs"] = {"enable_thinking": think}  # llama.cpp, vLLM, SGLang
    return said


def _headers(access: Access, quirks: frozenset[str]) -> dict[str, str]:
    """Keys in lower case, so that what is configured replaces what we would send."""
    made = {"content-type": "application/json", "accept": "text/event-stream"}
    if access.api_key:
        if "azure" in quirks:
            made["api-key"] = access.api_key
        else:
            made["authorization"] = f"Bearer {access.api_key}"
    if "openrouter" in quirks:
        made["x-title"] = _PROJECT
    return made | {name.lower(): value for name, value in access.headers.items()}


def _url(base_url: str, path: str, target: Target) -> str:
    quirks = target.provider.quirks
    plain, _, query = base_url.partition("?")
    plain = plain.rstrip("/")
    if "azure" not in quirks or plain.endswith(("/v1", path)):
        return _joined(base_url, path)
    if "/deployments/" not in plain:
        plain = plain.removesuffix("/openai")
        plain += f"/openai/deployments/{quote(target.info.model, safe='')}"
    if "api-version=" not in query:
        stated = [quirk for quirk in quirks if quirk.startswith("api-version=")]
        version = min(stated, default=f"api-version={_AZURE_VERSION}")
        query = f"{query}&{version}" if query else version
    return _joined(f"{plain}?{query}", path)


def _joined(base_url: str, path: str) -> str:
    """The address of ``path`` below a base URL, which may end in a slash, the path, or a query."""
    plain, question, query = base_url.partition("?")
    plain = plain.rstrip("/").removesuffix(_PATH)
    return f"{plain}{path}{question}{query}"


DIALECT: Final = OpenAIChat()
