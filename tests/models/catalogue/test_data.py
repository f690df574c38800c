"""The shipped catalogue: what every entry of it must satisfy."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

import crush_trio.models.catalogue
from crush_trio.config.schema import PROVIDER_TYPES
from crush_trio.models.catalogue import CatalogueProvider, load
from crush_trio.models.catalogue.load import FILE, shipped
from crush_trio.models.catalogue.reading import LOOPBACK
from crush_trio.models.dialects import DIALECTS
from crush_trio.protocol.models import ModelInfo

CATALOGUE = load()
MODELS = CATALOGUE.models()
PROMISED = {
    "anthropic",
    "azure",
    "cerebras",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "huggingface",
    "litellm",
    "llamacpp",
    "lmstudio",
    "mistral",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "together",
    "vercel",
    "vllm",
    "xai",
    "zai",
}


def _name(value: ModelInfo | CatalogueProvider) -> str:
    return f"{value.provider}/{value.model}" if isinstance(value, ModelInfo) else value.id


def test_it_has_the_providers_that_are_promised_and_says_where_its_facts_are_from() -> None:
    assert set(CATALOGUE.by_id) == PROMISED
    assert CATALOGUE.sources
    assert CATALOGUE.date > "2026-01-01"
    assert CATALOGUE.notices == ()


@pytest.mark.parametrize("provider", CATALOGUE.providers(), ids=_name)
def test_a_provider_can_be_spoken_to(provider: CatalogueProvider) -> None:
    assert provider.dialect in DIALECTS
    assert provider.type in PROVIDER_TYPES
    address = urlsplit(provider.base_url)
    if provider.is_local:
        assert address.hostname in LOOPBACK
        assert not provider.models, "what a local server has is asked of it"
    elif provider.base_url:
        assert (address.scheme, bool(address.hostname)) == ("https", True)
    if provider.models:
        assert CATALOGUE.model(provider.id, provider.default_large) is not None
        assert CATALOGUE.model(provider.id, provider.default_small) is not None
        assert provider.base_url
        assert all(name.isupper() for name in provider.key_variables)
        assert provider.key_variables


@pytest.mark.parametrize("model", MODELS, ids=_name)
def test_the_numbers_of_a_model_are_sane(model: ModelInfo) -> None:
    assert model.context_window == 0 or model.context_window >= 8_192
    assert model.max_output_tokens < model.context_window or not model.context_window
    paid, earned = model.cost_per_1m_in, model.cost_per_1m_out
    assert (paid is None) == (earned is None)
    if paid is not None and earned is not None:
        assert 0 < paid <= earned <= 200, "output costs at least as much as input, nothing is free"
        assert model.cost_per_1m_out_cached is None or model.cost_per_1m_out_cached < paid
        assert model.cost_per_1m_in_cached is None or paid <= model.cost_per_1m_in_cached
    assert model.can_reason or not model.reasoning_levels
    assert model.supports_tools


def test_the_default_models_have_a_window_and_those_of_the_large_providers_a_price() -> None:
    for provider in CATALOGUE.providers():
        for name in (provider.default_large, provider.default_small):
            model = CATALOGUE.model(provider.id, name)
            assert model is None or model.context_window, f"{provider.id}/{name}"
    for provider_id in ("anthropic", "openai", "gemini", "openrouter"):
        provider = CATALOGUE.by_id[provider_id]
        for name in (provider.default_large, provider.default_small):
            model = CATALOGUE.model(provider_id, name)
            assert model is not None
            assert model.cost_per_1m_out is not None


def test_a_price_nobody_knows_is_null_in_json_and_never_zero() -> None:
    raw = Path(crush_trio.models.catalogue.__file__).with_name(FILE).read_bytes()
    prices = [
        value
        for provider in orjson.loads(raw)["providers"]
        for model in provider["models"]
        for key, value in model.items()
        if key.startswith("cost_")
    ]
    assert None in prices
    assert 0 not in prices


def test_it_is_loaded_within_ten_milliseconds() -> None:
    """Measured in CPU time, the median of some: the machine may be busy."""
    taken = []
    for _ in range(7):
        began = time.process_time()
        shipped.__wrapped__()
        taken.append(time.process_time() - began)
    assert statistics.median(taken) < 0.010
