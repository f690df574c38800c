"""Which model a run gets when nobody names one, in the order of contract 9; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from crush_trio.config.load import Config
from crush_trio.protocol.errors import Refused
from crush_trio.server.providers.access import usual_key
from crush_trio.server.providers.known import Known
from crush_trio.server.providers.naming import check_usable, nearest, unusable

Problem = Callable[[Known], str]
"""What to do before a provider can be used; empty if it can."""


@attrs.frozen(eq=False)
class Picked:
    """A provider and one of its models.

    Args:
        model: Empty if it has no model that anybody knows of: then it must be asked.
        selected: What the configuration says about this choice (CW 10.2, SelectedModel).
        why: What made it be taken, if nobody asked for it; for people.
    """

    provider: Known
    model: str
    selected: Mapping[str, Any] = attrs.field(factory=dict)
    why: str = ""

    @property
    def name(self) -> str:
        """As ``-m`` takes it."""
        return f"{self.provider.id}/{self.model}"


def from_configuration(
    config: Config, providers: Mapping[str, Known], problem: Problem
) -> Picked | None:
    """The configured model, else the default of the first configured provider that can be used.

    Raises:
        Refused: ``unknown_provider`` or ``key_missing``: the configured model cannot be used.
    """
    large = selection(config, "large")
    if large:
        return _selected("large", large, providers, problem)
    for each in providers.values():
        if each.is_configured and not unusable(each) and not problem(each):
            return Picked(each, each.default())
    return None


def from_environment(
    providers: Iterable[Known], environs: Iterable[Mapping[str, str]]
) -> Picked | None:
    """The default of the first provider whose usual variable is set; see `usual_key`."""
    every = tuple(providers)
    for environ in environs:
        for each in every:
            if each.facts.is_local or unusable(each) or not each.facts.default_large:
                continue
            variable, _ = usual_key(each, environ)
            if variable:
                return Picked(each, each.default(), why=f"{variable} is set")
    return None


def check_nothing_meant(providers: Iterable[Known], problem: Problem) -> None:
    """Refuse to take what nobody asked for while something that was configured cannot be used.

    Raises:
        Refused: ``unknown_provider`` or ``key_missing``.
    """
    for each in providers:
        if each.is_configured and not each.is_disabled:
            check_usable(each, problem)


def small_for(
    picked: Picked, config: Config, providers: Mapping[str, Known], problem: Problem
) -> Picked | None:
    """What gives titles beside ``picked``; ``None`` if that does it itself.

    The configured small model goes with the configured large one and with its own provider: who
    names a model of another provider does not send the prompt to a third one.
    """
    small = selection(config, "small")
    large = selection(config, "large")
    own = picked.provider
    goes_along = small.get("provider") == own.id or large.get("provider") == own.id
    if small and goes_along:
        found = providers.get(small["provider"])
        if found is not None and not unusable(found) and not problem(found):
            return Picked(found, small["model"], small)
    if own.facts.default_small in own.models and own.facts.default_small != picked.model:
        return Picked(own, own.facts.default_small)
    return None


def selection(config: Config, slot: str) -> dict[str, Any]:
    """What the configuration says about ``large`` or ``small``; empty if it names no model."""
    found: dict[str, Any] = config.data.get("models", {}).get(slot, {})
    return found if found.get("model") else {}


def _selected(
    slot: str, selected: Mapping[str, Any], providers: Mapping[str, Known], problem: Problem
) -> Picked:
    provider = providers.get(selected["provider"])
    if provider is None:
        end = nearest(selected["provider"], list(providers)) or "; configure it under providers."
        raise Refused(
            "unknown_provider",
            f"models.{slot} names the provider {selected['provider']!r}, which is not known{end}",
        )
    check_usable(provider, problem)
    return Picked(provider, selected["model"], selected)
