"""What went wrong at Gemini: from a status, headers and a body to a class and a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import orjson

from crush_trio.models.dialects.said import Said, retry_after_s, said, said_in
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Target

_BAD_KEY = frozenset(
    [
        "api_key_invalid",
        "api_key_expired",
        "api_key_service_blocked",
        "api_key_http_referrer_blocked",
        "api_key_ip_address_blocked",
        "api_key_android_app_blocked",
        "api_key_ios_app_blocked",
        "service_disabled",
        "consumer_invalid",
        "consumer_suspended",
        "access_token_expired",
        "access_token_scope_insufficient",
        "credentials_missing",
    ]
)
_NO_CREDIT = re.compile(r"prepa(?:y|id)|credit|deplet|spend|enable billing|limit: 0\b")
_TOO_LONG = re.compile(
    r"exceeds? the maximum number of tokens|token count.{0,40}exceed|context is too long"
    r"|payload size exceeds|exceeds the (?:context|token) (?:window|limit)"
)
_NO_TOOLS = re.compile(r"(?:function calling|tool use|tools?) (?:is|are) not (?:enabled|supported)")
_KINDS = {
    "unauthenticated": Kind.AUTH,
    "permission_denied": Kind.AUTH,
    "not_found": Kind.NO_MODEL,
    "unavailable": Kind.OVERLOAD,
    "internal": Kind.SERVER,
    "unknown": Kind.SERVER,
    "data_loss": Kind.SERVER,
    "aborted": Kind.SERVER,
    "cancelled": Kind.SERVER,
    "deadline_exceeded": Kind.SERVER,
    "invalid_argument": Kind.REFUSED,
    "failed_precondition": Kind.REFUSED,
    "out_of_range": Kind.REFUSED,
    "unimplemented": Kind.REFUSED,
}
_STATUSES = {
    400: Kind.REFUSED,
    401: Kind.AUTH,
    403: Kind.AUTH,
    404: Kind.NO_MODEL,
    405: Kind.URL,
    407: Kind.PROXY,
    408: Kind.SERVER,
    409: Kind.SERVER,
    413: Kind.TOO_LONG,
    499: Kind.SERVER,
    503: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}
_FACTS = {
    Kind.AUTH: "{name} did not accept the API key for {model}{said}; check {key}",
    Kind.QUOTA: "The quota for {model} at {name} is used up{said}; wait for the next day, "
    "enable billing or choose another model",
    Kind.RATE_LIMIT: "{name} allows no more requests to {model} at the moment{said}; "
    "try again in a minute",
    Kind.OVERLOAD: "{name} is overloaded, {model} does not answer now{said}; try again later",
    Kind.SERVER: "{name} failed to answer with {model}{said}; try again",
    Kind.NO_MODEL: "{name} has no model {model}{said}; `crush-trio models` lists what there is",
    Kind.TOO_LONG: "The conversation is too long for {model} at {name}{said}; "
    "summarize it or begin a new session",
    Kind.NO_TOOLS: "{model} at {name} cannot call tools{said}; choose another model",
    Kind.URL: "What answers at the address of {name} is no Gemini API for {model}{said}; "
    "check base_url of {id}",
    Kind.PROXY: "A proxy on the way to {name} wants to know who asks for {model}{said}; "
    "check HTTPS_PROXY",
    Kind.TRUNCATED: "The answer of {model} at {name} broke off{said}; try again",
    Kind.MALFORMED: "{model} at {name} gave an answer that makes no sense{said}; try again",
    Kind.EMPTY: "{model} at {name} gave an empty answer{said}; ask again, in other words",
    Kind.FILTERED: "{name} holds back what {model} would answer, because of its content{said}; "
    "ask in other words",
    Kind.REFUSED: "{name} refused the request to {model}{said}; check the options of {id}",
}


@attrs.frozen
class _Details:
    """The machine-readable rest of a Google error; everything in lower case."""

    reasons: frozenset[str] = frozenset()
    quotas: str = ""
    delay_s: float | None = None


def failure(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> Failure:
    """What an answer with an error status means."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _failure(status, headers, said(body), _Details(), target)
    return _failure(status, headers, said_in(value), _details(value), target)


def failure_in(value: Any, target: Target) -> Failure:
    """What an error object inside an answer means."""
    words = said_in(value)
    return _failure(words.status or 500, {}, words, _details(value), target)


def _failure(
    status: int, headers: Mapping[str, str], words: Said, details: _Details, target: Target
) -> Failure:
    kind = _kind(status, words, details)
    if kind in (Kind.RATE_LIMIT, Kind.OVERLOAD, Kind.SERVER):
        wait_s = details.delay_s
        if wait_s is None:
            wait_s = retry_after_s(headers, words.message)
    else:
        wait_s = None
    return Failure(kind, sentence(kind, words.quoted() or f"status {status}", target), wait_s)


def sentence(kind: Kind, quoted: str, target: Target) -> str:
    """What happened and what to do, around what the provider said."""
    provider = target.provider
    said_part = f" ({quoted.rstrip('. ')})" if quoted else ""
    fact = _FACTS.get(kind, _FACTS[Kind.REFUSED])
    model, name = target.info.model, provider.name or provider.id
    key = f"api_key of provider {provider.id} in the configuration"
    if provider.id in ("google", "gemini"):
        key = f"GEMINI_API_KEY, or {key}"
    return fact.format(name=name, id=provider.id, key=key, model=model, said=said_part) + "."


def _kind(status: int, words: Said, details: _Details) -> Kind:
    text = words.message.lower()
    if _TOO_LONG.search(text):
        return Kind.TOO_LONG
    if details.reasons & _BAD_KEY or re.search(r"api[ _]key (?:not valid|expired|not found)", text):
        return Kind.AUTH
    if "billing_disabled" in details.reasons:
        return Kind.QUOTA
    if status == 429 or "resource_exhausted" in words.codes:
        return _exhausted(text, details)
    if _NO_TOOLS.search(text):
        return Kind.NO_TOOLS
    if "failed_precondition" in words.codes and "billing" in text:
        return Kind.QUOTA
    named = [_KINDS[code] for code in sorted(words.codes) if code in _KINDS]
    if named:
        return named[0]
    if status < 400 or (status == 404 and "model" not in text):
        return Kind.URL  # no Google API says 404 without a name for it
    if status == 403 and words.is_page:
        return Kind.REFUSED  # something on the way
    return _STATUSES.get(status, Kind.SERVER if status >= 500 else Kind.REFUSED)


def _exhausted(text: str, details: _Details) -> Kind:
    """Whether waiting a minute helps.

    The words alone do not tell: a limit per minute, too, says to check the billing details.
    """
    if re.search(r"per ?_?day|daily", details.quotas) or _NO_CREDIT.search(text):
        return Kind.QUOTA
    if "quota_exhausted" in details.reasons:
        return Kind.QUOTA
    if details.delay_s is not None or "minute" in details.quotas:
        return Kind.RATE_LIMIT
    sticky = "exceeded your current quota" in text and "retry in" not in text
    return Kind.QUOTA if sticky else Kind.RATE_LIMIT


def _details(value: Any) -> _Details:
    reasons: set[str] = set()
    quotas: list[str] = []
    delay_s: float | None = None
    for detail in _detail_objects(value, 0):
        reason = detail.get("reason")
        if isinstance(reason, str):
            reasons.add(reason.lower())
        violations = detail.get("violations")
        for violation in violations[:20] if isinstance(violations, list) else ():
            if isinstance(violation, dict):
                quotas += [str(violation.get(key, "")) for key in ("quotaId", "description")]
        if "retryDelay" in detail:
            delay_s = _seconds(detail["retryDelay"])
    return _Details(frozenset(reasons), " ".join(quotas).lower(), delay_s)


def _detail_objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth > 5:
        return
    if isinstance(value, list):
        for item in value[:20]:
            yield from _detail_objects(item, depth + 1)
    elif isinstance(value, dict):
        yield value
        for key in ("error", "details"):
            yield from _detail_objects(value.get(key), depth + 1)
        message = value.get("message")
        if isinstance(message, str) and message.lstrip().startswith("{"):  # a gateway quotes it
            try:
                yield from _detail_objects(orjson.loads(message), depth + 1)
            except orjson.JSONDecodeError:
                return


def _seconds(delay: Any) -> float | None:
    """A protobuf duration: ``"34.07s"``, or an object of seconds and nanoseconds."""
    if isinstance(delay, dict):
        delay = f"{delay.get('seconds', 0)}s"
    found = (
        re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s)", delay) if isinstance(delay, str) else None
    )
    if found is None:
        return None
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
