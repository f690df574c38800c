"""The codes and wordings by which OpenAI-compatible servers name an error, and what each means.

From their documentation, their sources, and reports of their users. In `WORDS` the first match
counts.
"""

from __future__ import annotations

import re
from typing import Final

from crush_trio.models.failures import Kind

CODES: Final[dict[str, Kind]] = {
    "insufficient_quota": Kind.QUOTA,
    "insufficient_credits": Kind.QUOTA,
    "insufficient_balance": Kind.QUOTA,
    "billing_hard_limit_reached": Kind.QUOTA,
    "billing_not_active": Kind.QUOTA,
    "credits_exhausted": Kind.QUOTA,
    "exceeded_current_quota_error": Kind.QUOTA,  # Moonshot
    "invalid_api_key": Kind.AUTH,
    "authentication_error": Kind.AUTH,
    "invalid_authentication_error": Kind.AUTH,
    "context_length_exceeded": Kind.TOO_LONG,
    "exceed_context_size_error": Kind.TOO_LONG,  # llama.cpp
    "model_max_prompt_tokens_exceeded": Kind.TOO_LONG,  # GitHub Models
    "string_above_max_length": Kind.TOO_LONG,
    "request_too_large": Kind.TOO_LONG,
    "content_filter": Kind.FILTERED,
    "content_policy_violation": Kind.FILTERED,
    "responsibleaipolicyviolation": Kind.FILTERED,  # Azure
    "data_inspection_failed": Kind.FILTERED,  # DashScope
    "moderation_blocked": Kind.FILTERED,
    "model_not_found": Kind.NO_MODEL,
    "model_not_available": Kind.NO_MODEL,  # Together
    "model_decommissioned": Kind.NO_MODEL,  # Groq
    "deploymentnotfound": Kind.NO_MODEL,  # Azure
    "invalid_model": Kind.NO_MODEL,  # Mistral
    "tool_use_failed": Kind.MALFORMED,  # Groq: the model wrote a call that could not be read
    "rate_limit_exceeded": Kind.RATE_LIMIT,
    "rate_limit_error": Kind.RATE_LIMIT,
    "rate_limit_reached_error": Kind.RATE_LIMIT,  # Moonshot
    "resource_exhausted": Kind.RATE_LIMIT,
    "engine_overloaded": Kind.OVERLOAD,
    "engine_overloaded_error": Kind.OVERLOAD,
    "overloaded_error": Kind.OVERLOAD,
    "server_is_overloaded": Kind.OVERLOAD,
    "slow_down": Kind.OVERLOAD,
    "unavailable_error": Kind.OVERLOAD,  # llama.cpp: it is still loading the model
}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


WORDS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    (
        Kind.NO_TOOLS,
        _words(
            r"does not support (?:tools|tool[- ]?(?:use|calling|choice)|function[- ]?calling)",
            r"does not support parameters: [^.]{0,40}\btools\b",  # LiteLLM
            r"support tool use",  # OpenRouter: no endpoints found that …
            r"--enable-auto-tool-choice",  # vLLM
            r"tools param requires --jinja",  # llama.cpp
            r"(?:tools?|tool[- ]calling|function[- ]calling)[`'\"]* (?:is|are) not "
            r"(?:supported|enabled)",  # Azure, Groq, Mistral
            r"unrecognized request argument supplied: (?:tools|tool_choice)",
        ),
    ),
    (
        Kind.QUOTA,
        _words(
            r"insufficient (?:balance|credits?|quota|funds)",  # DeepSeek, OpenRouter
            r"credit balance is too low",
            r"exceeded your current quota",
            r"requires more credits",  # OpenRouter
            r"(?:used all available credits|monthly spending limit)",  # xAI
            r"(?:billing|payment) (?:hard limit|is not active|required)",
            r"out of credits|(?:weekly|monthly) (?:usage )?(?:limit|quota)",
        ),
    ),
    (
        Kind.TOO_LONG,
        _words(
            r"maximum (?:context|prompt|model) length",  # OpenAI, vLLM, DeepSeek, xAI, OpenRouter
            r"context length (?:is|of) only",  # LM Studio
            r"exceeds? the (?:available )?context (?:size|length|window|limit)",  # llama.cpp
            r"context (?:size|length|window) (?:has been |was )?exceed",  # LM Studio, LiteLLM
            r"reached context length of",  # LM Studio
            r"greater than the context length",  # LM Studio
            r"(?:exceeded|exceeds|longer than)[^.]{0,40}(?:context|model) (?:length|window|limit)",
            r"too large for model with \d+ maximum context",  # Mistral
            r"reduce the length of the (?:messages|prompt|input)",  # Groq, Cerebras
            r"request too large for",  # Groq, OpenAI: more than a minute's allowance at once
            r"prompt (?:is )?too long|prompt exceeds max(?:imum)? length",  # Ollama, GLM
            r"input (?:token count|length)[^.]{0,60}exceeds",  # Gemini, vLLM
            r"exceeded model token limit",  # Moonshot
            r"tokens. \+ .max_new_tokens. must be <=",  # Together, text-generation-inference
            r"range of input length should be",  # DashScope
            r"too many (?:input |prompt )?tokens",
        ),
    ),
    (
        Kind.FILTERED,
        _words(
            r"content[ _-]?(?:policy|filter|management policy|moderation|safety)",
            r"content (?:was )?(?:filtered|blocked|flagged)",
            r"(?:input|prompt|request|response) (?:was|has been) (?:flagged|blocked)",  # OpenRouter
            r"requires moderation",
            r"(?:usage|safety) policy|safety system|inappropriate content|content exists risk",
        ),
    ),
    (
        Kind.NO_MODEL,
        _words(
            r"model[^.]{0,120}(?:not found|(?:does )?not exist|is (?:not available|unavailable))",
            r"not a valid model|invalid model|unknown model|no such model|model_not_found",
            r"no models? (?:is |are )?(?:currently )?loaded",  # LM Studio
            r"no endpoints found for",  # OpenRouter
            r"deployment[^.]{0,60}does not exist",  # Azure
            r"(?:unable|not allowed|no access|have access)[^.]{0,30} model",
            r"model[^.]{0,80}(?:decommissioned|deprecated and|no longer (?:supported|available))",
            r"models?/\S+ is not found",  # Gemini's OpenAI surface
        ),
    ),
    (
        Kind.AUTH,
        _words(
            r"(?:incorrect|invalid|missing|wrong|no|expired) (?:api|access|auth)\W?(?:key|token)",
            r"api key (?:not valid|is (?:invalid|missing|required)|expired)",
            r"(?:invalid|missing) authentication|no auth credentials|unauthorized",
        ),
    ),
    (
        Kind.OVERLOAD,
        _words(r"overload", r"at capacity|over capacity|no capacity", r"server is busy"),
    ),
)
