"""The list that models.dev publishes (``api.json``, MIT), turned into our own format."""

from __future__ import annotations

from typing import Any, Final

from crush_trio.models.catalogue.catalogue import Catalogue, CatalogueProvider
from crush_trio.models.catalogue.entries import FORMAT

_THEIR_IDS: Final = {
    "gemini": "google",
    "together": "togetherai",
    "fireworks": "fireworks-ai",
    "moonshot": "moonshotai",
}
"""Providers that are called otherwise there; by our id."""

_FREE: Final = ":free"
"""What the ids of models end with that really cost nothing; elsewhere 0 stands for not known."""


def is_models_dev(value: Any) -> bool:
    """Whether parsed JSON looks like that list: providers by id, each with models by id."""
    if type(value) is not dict or not value or "format" in value:
        return False
    return all(
        type(provider) is dict and type(provider.get("models")) is dict
        for provider in value.values()
    )


def convert(value: Any, mine: Catalogue, date: str) -> dict[str, Any]:
    """That list as a catalogue file, with the providers we know; still to be checked as one.

    Models that call no tools, write no text or are no longer served are left out.

    Args:
        value: What `is_models_dev` recognised.
        mine: The shipped catalogue.
        date: The day it was fetched; the list itself has none.
    """
    providers = [
        _provider(provider, value[their_id]["models"])
        for provider in mine.providers()
        if (their_id := _THEIR_IDS.get(provider.id, provider.id)) in value and not provider.is_local
    ]
    return {
        "format": FORMAT,
        "date": date,
        "about": "Converted from the list of models.dev.",
        "sources": ["models.dev (MIT)"],
        "providers": [provider for provider in providers if provider["models"]],
    }


def _provider(mine: CatalogueProvider, models: dict[str, Any]) -> dict[str, Any]:
    kept = {name: model for name, model in models.items() if _is_for_agents(model)}
    return {
        "id": mine.id,
        "name": mine.name,
        "type": mine.type,
        "dialect": mine.dialect,
        "base_url": mine.base_url,
        "key_variables": list(mine.key_variables),
        "default_large": mine.default_large if mine.default_large in kept else "",
        "default_small": mine.default_small if mine.default_small in kept else "",
        "models": [_model(name, model) for name, model in kept.items()],
    }


def _is_for_agents(model: Any) -> bool:
    if type(model) is not dict or model.get("status") == "deprecated":
        return False
    return bool(model.get("tool_call")) and "text" in _listed(model, "modalities", "output")


def _model(name: str, model: dict[str, Any]) -> dict[str, Any]:
    limit, cost = _table(model, "limit"), _table(model, "cost")
    context, output = limit.get("context", 0), limit.get("output", 0)
    if type(context) is int and type(output) is int and output >= context:
        output = 0  # the window again, which says nothing about one answer
    if not cost.get("input") and not cost.get("output") and not name.endswith(_FREE):
        cost = {}
    return {
        "id": name,
        "name": model.get("name", ""),
        "context_window": context,
        "max_output_tokens": output,
        "cost_per_1m_in": cost.get("input"),
        "cost_per_1m_out": cost.get("output"),
        "cost_per_1m_in_cached": cost.get("cache_write"),
        "cost_per_1m_out_cached": cost.get("cache_read"),
        "can_reason": model.get("reasoning", False),
        "reasoning_levels": _levels(model),
        "supports_attachments": "image" in _listed(model, "modalities", "input"),
        "supports_tools": True,
    }


def _levels(model: dict[str, Any]) -> list[str]:
    options = model.get("reasoning_options")
    for option in options if type(options) is list else ():
        if type(option) is dict and option.get("type") == "effort":
            return [value for value in _listed(option, "values") if type(value) is str]
    return []


def _table(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if type(found) is dict else {}


def _listed(value: dict[str, Any], *keys: str) -> list[Any]:
    for key in keys[:-1]:
        value = _table(value, key)
    found = value.get(keys[-1])
    return found if type(found) is list else []
