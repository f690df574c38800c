"""What a person means by ``-m NAME``: a provider and a model, or a sentence that says why not."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from crush_trio import limits
from crush_trio.models.catalogue import Catalogue
from crush_trio.protocol.errors import Refused
from crush_trio.server.providers.access import no_address
from crush_trio.server.providers.known import Known

_ALL: Final = "crush-trio models lists them"


@attrs.frozen
class Named:
    """A provider and one of its models; ``model`` is empty if its default is meant.

    ``why`` says why it is this provider where the name may be read otherwise.
    """

    provider: Known
    model: str
    why: str = ""


def named(name: str, providers: Mapping[str, Known], problem: Callable[[Known], str]) -> Named:
    """The provider and model behind a name.

    Tried in this order: the id of a provider, alone or before a slash and the rest; the id of a
    model, also one with slashes of its own; a part of one. What `problem` says something about
    counts only where it is named in full.

    Args:
        problem: What to do before a provider can be used; empty if it can.

    Raises:
        Refused: ``unknown_model``, ``unknown_provider``, ``key_missing``.
    """
    head, slash, rest = name.partition("/")
    provider = providers.get(head)
    if provider is not None and slash and rest:
        exact = _of_provider(provider, rest)
        if exact is None:  # its first part may be the maker's name: openai/gpt-oss-120b of groq
            others = [each for each in _having(name, providers) if not problem(each)]
            if others:
                found = _one(name, [(each, name) for each in others])
                return attrs.evolve(found, why=f"{head} has no model {rest}")
        check_usable(provider, problem)
        return exact or Named(provider, rest)
    if provider is not None and not rest:
        check_usable(provider, problem)
        return Named(provider, "")
    return _by_model(name, providers, problem)


def check_usable(provider: Known, problem: Callable[[Known], str]) -> None:
    """Refuse a provider that was named and cannot be used.

    Raises:
        Refused: ``unknown_provider``, ``key_missing``: with what to do about it.
    """
    reason = unusable(provider)
    if reason:
        raise Refused("unknown_provider", reason)
    missing = problem(provider)
    if missing:
        raise Refused("key_missing", f"The provider {provider.id!r} has no key: {missing}.")


def unusable(provider: Known) -> str:
    """Why a provider cannot be used whatever its key is, as a sentence; empty if it can."""
    if provider.is_disabled:
        return f"The provider {provider.id!r} is disabled in the configuration."
    if not provider.facts.dialect:
        return (
            f"The provider {provider.id!r} is of type {provider.facts.type}, which this version "
            "does not speak; choose another provider."
        )
    if not provider.facts.base_url:
        return no_address(provider)
    return ""


def nearest(wanted: str, names: list[str]) -> str:
    """The end of a sentence with the names that look like ``wanted``; empty if none does."""
    folded = {each.casefold(): each for each in names}
    found = difflib.get_close_matches(
        wanted.casefold(), folded, n=limits.MODEL_SUGGESTIONS, cutoff=0.6
    )
    return f"; did you mean {' or '.join(folded[each] for each in found)}?" if found else ""


def listed(provider: Known) -> list[str]:
    """The names of its models, as ``-m`` takes them."""
    return [f"{provider.id}/{model}" for model in provider.models]


def _of_provider(provider: Known, model: str) -> Named | None:
    if model in provider.models:
        return Named(provider, model)
    if f"{model}:latest" in provider.models:  # as Ollama itself reads it
        return Named(provider, f"{model}:latest")
    catalogue = _catalogue({provider.id: provider})
    found = [each for _, each in catalogue.find(model) if model.casefold() in each.casefold()]
    undated = [each for each in found if each.casefold().startswith(f"{model.casefold()}-2")]
    return Named(provider, undated[0]) if len(undated) == 1 else None


def _having(model: str, providers: Mapping[str, Known]) -> list[Known]:
    return [each for each in providers.values() if model in each.models and not unusable(each)]


def _by_model(name: str, providers: Mapping[str, Known], problem: Callable[[Known], str]) -> Named:
    usable = {p.id: p for p in providers.values() if not unusable(p) and not problem(p)}
    found = _catalogue(usable).find(name)
    if found:
        return _one(name, [(providers[provider], model) for provider, model in found])
    without_key = _having(name, providers)
    if without_key:
        check_usable(without_key[0], problem)
    every = [each for p in usable.values() for each in (*p.models, *listed(p))]
    end = nearest(name, [*every, *usable]) or "; write PROVIDER/MODEL"
    head, slash, _ = name.partition("/")
    if slash and not any(each.startswith(f"{head}/") for each in every):
        known = nearest(head, list(providers))
        raise Refused("unknown_provider", _sentence(f"There is no provider {head!r}", known or end))
    raise Refused("unknown_model", _sentence(f"There is no model {name!r}", end))


def _sentence(fact: str, end: str) -> str:
    return f"{fact}{end}{'' if end.endswith('?') else ';'} {_ALL}."


def _one(name: str, found: list[tuple[Known, str]]) -> Named:
    if len(found) == 1:
        return Named(*found[0])
    names = [f"{provider.id}/{model}" for provider, model in found]
    more = len(names) - limits.MODEL_CANDIDATES
    shown = ", ".join(names[: limits.MODEL_CANDIDATES]) + (f" and {more} more" if more > 0 else "")
    raise Refused("unknown_model", f"{name!r} may mean {shown}: name one of them in full.")


def _catalogue(providers: Mapping[str, Known]) -> Catalogue:
    by_id = {
        each.id: attrs.evolve(each.facts, models=tuple(each.models.values()))
        for each in providers.values()
    }
    return Catalogue("", (), by_id)
