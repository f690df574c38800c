"""From the bytes of a catalogue file to a `Catalogue`, or to the mistakes in them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from crush_trio import limits
from crush_trio.models.catalogue import entries
from crush_trio.models.catalogue.catalogue import Catalogue, CatalogueProvider
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.models import ModelInfo

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that are this machine and may be spoken to without TLS."""


def read(raw: bytes, where: str) -> Catalogue:
    """The catalogue in a file's bytes.

    Args:
        raw: JSON as `entries` has it.
        where: The file or address, for messages.

    Raises:
        DecodeError: One sentence per mistake, each with ``where``, path and expectation; the
            first `limits.DECODE_PLACES_MAX` of them.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"{where}: not valid JSON: {exc}.") from exc
    return from_value(value, where)


def from_value(value: Any, where: str) -> Catalogue:
    """The same from JSON that has been parsed.

    Raises:
        DecodeError: As above.
    """
    mistakes: list[str] = []
    providers: dict[str, CatalogueProvider] = {}
    if entries.check(value, entries.FILE, "$", mistakes):
        _check_date(value["date"], mistakes)
        found = list(_providers(value["providers"], mistakes))
        _check_doubles([provider.id for provider in found], "$.providers", mistakes)
        providers = {provider.id: provider for provider in found}
    if mistakes:
        raise DecodeError(_sentences(mistakes, where))
    return Catalogue(value["date"], tuple(value["sources"]), providers)


def _sentences(mistakes: list[str], where: str) -> str:
    shown = [f"{where}: {mistake}." for mistake in mistakes[: limits.DECODE_PLACES_MAX]]
    more = len(mistakes) - len(shown)
    return " ".join([*shown, *([f"There are {more} more mistakes."] if more > 0 else [])])


def _check_date(date: str, mistakes: list[str]) -> None:
    try:
        is_day = datetime.date.fromisoformat(date).isoformat() == date  # so that texts compare
    except ValueError:
        is_day = False
    if not is_day:
        mistakes.append("$.date: expected a day as YYYY-MM-DD")


def _providers(values: list[Any], mistakes: list[str]) -> Iterator[CatalogueProvider]:
    for index, value in enumerate(values):
        path = f"$.providers[{index}]"
        if not entries.check(value, entries.PROVIDER, path, mistakes):
            continue
        models = tuple(_models(value["models"], value["id"], path, mistakes))
        known = [model.model for model in models]
        provider = CatalogueProvider(
            id=value["id"],
            name=value["name"],
            type=value["type"],
            dialect=value["dialect"],
            base_url=value.get("base_url", ""),
            key_variables=tuple(value.get("key_variables", ())),
            default_large=value.get("default_large", ""),
            default_small=value.get("default_small", ""),
            is_local=value.get("is_local", False),
            quirks=frozenset(value.get("quirks", ())),
            models=models,
        )
        if "/" in provider.id:
            mistakes.append(f"{path}.id: expected a name without a slash")
        if provider.base_url and not is_safe(provider.base_url, is_local=provider.is_local):
            mistakes.append(
                f"{path}.base_url: expected an https address, or http on loopback if is_local"
            )
        for key, model in (
            ("default_large", provider.default_large),
            ("default_small", provider.default_small),
        ):
            if model and model not in known:
                mistakes.append(f"{path}.{key}: expected the id of one of its models")
        _check_doubles(known, f"{path}.models", mistakes)
        yield provider


def _models(
    values: list[Any], provider: str, path: str, mistakes: list[str]
) -> Iterator[ModelInfo]:
    for index, value in enumerate(values):
        place = f"{path}.models[{index}]"
        if not entries.check(value, entries.MODEL, place, mistakes):
            continue
        rest = {key: item for key, item in value.items() if key != "id"}
        rest["reasoning_levels"] = tuple(value.get("reasoning_levels", ()))
        rest["name"] = value.get("name") or value["id"]
        info = ModelInfo(provider=provider, model=value["id"], **rest)
        if 0 < info.context_window < info.max_output_tokens:
            mistakes.append(f"{place}.max_output_tokens: expected at most the context window")
        effort = info.default_reasoning_effort
        if effort and effort not in info.reasoning_levels:
            mistakes.append(f"{place}.default_reasoning_effort: expected a reasoning level of it")
        yield info


def is_safe(url: str, *, is_local: bool) -> bool:
    """Whether an address may be spoken to: https, or, if it is local, http on loopback."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if is_local:
        return parts.scheme == "http" and parts.hostname in LOOPBACK and port != 0
    return parts.scheme == "https" and bool(parts.hostname) and port != 0


def _check_doubles(ids: list[str], path: str, mistakes: list[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    mistakes.extend(
        f"{path}: expected the id {name!r} once, not {count} times"
        for name, count in Counter(ids).items()
        if count > 1
    )
