"""The list of models.dev, turned into a catalogue file of ours."""

from __future__ import annotations

from typing import Any

from crush_trio.models.catalogue.load import shipped
from crush_trio.models.catalogue.models_dev import convert, is_models_dev
from crush_trio.models.catalogue.reading import from_value
from crush_trio.protocol.models import ModelInfo

_MODEL: dict[str, Any] = {
    "id": "gemini-9-pro",
    "name": "Gemini 9 Pro",
    "attachment": True,
    "reasoning": True,
    "reasoning_options": [
        {"type": "toggle"},
        {"type": "effort", "values": ["low", "high"], "default": "high"},
    ],
    "temperature": True,
    "tool_call": True,
    "release_date": "2027-01-01",
    "cost": {"input": 2, "output": 12.5, "cache_read": 0.2, "cache_write": 2.5},
    "limit": {"context": 1_000_000, "output": 65_536},
    "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
}


def _list(**models: dict[str, Any]) -> dict[str, Any]:
    provider = {"id": "google", "env": ["GOOGLE_KEY"], "npm": "@ai-sdk/google", "api": "http://x"}
    return {"google": {**provider, "models": models}, "stranger": {"models": {"m": _MODEL}}}


def _converted(**models: dict[str, Any]) -> dict[str, ModelInfo]:
    value = _list(**models)
    assert is_models_dev(value)
    found = from_value(convert(value, shipped(), "2027-02-03"), "here")
    assert set(found.by_id) <= {"gemini"}
    return {model.model: model for model in found.models()}


def test_what_a_model_can_do_and_costs_is_taken_over() -> None:
    found = _converted(**{"gemini-9-pro": _MODEL})["gemini-9-pro"]
    assert found == ModelInfo(
        provider="gemini",
        model="gemini-9-pro",
        name="Gemini 9 Pro",
        context_window=1_000_000,
        max_output_tokens=65_536,
        cost_per_1m_in=2,
        cost_per_1m_out=12.5,
        cost_per_1m_in_cached=2.5,
        cost_per_1m_out_cached=0.2,
        can_reason=True,
        reasoning_levels=("low", "high"),
        supports_attachments=True,
        supports_tools=True,
    )


def test_the_address_of_a_provider_is_ours_and_unknown_providers_stay_away() -> None:
    value: dict[str, Any] = convert(_list(m=_MODEL), shipped(), "2027-02-03")
    (provider,) = value["providers"]
    mine = shipped().by_id["gemini"]
    assert (provider["base_url"], provider["key_variables"]) == (
        mine.base_url,
        list(mine.key_variables),
    )
    assert (value["date"], value["sources"]) == ("2027-02-03", ["models.dev (MIT)"])


def test_models_that_are_no_use_to_an_agent_are_left_out() -> None:
    found = _converted(
        good=_MODEL,
        gone={**_MODEL, "status": "deprecated"},
        mute={**_MODEL, "modalities": {"input": ["text"], "output": ["image"]}},
        handless={**_MODEL, "tool_call": False},
        beta={**_MODEL, "status": "beta"},
    )
    assert list(found) == ["good", "beta"]


def test_a_price_of_zero_is_unknown_unless_the_name_says_that_it_is_free() -> None:
    nothing = {**_MODEL, "cost": {"input": 0, "output": 0, "cache_read": 0}}
    without = {key: value for key, value in _MODEL.items() if key != "cost"}
    found = _converted(**{"a": nothing, "b:free": nothing, "c": without})
    prices = {name: (model.cost_per_1m_in, model.cost_per_1m_out) for name, model in found.items()}
    assert prices == {"a": (None, None), "b:free": (0, 0), "c": (None, None)}
    assert found["a"].cost_per_1m_out_cached is None


def test_an_output_limit_that_is_the_window_again_is_none() -> None:
    limit = {"context": 500_000, "output": 500_000}
    assert _converted(m={**_MODEL, "limit": limit})["m"].max_output_tokens == 0


def test_other_shapes_are_not_taken_for_it() -> None:
    others: list[Any] = [None, [], {}, {"format": 1}, {"google": {}}, {"google": {"models": []}}]
    for value in others:
        assert not is_models_dev(value)
