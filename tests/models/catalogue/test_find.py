"""Names as people write them, and what they may mean."""

from __future__ import annotations

import pytest

from crush_trio.models.catalogue import Catalogue, CatalogueProvider
from crush_trio.protocol.models import ModelInfo


def _provider(name: str, *models: tuple[str, str]) -> CatalogueProvider:
    infos = tuple(ModelInfo(provider=name, model=id_, name=read) for id_, read in models)
    return CatalogueProvider(
        name,
        name.title(),
        "openai-compat",
        "openai-chat",
        "",
        (),
        "",
        "",
        False,
        frozenset(),
        infos,
    )


_PROVIDERS = (
    _provider(
        "anthropic",
        ("claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
        ("claude-opus-5", "Claude Opus 5"),
        ("claude-opus-5-5", "Claude Opus 5.5"),
    ),
    _provider("openai", ("gpt-5", "GPT-5"), ("gpt-4o-2024-08-06", "GPT-4o")),
    _provider("groq", ("openai/gpt-oss-120b", "GPT OSS"), ("gpt-5", "not that one")),
)
CATALOGUE = Catalogue("2027-01-01", (), {provider.id: provider for provider in _PROVIDERS})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-5", ["openai/gpt-5", "groq/gpt-5"]),
        ("openai/gpt-5", ["openai/gpt-5"]),
        ("claude-opus-5", ["anthropic/claude-opus-5"]),
        ("opus", ["anthropic/claude-opus-5", "anthropic/claude-opus-5-5"]),
        ("Opus 5.5", ["anthropic/claude-opus-5-5"]),
        ("claude-haiku-4-5", ["anthropic/claude-haiku-4-5-20251001"]),
        ("claude-haiku-4-5-20300101", ["anthropic/claude-haiku-4-5-20251001"]),
        ("GPT-4O", ["openai/gpt-4o-2024-08-06"]),
        ("anthropic/haiku", ["anthropic/claude-haiku-4-5-20251001"]),
        ("openai/gpt-oss-120b", ["groq/openai/gpt-oss-120b"]),
        ("groq/openai/gpt-oss-120b", ["groq/openai/gpt-oss-120b"]),
        ("groq/opus", []),
        ("", []),
        ("/", ["groq/openai/gpt-oss-120b"]),
        ("llama", []),
    ],
)
def test_a_name_finds_what_it_may_mean(name: str, expected: list[str]) -> None:
    assert ["/".join(found) for found in CATALOGUE.find(name)] == expected


def test_only_the_providers_that_count_are_looked_at() -> None:
    assert CATALOGUE.find("gpt-5", {"groq", "unknown"}) == (("groq", "gpt-5"),)
    assert CATALOGUE.find("openai/gpt-5", {"groq"}) == ()
