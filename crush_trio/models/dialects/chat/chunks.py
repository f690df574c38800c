"""What stands in the chunks of a Chat Completions stream, whoever wrote them; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import orjson

from crush_trio.models.dialects.chat.call_pieces import Broken
from crush_trio.protocol.runs import Usage

_DECODER: Final = json.JSONDecoder()
_TOKENS_MAX: Final = 2**53  # a larger count is a mistake
REASONS: Final = {
    "stop": "end_turn",
    "eos": "end_turn",
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",  # Mistral
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # GLM
}
"""Finish reasons of servers, and ours; another one is ``unknown``."""

FAILED: Final = {
    "error": "the provider ended the answer with an error",  # OpenRouter
    "network_error": "the provider ended the answer with a network error",  # GLM
    "insufficient_system_resource": "the server is busy",  # DeepSeek
    "abort": "the server gave the answer up",  # vLLM, SGLang
}
"""Finish reasons that are failures, and what they mean."""


def objects(data: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in an event's data: one as a rule, several after each other, or a list.

    Raises:
        Broken: It is not JSON, or something else than objects.
    """
    for value in _values(data):
        for item in value if type(value) is list else [value]:
            if type(item) is dict:
                yield item
            elif item is not None:
                raise Broken("data that is no object")


def _values(data: str) -> Iterator[Any]:
    try:
        yield orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    else:
        return
    text = data.strip()
    while text.startswith("data:"):  # wrapped twice by a proxy
        text = text.removeprefix("data:").strip()
    while text and text != "[DONE]":
        try:  # also takes halves of characters, which the fast reader refuses
            value, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            raise Broken("data that is not JSON") from None
        yield value
        text = text[end:].lstrip().removeprefix("data:").lstrip()


def error_in(value: dict[str, Any]) -> Any:
    """The error that an object of the stream reports; ``None`` if it reports none."""
    error = value.get("error")
    if error:
        return error
    if value.get("object") == "error" or value.get("type") == "error":
        return value
    base = value.get("base_resp")  # MiniMax
    if type(base) is dict and base.get("status_code"):
        return {"code": base.get("status_code"), "message": base.get("status_msg")}
    if value.get("choices") is None:
        if value.get("detail"):
            return value
        if type(value.get("message")) is str and value.get("code") is not None:
            return value
    return None


def first_choice(value: dict[str, Any]) -> dict[str, Any] | None:
    """The choice that is read: the first; ``None`` if the chunk has none.

    Raises:
        Broken: What should be choices is something else.
    """
    choices = value.get("choices")
    if not choices:
        return None
    if type(choices) is not list:
        raise Broken("choices that are no list")
    choice = choices[0]
    if choice is None:
        return None
    if type(choice) is not dict:
        raise Broken("a choice that is no object")
    return choice if choice.get("index") in (None, 0, "0") else None


def delta_of(choice: dict[str, Any]) -> dict[str, Any]:
    """What a choice adds: its delta, or its message, of an answer in one piece.

    Raises:
        Broken: It is no object.
    """
    delta = choice.get("delta") or choice.get("message")
    if delta is None:
        text = choice.get("text")  # the older completions
        return {"content": text} if type(text) is str else {}
    if not delta:
        return {}
    if type(delta) is not dict:
        raise Broken("a delta that is no object")
    return delta


def content_of(content: Any) -> Iterator[tuple[bool, str]]:
    """The texts in a delta's content: whether each is a thought, and itself.

    Raises:
        Broken: It is neither text nor a list of parts.
    """
    if content is None:
        return
    if type(content) is str:
        yield False, content
        return
    if type(content) not in (list, dict):
        raise Broken("content that is neither text nor parts")
    for part in content if type(content) is list else [content]:
        if type(part) is str:
            yield False, part
        elif type(part) is dict:
            thought = part.get("thinking")
            if thought is not None:  # Mistral
                yield from ((True, text) for _, text in content_of(thought))
            elif type(part.get("text")) is str:
                yield False, part["text"]


def reasoning_of(delta: dict[str, Any]) -> str:
    """What a delta adds to the thoughts. Some servers send it by two names; it counts once."""
    for key in ("reasoning_content", "reasoning", "reasoning_text", "thinking"):
        text = _words(delta.get(key))
        if text:
            return text
    details = delta.get("reasoning_details")
    return "".join(map(_words, details)) if type(details) is list else ""


def _words(value: Any) -> str:
    if type(value) is dict:
        value = next((v for k in ("text", "summary", "content") if (v := value.get(k))), None)
    return value if type(value) is str else ""


def usage_of(value: dict[str, Any]) -> Usage | None:
    """The tokens that a chunk reports; ``None`` if it reports none, or only zeros."""
    usage, timings = value.get("usage"), value.get("timings")
    if type(usage) is not dict:
        xgroq = value.get("x_groq")
        usage = xgroq.get("usage") if type(xgroq) is dict else None
    if type(usage) is dict:
        prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        details = usage.get("prompt_tokens_details")
        details = details if type(details) is dict else {}
        read = _count(details, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens")
        read = min(read or _count(usage, "cached_tokens"), prompt)
        written = min(_count(details, "cache_write_tokens"), prompt - read)
        # xAI and Gemini leave thoughts out of the answer's tokens, but not out of the total.
        answer = max(answer, _count(usage, "total_tokens") - prompt)
        counted = Usage(prompt - read - written, answer, read, written)
    elif type(timings) is dict:  # llama.cpp
        counted = Usage(
            _count(timings, "prompt_n"), _count(timings, "predicted_n"), _count(timings, "cache_n")
        )
    else:
        return None
    return None if counted == Usage() else counted


def cost_of(value: dict[str, Any]) -> float | None:
    """What OpenRouter says the request cost, in US dollars; ``None`` if it does not say."""
    usage = value.get("usage")
    if type(usage) is not dict:
        return None
    cost = _amount(usage.get("cost"))
    if cost is not None and usage.get("is_byok") is True:
        details = usage.get("cost_details")  # the own key's bill comes from somebody else
        upstream = details.get("upstream_inference_cost") if type(details) is dict else None
        cost += _amount(upstream) or 0.0
    return cost


def _amount(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value < 1e9 or math.isnan(value):
        return None
    return float(value)


def _count(value: dict[str, Any], key: str) -> int:
    found = value.get(key)
    if type(found) is float and found.is_integer():
        found = int(found)
    return found if type(found) is int and 0 <= found <= _TOKENS_MAX else 0
