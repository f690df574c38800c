"""The policy of the one retry layer: which failure is tried again, when, and when no more."""

from __future__ import annotations

import email.utils
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from crush_trio import limits
from crush_trio.models.failures import CLASSES, Failure, Kind

_NEVER = frozenset(kind for kind, meaning in CLASSES.items() if meaning.retries == 0) - {
    Kind.REFUSED
}
"""What asking again does not help, whatever a header says."""


@attrs.frozen
class Again:
    """The request is made again after ``delay_s``: retry ``number`` of ``at_most``."""

    number: int
    at_most: int
    delay_s: float


@attrs.define(eq=False)
class Retries:
    """Counts the failures of one request.

    Bounded are the retries for each class of failure and in all, the waits together, and the time
    since the first attempt.

    Args:
        started: When the first attempt began, on the clock of `after`.
        random: Where jitter comes from.
    """

    started: float
    random: random.Random = attrs.field(factory=random.Random)
    _made: int = attrs.field(default=0, init=False)
    _by_kind: dict[Kind, int] = attrs.field(factory=dict, init=False)
    _waited_s: float = attrs.field(default=0.0, init=False)

    def after(self, failure: Failure, now: float) -> Again | Failure:
        """What follows from a failure at ``now``: the next attempt, or the end.

        The failure at the end says how often the request was made, if more than once, and when to
        come back, if the provider said so.
        """
        allowed = _allowed(failure, began=self._made > 0)
        made = self._by_kind.get(failure.kind, 0)
        if made >= allowed or self._made >= limits.MODEL_RETRIES:
            return self._end(failure)
        wanted = failure.retry_after_s
        if wanted is not None and wanted > limits.MODEL_RETRY_MAX_S:
            return self._end(failure)
        delay_s = self._delay(wanted)
        if self._waited_s + delay_s > limits.MODEL_RETRY_TOTAL_S:
            return self._end(failure)
        if now + delay_s - self.started > limits.MODEL_RETRY_WITHIN_S:
            return self._end(failure)
        self._by_kind[failure.kind] = made + 1
        self._made += 1
        self._waited_s += delay_s
        at_most = min(self._made + allowed - made - 1, limits.MODEL_RETRIES)
        return Again(self._made, at_most, round(delay_s, 3))

    def _delay(self, wanted: float | None) -> float:
        """What the provider asked for, a little later each time; else doubling, with jitter."""
        chance = self.random.random()
        if wanted is not None:
            return min(max(wanted, 0.0) * (1 + chance / 10) + chance / 10, limits.MODEL_RETRY_MAX_S)
        backoff = limits.MODEL_RETRY_FIRST_S * 2.0**self._made
        return min(backoff, limits.MODEL_RETRY_MAX_S) * (0.75 + chance / 4)

    def _end(self, failure: Failure) -> Failure:
        words = failure.message
        if self._made:
            words = f"{words} It was asked {self._made + 1} times."
        wanted = failure.retry_after_s
        if wanted is not None and wanted > limits.MODEL_RETRY_MAX_S:
            words = f"{words} It says to come back in {_duration(wanted)}."
        return Failure(failure.kind, words, failure.retry_after_s)


def _allowed(failure: Failure, *, began: bool) -> int:
    if failure.kind in _NEVER:
        return 0
    if failure.should_retry is False and not (began and failure.kind is Kind.NETWORK):
        return 0  # but who was there just now and does not listen any more may be starting again
    if failure.should_retry:
        return max(CLASSES[failure.kind].retries, CLASSES[Kind.SERVER].retries)
    return CLASSES[failure.kind].retries


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What an answer's headers (lower-case keys) ask us to wait, in seconds; ``None`` if nothing.

    Known are ``retry-after-ms`` and ``retry-after`` as a number of seconds or as a date, which is
    read by the clock of the answer's own ``date`` if it has one.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    until = _date(text)
    if until is None:
        return None
    since = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return max(0.0, (until - since).total_seconds())


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """What ``x-should-retry`` says."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _date(text: str) -> datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        count = math.ceil(seconds / size)
        if seconds >= size:
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{math.ceil(seconds)} seconds"
