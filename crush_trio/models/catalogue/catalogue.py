"""Providers and their models as they are known without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

import attrs

from crush_trio.protocol.models import ModelInfo

_DATED: Final = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z")


@attrs.frozen
class CatalogueProvider:
    """A provider.

    Args:
        id: The part of a model's name before the first slash.
        name: What people read.
        type: What a configuration calls its kind (CW 10.2).
        dialect: A key of `models.dialects.DIALECTS`.
        base_url: Where its API is; empty if each user has an address of their own.
        key_variables: Environment variables that may hold its key, the first that is set counts;
            empty if it needs none.
        default_large: The model that is taken if only the provider was chosen; empty if none.
        default_small: The same for small work such as titles.
        is_local: It runs on the user's machine and is looked for there (contract 9).
        quirks: How it differs from its dialect's own provider, see `models.provider.Provider`.
        models: In the order in which they are shown.
    """

    id: str
    name: str
    type: str
    dialect: str
    base_url: str
    key_variables: tuple[str, ...]
    default_large: str
    default_small: str
    is_local: bool
    quirks: frozenset[str]
    models: tuple[ModelInfo, ...]


@attrs.frozen(eq=False)
class Catalogue:
    """All providers, in the order in which one is preferred to the next.

    Args:
        date: Of the newest source, ``YYYY-MM-DD``.
        sources: Where the facts are from, for people.
        by_id: The providers by id.
        notices: Whole sentences its user should know, for instance why a copy does not count.
    """

    date: str
    sources: tuple[str, ...]
    by_id: Mapping[str, CatalogueProvider] = attrs.field(repr=False)
    notices: tuple[str, ...] = ()
    _models: dict[tuple[str, str], ModelInfo] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Index the models; the one time that the class changes itself."""
        models = {
            (provider.id, model.model): model
            for provider in self.by_id.values()
            for model in provider.models
        }
        object.__setattr__(self, "_models", models)

    def providers(self) -> tuple[CatalogueProvider, ...]:
        """Every provider, the preferred ones first."""
        return tuple(self.by_id.values())

    def provider(self, id: str) -> CatalogueProvider | None:  # noqa: A002 (it is the id)
        """The provider with this id, if it is known."""
        return self.by_id.get(id)

    def models(self) -> tuple[ModelInfo, ...]:
        """Every model of every provider."""
        return tuple(self._models.values())

    def model(self, provider: str, model: str) -> ModelInfo | None:
        """A model by its exact names, if it is known."""
        return self._models.get((provider, model))

    def find(
        self, name: str, providers: Collection[str] | None = None
    ) -> tuple[tuple[str, str], ...]:
        """What ``name`` may mean, as ``(provider, model)``: one is an answer, several a question.

        Tried in this order, and the first that finds something is the answer: the exact names,
        the id without regard to a date at its end (``claude-haiku-4-5`` for
        ``claude-haiku-4-5-20251001``), a part of the id or of what people read. Case counts in
        the first only. ``name`` may begin with a provider and a slash.

        Args:
            name: As a person wrote it.
            providers: The ids of those that count; ``None`` is all.
        """
        candidates = [
            (provider, model)
            for provider, model in self._models
            if providers is None or provider in providers
        ]
        head, slash, rest = name.partition("/")
        if slash and rest and head in self.by_id:
            of_provider = [found for found in candidates if found[0] == head]
            found = self._matching(rest, of_provider)
            if found:
                return found
        return self._matching(name, candidates)

    def _matching(
        self, name: str, candidates: list[tuple[str, str]]
    ) -> tuple[tuple[str, str], ...]:
        if not name:
            return ()
        exact = tuple(found for found in candidates if found[1] == name)
        if exact:
            return exact
        wanted = name.casefold()
        undated = _undated(wanted)
        same = tuple(found for found in candidates if _undated(found[1].casefold()) == undated)
        if same:
            return same
        return tuple(
            found
            for found in candidates
            if wanted in found[1].casefold() or wanted in self._models[found].name.casefold()
        )

    def overlaid(self, newer: Catalogue) -> Catalogue:
        """This catalogue with the models of a newer one.

        Only models and defaults of providers that this one knows are taken. Addresses and key
        variables stay: a file from a network may change numbers, never where a key is sent.
        """
        by_id = {
            name: _with_models_of(mine, newer.by_id.get(name)) for name, mine in self.by_id.items()
        }
        return Catalogue(newer.date, newer.sources, by_id, self.notices)


def _with_models_of(mine: CatalogueProvider, theirs: CatalogueProvider | None) -> CatalogueProvider:
    if theirs is None or not theirs.models:
        return mine
    return attrs.evolve(
        mine,
        models=theirs.models,
        default_large=_default(theirs.default_large, mine.default_large, theirs),
        default_small=_default(theirs.default_small, mine.default_small, theirs),
    )


def _default(newer: str, older: str, provider: CatalogueProvider) -> str:
    """The newer default, else the older one if there still is such a model, else none."""
    known = {model.model for model in provider.models}
    return next((name for name in (newer, older) if name in known), "")


def _undated(model: str) -> str:
    return _DATED.sub("", model)
