"""Models as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.cli.models_flow import Wanted
from crush_trio.cli.models_table import abilities, models_table, price, refreshed_text, tokens

SONNET: dict[str, Any] = {
    "provider": "anthropic",
    "model": "claude-sonnet-5-5",
    "name": "Claude Sonnet 5.5",
    "context_window": 1_000_000,
    "max_output_tokens": 128_000,
    "cost_per_1m_in": 2.0,
    "cost_per_1m_out": 10.0,
    "can_reason": True,
    "supports_attachments": True,
    "supports_tools": True,
    "is_language_model": True,
    "available": True,
    "chosen": "large",
}
UNKNOWN: dict[str, Any] = {
    "provider": "corp",
    "model": "x",
    "context_window": 0,
    "max_output_tokens": 0,
    "cost_per_1m_in": None,
    "cost_per_1m_out": None,
    "can_reason": False,
    "supports_attachments": None,
    "supports_tools": None,
    "is_language_model": True,
    "available": False,
    "chosen": None,
}
SCOUT: dict[str, Any] = {"provider": "offline", "model": "scout", "is_language_model": False}


def test_a_model_is_one_line_that_begins_with_its_name() -> None:
    assert models_table([SONNET, UNKNOWN, SCOUT]).splitlines() == [
        "MODEL                               WINDOW  OUTPUT  IN $/1M  OUT $/1M  CAN",
        "anthropic/claude-sonnet-5-5         1M      128k    2        10        "
        "tools images reasoning  large",
        "corp/x                              ?       ?       ?        ?         tools? images?",
        "offline/scout  (no language model)",
    ]
    assert models_table([]) == ""


def test_the_planner_says_when_it_is_what_would_answer() -> None:
    assert models_table([{**SCOUT, "chosen": "large"}]).endswith("(no language model)  large")


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "?"),
        (512, "512"),
        (8_192, "8k"),
        (200_000, "200k"),
        (1_000_000, "1M"),
        (1_048_576, "1.04M"),
        (1_050_000, "1.05M"),
    ],
)
def test_tokens_are_rounded_down_and_unknown_is_no_number(count: int, expected: str) -> None:
    assert tokens(count) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "?"), (0, "0"), (0.0, "0"), (3, "3"), (0.075, "0.075"), (12.5, "12.5"), ("1", "?")],
)
def test_an_unknown_price_is_a_question_and_a_free_model_costs_zero(
    value: object, expected: str
) -> None:
    assert price(value) == expected


def test_what_a_model_cannot_do_is_left_out_and_what_nobody_knows_is_asked() -> None:
    known = {"supports_tools": True, "supports_attachments": False, "can_reason": False}
    assert abilities(known) == "tools"
    assert abilities({**known, "supports_tools": None}) == "tools?"
    assert abilities({**known, "supports_tools": False}) == "-"


@pytest.mark.parametrize(
    ("part", "provider", "expected"),
    [
        ("", None, True),
        ("SONNET", None, True),
        ("anthropic/claude", None, True),
        ("Sonnet 5.5", None, True),
        ("opus", None, False),
        ("", "anthropic", True),
        ("", "anthropi", False),
        ("sonnet", "openai", False),
    ],
)
def test_a_filter_is_part_of_a_name(part: str, provider: str | None, expected: bool) -> None:
    assert Wanted(part, provider, everything=False).has(SONNET) is expected


def test_a_refresh_says_what_changed() -> None:
    answer = {
        "url": "https://a.example/c.json",
        "date": "2027-01-30",
        "providers": 2,
        "models": 40,
        "is_new": True,
        "added": ["a/b", "a/c"],
        "removed": [],
        "changed": ["a/d"],
        "counts": {"added": 5, "removed": 0, "changed": 1},
    }
    assert refreshed_text(answer).splitlines() == [
        "now of 2027-01-30: 40 models of 2 providers, from https://a.example/c.json",
        "added: a/b, a/c and 3 more",
        "changed: a/d",
    ]
    assert refreshed_text({**answer, "is_new": False}) == (
        "nothing newer than 2027-01-30 (40 models of 2 providers) at https://a.example/c.json"
    )
