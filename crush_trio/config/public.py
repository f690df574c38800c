"""The configuration as other people may see it: known keys only, every literal secret masked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from crush_trio.config.load import Config
from crush_trio.config.schema import CONFIG
from crush_trio.config.shapes import Anything, ListOf, MapOf, Shape, Short, Table, Text
from crush_trio.protocol.models import ModelInfo

MASK: Final = "***"
OFFLINE_PROVIDER: Final = "offline"
OFFLINE_MODEL: Final = "scout"

# What may be shown of a secret: nothing but references to variables. A default inside a
# reference and the text of a command are literals, and literals may be the secret itself.
_REFERENCE = re.compile(
    r"(?:Bearer |Basic )?(?:\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})+"
)
_USER_INFO = re.compile(r"^([^/?#]*//)[^/?#]*@")
_QUERY = re.compile(r"[?#].*", re.DOTALL)


def public(
    config: Config, *, data_directory: Path, used: Sequence[ModelInfo] = ()
) -> dict[str, Any]:
    """The configuration for API answers, with every field that Crush's client needs (CW 10.5).

    Args:
        data_directory: The server's own, absolute (contract 3).
        used: The large and the small model that would be used now, if that is known.
    """
    shown: dict[str, Any] = _shown(CONFIG, config.data)
    options = shown.setdefault("options", {})
    options.setdefault("tui", {})
    options["data_directory"] = str(data_directory)
    options["context_paths"] = list(config.context_paths)
    providers = shown.setdefault("providers", {})
    for name, provider in providers.items():
        provider.setdefault("id", name)
        provider.setdefault("models", [])
    shown["models"] = _chosen(_used(shown.get("models", {}), providers, used), providers)
    return shown


def _shown(shape: Shape, value: Any) -> Any:
    match shape:
        case Text(secret=True):
            return value if not value or _REFERENCE.fullmatch(value) else MASK
        case Text(url=True):
            return _QUERY.sub("?" + MASK, _USER_INFO.sub(rf"\1{MASK}@", value))
        case Anything():
            return _masked(value)
        case ListOf():
            return [_shown(shape.item, item) for item in value]
        case MapOf():
            return {key: _shown(shape.value, item) for key, item in value.items()}
        case Short():
            return _shown(shape.table, value) if isinstance(value, dict) else value
        case Table():
            # What we do not know, we do not show: `apiKey` is one typing mistake away.
            return {
                key: _shown(shape.keys[key], item)
                for key, item in value.items()
                if key in shape.keys
            }
        case _:
            return value


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return MASK if isinstance(value, str) and value else value


def _used(
    models: dict[str, Any], providers: dict[str, Any], used: Sequence[ModelInfo]
) -> dict[str, Any]:
    """Both slots, each with the model that would be used; ``providers`` gain what it is."""
    slots = dict(models)
    for slot, info in zip(("large", "small"), used, strict=False):
        names = {"provider": info.provider, "model": info.model}
        same = models.get(slot, {}).items() >= names.items()
        slots[slot] = models[slot] if same else names
        provider = providers.setdefault(info.provider, _provider(info.provider))
        if all(model.get("id") != info.model for model in provider["models"]):
            provider["models"].append(_model(info.model) | _facts(info))
    return slots


def _facts(info: ModelInfo) -> dict[str, Any]:
    """What is known of a model, in the shape of CW 10.2."""
    return {
        "name": info.name or info.model,
        "cost_per_1m_in": info.cost_per_1m_in or 0,
        "cost_per_1m_out": info.cost_per_1m_out or 0,
        "cost_per_1m_in_cached": info.cost_per_1m_in_cached or 0,
        "cost_per_1m_out_cached": info.cost_per_1m_out_cached or 0,
        "context_window": info.context_window,
        "default_max_tokens": info.max_output_tokens,
        "can_reason": info.can_reason,
        "supports_attachments": info.supports_attachments is True,
    }


def _chosen(models: dict[str, Any], providers: dict[str, Any]) -> dict[str, Any]:
    """Both slots, each naming a model that is in ``providers``, which gains what is missing."""
    large = _usable(models.get("large"), providers) or _first(providers)
    small = _usable(models.get("small"), providers) or large
    for slot in (large, small):
        provider = providers.setdefault(slot["provider"], _provider(slot["provider"]))
        if all(model.get("id") != slot["model"] for model in provider["models"]):
            provider["models"].append(_model(slot["model"]))
    return {"large": large, "small": small}


def _usable(selected: dict[str, Any] | None, providers: dict[str, Any]) -> dict[str, Any] | None:
    if not selected or not selected.get("model"):
        return None
    disabled = providers.get(selected["provider"], {}).get("disable", False)
    return None if disabled else selected


def _first(providers: dict[str, Any]) -> dict[str, Any]:
    """The first model of the first provider that has one, else the built-in planner."""
    for name, provider in providers.items():
        ids = [model["id"] for model in provider["models"] if model.get("id")]
        if ids and not provider.get("disable"):
            return {"model": ids[0], "provider": name}
    providers.pop(OFFLINE_PROVIDER, None)
    return {"model": OFFLINE_MODEL, "provider": OFFLINE_PROVIDER}


def _provider(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "type": "openai-compat", "models": []}


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "cost_per_1m_in": 0,
        "cost_per_1m_out": 0,
        "cost_per_1m_in_cached": 0,
        "cost_per_1m_out_cached": 0,
        "context_window": 0,
        "default_max_tokens": 0,
        "can_reason": False,
        "supports_attachments": False,
        "options": {},
    }
