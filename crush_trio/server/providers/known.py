"""Providers as they can be used: what the configuration says, over what the catalogue knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from crush_trio.config.load import Config
from crush_trio.models.catalogue import Catalogue, CatalogueProvider
from crush_trio.models.provider import Access, Choice
from crush_trio.protocol.models import ModelInfo

_NO_QUIRKS: Final[frozenset[str]] = frozenset()


@attrs.frozen
class Kind:
    """What the ``type`` of a provider implies; an empty ``dialect`` is not spoken here."""

    dialect: str
    base_url: str = ""
    quirks: frozenset[str] = _NO_QUIRKS
    is_local: bool = False
    needs_key: bool = False


_OPENAI: Final = "https://api.openai.com/v1"
KINDS: Final[dict[str, Kind]] = {
    "openai": Kind("openai-responses", _OPENAI, frozenset({"openai"}), needs_key=True),
    "openai-compat": Kind("openai-chat"),
    "anthropic": Kind("anthropic", "https://api.anthropic.com", needs_key=True),
    "google": Kind("gemini", "https://generativelanguage.googleapis.com", needs_key=True),
    "azure": Kind("openai-chat", "", frozenset({"azure"}), needs_key=True),
    "openrouter": Kind(
        "openai-chat", "https://openrouter.ai/api/v1", frozenset({"openrouter"}), needs_key=True
    ),
    "vercel": Kind("openai-chat", "https://ai-gateway.vercel.sh/v1", needs_key=True),
    "litellm": Kind("openai-chat"),
    "llamacpp": Kind("openai-chat", "http://127.0.0.1:8080/v1", is_local=True),
    "lmstudio": Kind("openai-chat", "http://127.0.0.1:1234/v1", is_local=True),
    "ollama": Kind("openai-chat", "http://127.0.0.1:11434/v1", is_local=True),
    "omlx": Kind("openai-chat", "http://127.0.0.1:8000/v1", is_local=True),
    "bedrock": Kind(""),
    "google-vertex": Kind(""),
    "hyper": Kind(""),
}
"""What each type of CW 10.2 implies."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_APIS: Final = {"chat": "openai-chat", "responses": "openai-responses"}
_PRICES: Final = (
    "cost_per_1m_in",
    "cost_per_1m_out",
    "cost_per_1m_in_cached",
    "cost_per_1m_out_cached",
)
_FREE: Final[dict[str, Any]] = dict.fromkeys(_PRICES, 0.0)
_FIELDS: Final = {
    "name": "name",
    **{name: name for name in _PRICES},
    "context_window": "context_window",
    "default_max_tokens": "max_output_tokens",
    "can_reason": "can_reason",
    "default_reasoning_effort": "default_reasoning_effort",
    "supports_attachments": "supports_attachments",
    "supports_tools": "supports_tools",
}
"""The keys of a configured model (CW 10.2), and the fields of `ModelInfo` they set."""


@attrs.frozen(eq=False)
class Known:
    """One provider.

    Args:
        facts: Names, address, variables, defaults and models; its ``base_url`` may hold templates.
        table: Its table in the configuration, templates unexpanded; empty if it has none.
        is_configured: It stands in the configuration.
        needs_key: It answers nobody without a key.
        quirks: See the dialects.
        models: By id, with what the configuration says of them.
        access: How it is reached where that is not what ``facts`` and ``table`` say.
    """

    facts: CatalogueProvider
    table: Mapping[str, Any] = attrs.field(repr=False)
    is_configured: bool
    needs_key: bool
    quirks: frozenset[str]
    models: Mapping[str, ModelInfo]
    access: Callable[[], Access] | None = attrs.field(default=None, repr=False)

    @property
    def id(self) -> str:
        """The part of its models' names before the first slash."""
        return self.facts.id

    @property
    def is_disabled(self) -> bool:
        """The configuration says that it is not to be used."""
        return self.table.get("disable") is True

    @property
    def discovers(self) -> bool:
        """Whether it is asked which models it has: it should be, or nobody else can know."""
        return self.facts.is_local or self.table.get("discover_models") is True

    def default(self) -> str:
        """Its model where only the provider was chosen; empty if nobody knows one."""
        if self.facts.default_large in self.models:
            return self.facts.default_large
        return next(iter(self.models), "")

    def info(self, model: str) -> ModelInfo:
        """What a model is; of one that nobody knows, only its name is known."""
        found = self.models.get(model)
        if found is None:
            found = ModelInfo(self.id, model, model)
            found = attrs.evolve(found, **_FREE) if self._is_free() else found
        return found

    def _is_free(self) -> bool:
        return self.facts.is_local or self.table.get("flat_rate") is True

    def choice(self, model: str, selected: Mapping[str, Any]) -> Choice:
        """How to ask a model: what was selected, over the defaults of the model (CW 10.2)."""
        configured = self._configured(model).get("options", {})
        both = {**configured, **selected}
        options = {
            **self.table.get("provider_options", {}),
            **configured.get("provider_options", {}),
            **selected.get("provider_options", {}),
        }
        names = (field.name for field in attrs.fields(Choice) if field.name != "options")
        return Choice(**{name: both.get(name) for name in names}, options=options)

    def _configured(self, model: str) -> dict[str, Any]:
        """The entry of a model in the configuration; of several, the last word on each key."""
        found: dict[str, Any] = {}
        for entry in self.table.get("models", ()):
            if entry.get("id") == model:
                found |= entry
        return found


def known_providers(config: Config, catalogue: Catalogue) -> dict[str, Known]:
    """Every provider there is, by id: those of the catalogue in its order, then the others by id.

    With ``options.disable_default_providers`` only those that are configured.
    """
    configured = config.providers
    only = config.options.get("disable_default_providers") is True
    ids = [each.id for each in catalogue.providers() if each.id in configured or not only]
    ids += sorted(set(configured) - set(ids))
    return {each: _known(each, configured.get(each), catalogue.provider(each)) for each in ids}


def _known(id: str, table: Mapping[str, Any] | None, entry: CatalogueProvider | None) -> Known:  # noqa: A002 (it is the id)
    given = table or {}
    kind_name = given.get("type") or (entry.type if entry is not None else "openai-compat")
    kind = KINDS.get(kind_name, KINDS["openai-compat"])
    is_catalogued = entry is not None and entry.type == kind_name
    base_url = given.get("base_url") or (entry.base_url if entry is not None else "")
    is_local = kind.is_local or (entry is not None and entry.is_local)
    if given.get("base_url") and is_local:
        is_local = _is_loopback(given["base_url"])
    facts = CatalogueProvider(
        id=id,
        name=given.get("name") or (entry.name if entry is not None else id),
        type=kind_name,
        dialect=_dialect(given, entry.dialect if entry and is_catalogued else kind.dialect),
        base_url=base_url or kind.base_url,
        key_variables=entry.key_variables if entry is not None else (),
        default_large=entry.default_large if entry is not None else "",
        default_small=entry.default_small if entry is not None else "",
        is_local=is_local,
        quirks=entry.quirks if entry is not None and is_catalogued else _NO_QUIRKS,
        models=entry.models if entry is not None else (),
    )
    quirks = facts.quirks | kind.quirks
    if kind_name == "openai" and not _is_openai(given):
        quirks -= {"openai"}
    needs_key = kind.needs_key or (
        is_catalogued and bool(facts.key_variables) and not (is_local or kind_name == "litellm")
    )
    bare = Known(facts, given, table is not None, needs_key, quirks, {})
    return attrs.evolve(bare, models=_models(bare))


def _dialect(table: Mapping[str, Any], usual: str) -> str:
    """OpenAI's newer interface is its own: elsewhere it is spoken only if it is asked for."""
    if usual not in _APIS.values():
        return usual
    if table.get("api") in _APIS:
        return _APIS[table["api"]]
    return usual if _is_openai(table) else "openai-chat"


def _is_openai(table: Mapping[str, Any]) -> bool:
    """Whether the address is OpenAI's own, as far as one can tell without expanding it."""
    base_url = table.get("base_url") or _OPENAI
    return ".openai.com" in base_url.partition("://")[2].partition("/")[0]


def _is_loopback(base_url: str) -> bool:
    try:
        return urlsplit(base_url).hostname in _LOOPBACK
    except ValueError:  # a template, perhaps: whatever it is, it is no address of this machine
        return False


def _models(known: Known) -> dict[str, ModelInfo]:
    """Its models by id: the configured ones first, as somebody has thought of them."""
    ids = [entry["id"] for entry in known.table.get("models", ()) if entry.get("id")]
    catalogued = {model.model: model for model in known.facts.models}
    found: dict[str, ModelInfo] = {}
    for model in dict.fromkeys((*ids, *catalogued)):
        said = known._configured(model)
        base = catalogued.get(model) or known.info(model)
        changes = {ours: said[key] for key, ours in _FIELDS.items() if key in said}
        if "reasoning_levels" in said:
            changes["reasoning_levels"] = tuple(said["reasoning_levels"])
        if known.table.get("flat_rate") is True:
            changes |= _FREE
        found[model] = attrs.evolve(base, **changes)
    return found
