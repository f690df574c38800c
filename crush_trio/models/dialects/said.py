"""What a provider says about an error, whatever it wraps it in, fit to be shown to people."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import orjson

from crush_trio import limits
from crush_trio.http.quoting import quotable

_TITLE = re.compile(rb"<title[^<>]{0,200}>([^<]{0,400})", re.IGNORECASE)
_MARKUP = re.compile(rb"^\s*(?:<!doctype html|<html|<head|<\?xml|<body)", re.IGNORECASE)
_WAIT_IN_TEXT = re.compile(
    r"(?:try again|retry|retry-after|wait)\b[^0-9.]{0,30}?"
    r"((?:\d+(?:\.\d+)?\s*(?:hours?|minutes?|seconds?|secs?|mins?|milliseconds?|ms|h|m|s)(?![a-z]),?\s*)+)",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli[a-z]*|h[a-z]*|m[a-z]*|s[a-z]*)", re.IGNORECASE)
_EPOCH_S = 1e9  # a number this large is a moment, not a duration
_EPOCH_MS = 1e12
_STATUS = re.compile(r"[45]\d\d", re.ASCII)


@attrs.frozen
class Said:
    """An error in a provider's own words.

    ``codes`` are its machine-readable names in lower case (``code``, ``type``, ``status``);
    ``status`` the HTTP status that it states inside, 0 if none; ``is_page`` means HTML or XML.
    """

    message: str
    codes: frozenset[str] = frozenset()
    status: int = 0
    is_page: bool = False

    def quoted(self) -> str:
        """Its message as part of a sentence of ours: see `quotable`; "" if it said nothing."""
        return quotable(self.message)


def said(body: bytes) -> Said:
    """What the beginning of an answer with an error status says."""
    if _MARKUP.match(body):
        title = _TITLE.search(body)
        words = title[1].decode("utf-8", "replace").strip() if title else ""
        return Said(words, is_page=True)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Said(body.decode("utf-8", "replace").strip()[: limits.PROVIDER_ERROR_CHARS])
    return said_in(value)


def said_in(value: Any) -> Said:
    """What a parsed error says: an object, a list of them, FastAPI's ``detail``, or plain text."""
    messages: list[str] = []
    codes: set[str] = set()
    status = 0
    for item in _levels(value):
        if type(item) is str:
            messages.append(item)
            continue
        for key in ("code", "type", "status", "error_code", "error_type"):
            found = item.get(key)
            if type(found) is int and 400 <= found <= 599:
                status = status or found
            elif type(found) is str:
                codes.add(found.lower())
                if _STATUS.fullmatch(found):
                    status = status or int(found)
    return Said(_without_repeats(messages)[: limits.PROVIDER_ERROR_CHARS], frozenset(codes), status)


def _levels(value: Any, depth: int = 0) -> Iterator[Any]:
    """The objects and texts of an error, from the outside to the inside; bounded."""
    if depth > 4:
        return
    if type(value) is str:
        inner = _inner_json(value)
        if inner is None:
            yield value
        else:
            yield from _levels(inner, depth + 1)
    elif type(value) is list:
        for item in value[:5]:
            yield from _levels(item, depth + 1)
    elif type(value) is dict:
        yield value
        for key in ("error", "errors", "message", "msg", "detail", "details", "innererror"):
            if key in value:
                yield from _levels(value[key], depth + 1)
        metadata = value.get("metadata")
        if type(metadata) is dict and "raw" in metadata:  # a gateway quotes who it asked
            yield from _levels(metadata["raw"], depth + 1)


def _inner_json(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[{")):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _without_repeats(messages: list[str]) -> str:
    kept: list[str] = []
    for message in messages:
        text = message.strip()
        if text and not any(text in other for other in kept):
            kept.append(text)
    return " ".join(kept)


def retry_after_s(headers: Mapping[str, str], message: str) -> float | None:
    """How long the provider asks us to wait, in seconds (>= 0); ``None`` if it does not say.

    From ``retry-after-ms``, ``retry-after`` (seconds, or a date against the answer's own ``date``
    header), the words of the message, and last the reset of the allowance that is used up.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after", "").strip()
    if stated:
        seconds = _number(stated)
        if seconds is None:
            moment = _moment(stated)
            seconds = _from_now(moment, headers) if moment is not None else None
        if seconds is not None:
            return seconds
    words = _WAIT_IN_TEXT.search(message[: limits.PROVIDER_WORDS_CHARS * 4])
    if words:
        return _duration(words[1])
    waits = [
        wait
        for name, value in headers.items()
        if "ratelimit-reset" in name
        and _number(headers.get(name.replace("-reset", "-remaining"), "")) == 0
        and (wait := _reset(value, headers)) is not None
    ]
    return max(waits, default=None)


def _reset(value: str, headers: Mapping[str, str]) -> float | None:
    number = _number(value)
    if number is None:
        return _duration(value)
    if number >= _EPOCH_MS:
        return _from_now(number / 1000, headers)
    return _from_now(number, headers) if number >= _EPOCH_S else number


def _from_now(moment: float, headers: Mapping[str, str]) -> float | None:
    now = _moment(headers.get("date", ""))
    return None if now is None else max(0.0, moment - now)


def _moment(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(text: str) -> float | None:
    stripped = text.strip()
    if not re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", stripped, re.ASCII):
        return None
    return float(stripped)


def _duration(text: str) -> float | None:
    total, found = 0.0, False
    for amount, unit in _DURATION.findall(text[:100]):
        found = True
        word = unit.lower()
        if word.startswith(("ms", "milli")):
            total += float(amount) / 1000
        else:
            total += float(amount) * {"h": 3600, "m": 60, "s": 1}[word[0]]
    return total if found else None
