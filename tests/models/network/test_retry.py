"""The policy of retries: pure, on a clock that the test turns."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from crush_trio import limits
from crush_trio.models.failures import CLASSES, Failure, Kind
from crush_trio.models.network.retry import Again, Retries, retry_after_s, should_retry

NEVER = [kind for kind, meaning in CLASSES.items() if not meaning.retries]


def failure(kind: Kind, wanted: float | None = None, *, should: bool | None = None) -> Failure:
    made = Failure(kind, "It did not work.", wanted)
    made.should_retry = should
    return made


def tries(kind: Kind, *, should: bool | None = None, seed: int = 1) -> list[Again | Failure]:
    """What follows from the same failure over and over."""
    retries, now, results = Retries(0.0, random.Random(seed)), 0.0, list[Again | Failure]()
    while not results or isinstance(results[-1], Again):
        results.append(retries.after(failure(kind, should=should), now))
        if isinstance(results[-1], Again):
            now += results[-1].delay_s
    return results


@pytest.mark.parametrize("kind", Kind)
def test_each_class_is_retried_as_often_as_its_meaning_says(kind: Kind) -> None:
    """Quota, auth and filter are never retried."""
    *again, end = tries(kind)
    assert len(again) == CLASSES[kind].retries
    assert isinstance(end, Failure)
    assert end.kind is kind


@pytest.mark.parametrize("kind", NEVER)
def test_what_asking_again_does_not_help_is_not_retried_whatever_a_header_says(kind: Kind) -> None:
    assert len(tries(kind, should=True)) == (4 if kind is Kind.REFUSED else 1)


@pytest.mark.parametrize("kind", Kind)
def test_a_provider_may_say_that_asking_again_is_of_no_use(kind: Kind) -> None:
    assert len(tries(kind, should=False)) == 1


def test_a_server_that_was_there_and_listens_no_more_may_be_starting_again() -> None:
    retries = Retries(0.0, random.Random(1))
    assert isinstance(retries.after(failure(Kind.TRUNCATED), 0.0), Again)
    assert isinstance(retries.after(failure(Kind.NETWORK, should=False), 5.0), Again)
    assert isinstance(retries.after(failure(Kind.SERVER, should=False), 9.0), Failure)


def test_waits_double_from_five_seconds_with_jitter_below() -> None:
    waits = [each.delay_s for each in tries(Kind.OVERLOAD) if isinstance(each, Again)]
    assert len(waits) == 3
    for wait, most in zip(waits, (5, 10, 20), strict=True):
        assert 0.75 * most <= wait <= most


def test_jitter_differs_from_seed_to_seed_and_not_with_the_same() -> None:
    assert tries(Kind.SERVER, seed=1)[0] == tries(Kind.SERVER, seed=1)[0]
    assert tries(Kind.SERVER, seed=1)[0] != tries(Kind.SERVER, seed=2)[0]


def test_each_retry_says_which_it_is_and_how_many_there_may_be() -> None:
    again = [each for each in tries(Kind.NETWORK) if isinstance(each, Again)]
    assert [(each.number, each.at_most) for each in again] == [(1, 3), (2, 3), (3, 3)]


def test_the_end_says_how_often_it_was_asked() -> None:
    *_, end = tries(Kind.SERVER)
    assert isinstance(end, Failure)
    assert end.message == "It did not work. It was asked 4 times."


def test_a_failure_that_is_not_retried_says_nothing_about_tries() -> None:
    (end,) = tries(Kind.AUTH)
    assert isinstance(end, Failure)
    assert end.message == "It did not work."


@pytest.mark.parametrize("wanted", [0.0, 0.5, 7.0, 59.0, 60.0])
def test_a_wait_that_the_provider_asks_for_is_kept(wanted: float) -> None:
    again = Retries(0.0, random.Random(1)).after(failure(Kind.RATE_LIMIT, wanted), 0.0)
    assert isinstance(again, Again)
    assert wanted <= again.delay_s <= min(wanted * 1.1 + 0.1, limits.MODEL_RETRY_MAX_S)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (61.0, "2 minutes"),
        (3_600.0, "1 hour"),
        (5_000.0, "2 hours"),
        (1_814_400.0, "21 days"),
    ],
)
def test_a_longer_wait_ends_it_at_once_and_says_when_to_come_back(
    wanted: float, words: str
) -> None:
    end = Retries(0.0, random.Random(1)).after(failure(Kind.RATE_LIMIT, wanted), 0.0)
    assert isinstance(end, Failure)
    assert end.message == f"It did not work. It says to come back in {words}."
    assert end.retry_after_s == wanted


def test_failures_of_many_classes_are_bounded_together() -> None:
    retries = Retries(0.0, random.Random(1))
    kinds = [Kind.NETWORK, Kind.EMPTY, Kind.MALFORMED, Kind.RATE_LIMIT, Kind.SERVER]
    results = [retries.after(failure(kind, 1.0), 0.0) for kind in kinds]
    assert [isinstance(each, Again) for each in results] == [True, True, True, True, False]
    numbers = [(each.number, each.at_most) for each in results if isinstance(each, Again)]
    assert numbers == [(1, 3), (2, 2), (3, 3), (4, 4)]


def test_all_waits_together_are_bounded() -> None:
    retries = Retries(0.0, random.Random(1))
    waits = [retries.after(failure(Kind.RATE_LIMIT, 60.0), 0.0) for _ in range(3)]
    assert all(isinstance(each, Again) for each in waits)
    assert isinstance(retries.after(failure(Kind.OVERLOAD, 60.0), 0.0), Failure)


def test_no_retry_begins_long_after_the_first_attempt() -> None:
    late = limits.MODEL_RETRY_WITHIN_S - 10.0
    assert isinstance(Retries(0.0).after(failure(Kind.NETWORK, 5.0), late), Again)
    assert isinstance(Retries(0.0).after(failure(Kind.NETWORK, 11.0), late), Failure)


NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        (
            {
                "retry-after": "Mon, 23 Nov 2026 10:00:30 GMT",
                "date": "Mon, 23 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "in a while"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "meaning"), [("true", True), (" False ", False), ("", None), ("maybe", None)]
)
def test_x_should_retry_is_yes_no_or_nothing(value: str, meaning: bool | None) -> None:
    assert should_retry({"x-should-retry": value}) is meaning
