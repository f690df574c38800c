"""What went wrong at Anthropic or a compatible server: a class, and a sentence for people.

The provider's names for errors count first, then its words (one name stands for many things),
then the status; servers of others say what `openai_errors` knows.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Mapping
from typing import Any, Final

from crush_trio.http.quoting import quotable
from crush_trio.models.dialects import openai_errors
from crush_trio.models.dialects.said import Said, retry_after_s, said, said_in
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Provider, Target

_CODES: Final = {
    "authentication_error": Kind.AUTH,
    "billing_error": Kind.QUOTA,
    "rate_limit_error": Kind.RATE_LIMIT,
    "request_too_large": Kind.TOO_LONG,
    "overloaded_error": Kind.OVERLOAD,
    "timeout_error": Kind.SERVER,
    "api_error": Kind.SERVER,
    "conflict_error": Kind.SERVER,
}
_NO_CREDIT: Final = re.compile(
    r"credit balance is too low|usage limit|spend(?:ing)? limit|usage credits required"
    r"|extra usage is required|long context beta is not yet available"
    r"|(?:weekly|monthly|5-hour|five-hour|session) limit|insufficient (?:credit|balance|quota)",
    re.IGNORECASE,
)
_TOO_LONG: Final = re.compile(
    r"prompt is too long|input length and .?max_tokens.? exceed context limit"
    r"|too many total text bytes|exceeds? the context window|request_too_large"
    r"|request (?:exceeds|size exceeds) the maximum (?:allowed )?(?:size|number of bytes)",
    re.IGNORECASE,
)
_THOUGHTS: Final = re.compile(
    r"signature.{0,20}thinking|thinking.{0,40}blocks? .{0,60}cannot be modified"
    r"|bound to a different conversation|expected .?thinking",
    re.IGNORECASE | re.DOTALL,
)
_BUSY: Final = re.compile(r"^overloaded\b|is overloaded", re.IGNORECASE)
_FACTS: Final = {
    Kind.AUTH: "{name} does not accept the key for {model}: {key_advice}",
    Kind.QUOTA: "The credit or usage limit at {name} is used up for {model}: add to it there, or "
    "wait until it is renewed",
    Kind.RATE_LIMIT: "{name} allows no more requests to {model} for now: wait, or take another "
    "model",
    Kind.OVERLOAD: "{name} is overloaded and does not answer with {model}: try later, or take "
    "another model",
    Kind.SERVER: "{name} had an error while answering with {model}: try again later",
    Kind.NO_MODEL: "{name} has no model {model} for this key: see `crush-trio models`",
    Kind.NO_TOOLS: "{model} cannot call tools as {name} serves it: choose a model that can",
    Kind.TOO_LONG: "The conversation is too long for {model} at {name}: summarize it, or start a "
    "new session",
    Kind.FILTERED: "{name} refused to let {model} answer this: word it otherwise",
    Kind.URL: "What answers at the address of {name} does not offer {model} by the Messages API: "
    "check base_url of provider {id} in the configuration",
    Kind.PROXY: "The proxy on the way to {name} ({model}) wants a login: check HTTPS_PROXY",
    Kind.MALFORMED: "{model} wrote something that {name} could not read: try again",
    Kind.REFUSED: "{name} refuses the request to {model}: check the model's options in the "
    "configuration",
}
_OLD_THOUGHTS: Final = (
    "{name} refuses what {model} has thought earlier: summarize the session, or start a new one"
)


def failure(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> Failure:
    """What an answer with an error status means; keys of ``headers`` are lower case."""
    words = said(body)
    kind = _kind(status, words)
    if kind is Kind.RATE_LIMIT and headers.get("x-should-retry", "").lower() == "false":
        kind = Kind.QUOTA  # a limit that does not pass while somebody waits
    wait_s = None
    if kind in (Kind.RATE_LIMIT, Kind.OVERLOAD, Kind.SERVER, Kind.QUOTA):
        wait_s = retry_after_s(headers, words.message)
        if wait_s is None:
            wait_s = _reset_s(headers)
    return _failure(kind, status, words, wait_s, target)


def failure_in(value: Any, target: Target) -> Failure:
    """What an error event inside a stream means; ``value`` is parsed JSON or plain text."""
    words = said_in(value)
    return _failure(_kind(words.status or None, words), words.status, words, None, target)


def refusal(details: Any, target: Target) -> Failure:
    """The model refused to answer at all; ``details`` is the answer's ``stop_details``."""
    found = details if isinstance(details, dict) else {}
    texts = (found.get("explanation"), found.get("category"))
    words = Said(next((text for text in texts if isinstance(text, str) and text), ""))
    return _failure(Kind.FILTERED, 0, words, None, target)


def too_long(target: Target) -> Failure:
    """The prompt fills the model's window, so that nothing could be answered."""
    return _failure(Kind.TOO_LONG, 0, Said(""), None, target)


def _kind(status: int | None, words: Said) -> Kind:
    if status == 413:  # the edge answers it with a page, the API with JSON
        return Kind.TOO_LONG
    if not words.is_page and status not in (401, 407):
        if _TOO_LONG.search(words.message):
            return Kind.TOO_LONG
        if _NO_CREDIT.search(words.message) or "spend_limit" in " ".join(words.codes):
            return Kind.QUOTA
        if _BUSY.search(words.message):
            return Kind.OVERLOAD
        if "not_found_error" in words.codes:
            return Kind.NO_MODEL if "model" in words.message.lower() else Kind.URL
        if status == 403 and "forbidden" in words.codes:
            return Kind.REFUSED  # where it may not be used from; no other key would help
        if "permission_error" in words.codes:
            return Kind.NO_MODEL if "model" in words.message.lower() else Kind.AUTH
        named = [_CODES[code] for code in sorted(words.codes) if code in _CODES]
        if named:
            return named[0]
    if status in (500, 502, 504) and not words.message:
        return Kind.SERVER
    return openai_errors.kind_of(status, words)


def _reset_s(headers: Mapping[str, str]) -> float | None:
    """When the used-up ones of Anthropic's allowances are renewed, in seconds from its own now."""
    try:
        now = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    waits = []
    for name, value in headers.items():
        if not re.fullmatch(r"anthropic-(?:priority-)?ratelimit-[a-z0-9-]+-reset", name):
            continue
        stem = name.removesuffix("-reset")
        used_up = headers.get(f"{stem}-remaining", "").strip() == "0"
        if used_up or headers.get(f"{stem}-status", "") == "rejected":
            moment = _moment(value)
            if moment is not None:
                waits.append(max(0.0, moment - now))
    return max(waits, default=None)


def _moment(text: str) -> float | None:
    if re.fullmatch(r"\d{9,11}", text.strip(), re.ASCII):
        return float(text)
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def _failure(kind: Kind, status: int, words: Said, wait_s: float | None, target: Target) -> Failure:
    provider = target.provider
    fact = _FACTS.get(kind, _FACTS[Kind.SERVER])
    if kind is Kind.REFUSED and _THOUGHTS.search(words.message):
        fact = _OLD_THOUGHTS
    sentence = fact.format(
        name=provider.name or provider.id,
        id=provider.id,
        model=f"{provider.id}/{target.info.model}",
        key_advice=_key_advice(provider),
    )
    quoted = quotable(words.message)
    number = f" (HTTP {status})" if status else ""
    if quoted:
        what = "A web page came back" if words.is_page else "It says"
        sentence += f'. {what}: "{quoted}"'
    elif words.is_page:
        number = f" (a web page came back, HTTP {status})"
    return Failure(kind, f"{sentence}{number}.", wait_s)


def _key_advice(provider: Provider) -> str:
    place = f"api_key of provider {provider.id} in the configuration"
    if provider.is_local:
        return f"set {place}"
    variable = re.sub(r"[^A-Z0-9]+", "_", provider.id.upper())
    return f"check {variable}_API_KEY, or {place}"
