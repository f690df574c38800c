"""From configuration, catalogue and keys to a target: pure tables, nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from crush_trio.config.load import Config
from crush_trio.models.catalogue import load
from crush_trio.models.provider import Target
from crush_trio.protocol.errors import ConfigError, Refused
from crush_trio.server.providers.access import Secrets, key_problem
from crush_trio.server.providers.known import KINDS, Known, known_providers
from crush_trio.server.providers.naming import unusable
from crush_trio.server.providers.targets import target_of

CATALOGUE = load()
NOTHING: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without keys."""
    for each in CATALOGUE.providers():
        for name in each.key_variables:
            monkeypatch.delenv(name, raising=False)


def known(providers: Mapping[str, Any], **options: Any) -> dict[str, Known]:
    """What is known with these providers configured."""
    return known_providers(Config({"providers": dict(providers), "options": options}), CATALOGUE)


def target(
    name: str,
    table: Mapping[str, Any],
    model: str = "m",
    env: Mapping[str, str] = NOTHING,
    **selected: Any,
) -> Target:
    """The target of one configured provider."""
    return target_of(known({name: table})[name], model, selected, env, Secrets())


@pytest.mark.parametrize(
    ("table", "dialect", "base_url"),
    [
        ({"type": "openai"}, "openai-responses", "https://api.openai.com/v1"),
        ({"type": "openai", "base_url": "https://eu.api.openai.com/v1"}, "openai-responses", None),
        ({"type": "openai", "base_url": "https://proxy.example/v1"}, "openai-chat", None),
        ({"type": "openai", "base_url": "$HERE"}, "openai-chat", "http://here"),
        ({"type": "openai", "base_url": "https://a.example", "api": "responses"},
         "openai-responses", None),
        ({"type": "openai", "api": "chat"}, "openai-chat", "https://api.openai.com/v1"),
        ({"base_url": "https://any.example/v1"}, "openai-chat", None),
        ({"type": "anthropic"}, "anthropic", "https://api.anthropic.com"),
        ({"type": "google"}, "gemini", "https://generativelanguage.googleapis.com"),
        ({"type": "openrouter"}, "openai-chat", "https://openrouter.ai/api/v1"),
        ({"type": "vercel"}, "openai-chat", "https://ai-gateway.vercel.sh/v1"),
        ({"type": "ollama"}, "openai-chat", "http://127.0.0.1:11434/v1"),
        ({"type": "azure", "base_url": "https://x.openai.azure.com"}, "openai-chat", None),
        ({"type": "azure", "base_url": "https://x.openai.azure.com", "api": "responses"},
         "openai-responses", None),
    ],
)  # fmt: skip
def test_a_type_leads_to_a_protocol_and_an_address(
    table: dict[str, Any], dialect: str, base_url: str | None
) -> None:
    provider = target("mine", table, env={"HERE": "http://here"}).provider
    assert provider.dialect == dialect
    assert provider.access().base_url == (base_url or table["base_url"])


@pytest.mark.parametrize("kind", ["bedrock", "google-vertex", "hyper"])
def test_a_type_that_is_not_spoken_is_said_to_be(kind: str) -> None:
    assert f"of type {kind}, which this version does not speak" in unusable(
        known({"mine": {"type": kind}})["mine"]
    )


def test_every_type_of_the_schema_and_of_the_catalogue_is_known_here() -> None:
    from crush_trio.config.schema import PROVIDER_TYPES

    assert set(KINDS) == set(PROVIDER_TYPES) >= {each.type for each in CATALOGUE.providers()}
    for each in known({}).values():
        entry = CATALOGUE.provider(each.id)
        assert entry is not None
        assert (each.facts.dialect, each.facts.base_url) == (entry.dialect, entry.base_url)
        assert each.quirks >= entry.quirks
        assert list(each.models.values()) == list(entry.models)


def test_a_configured_model_counts_over_the_catalogue_key_by_key() -> None:
    """CW 10.2: later files add entries of the same model, the last word on a key counts."""
    model = "claude-sonnet-5-5"
    entries = [
        {"id": model, "context_window": 5, "cost_per_1m_in": 1},
        {"id": "new", "default_max_tokens": 7, "reasoning_levels": ["low"]},
        {"id": model, "context_window": 6},
    ]
    found = known({"anthropic": {"models": entries}})["anthropic"]
    entry = CATALOGUE.model("anthropic", model)
    assert entry is not None
    assert found.info(model).context_window == 6
    assert found.info(model).cost_per_1m_in == 1.0
    assert found.info(model).cost_per_1m_out == entry.cost_per_1m_out
    new = found.info("new")
    assert (new.max_output_tokens, new.reasoning_levels) == (7, ("low",))
    assert new.cost_per_1m_in is None  # unknown is not free


def test_what_costs_nothing_is_free_and_what_nobody_knows_is_not() -> None:
    assert (
        known({"anthropic": {"flat_rate": True}})["anthropic"]
        .info("claude-sonnet-5-5")
        .cost_per_1m_out
        == 0.0
    )
    assert known({"lair": {"type": "llamacpp"}})["lair"].info("any").cost_per_1m_in == 0.0
    far = known({"lair": {"type": "llamacpp", "base_url": "http://far.example/v1"}})["lair"]
    assert far.info("any").cost_per_1m_in is None
    assert not far.facts.is_local


def test_a_choice_is_what_was_selected_over_what_the_model_is_usually_asked_with() -> None:
    """CW 10.2: `models.large`, over the model's `options`, over the provider's."""
    table = {
        "base_url": "http://x",
        "provider_options": {"a": 1, "b": 1, "c": 1},
        "models": [
            {"id": "m", "options": {"temperature": 0.5, "top_k": 3, "provider_options": {"b": 2}}}
        ],
        "extra_body": {"e": 1},
        "system_prompt_prefix": "First this.",
    }
    found = target("mine", table, temperature=0.9, max_tokens=9, provider_options={"c": 3})
    assert (found.choice.temperature, found.choice.top_k, found.choice.max_tokens) == (0.9, 3, 9)
    assert found.choice.options == {"a": 1, "b": 2, "c": 3}
    assert found.provider.extra_body == {"e": 1}
    assert found.provider.system_prompt_prefix == "First this."


def test_an_effort_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of low, medium, high, xhigh, max"):
        target("anthropic", {}, "claude-sonnet-5-5", reasoning_effort="ultra")
    found = target("anthropic", {}, "claude-sonnet-5-5", reasoning_effort="max", think=True)
    assert (found.choice.reasoning_effort, found.choice.think) == ("max", True)


def test_azures_version_goes_along_as_its_dialect_wants_it() -> None:
    table = {"type": "azure", "base_url": "https://x.openai.azure.com", "api_version": "$V"}
    found = target("mine", table, env={"V": "2025-01-01"})
    assert found.provider.quirks == {"azure", "api-version=2025-01-01"}
    assert target("mine", table).provider.quirks == {"azure"}


def test_a_client_s_key_counts_before_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 7. What is sent is looked up when it is sent, and remembered to be masked."""
    table = {"base_url": "http://x", "api_key": "$K", "extra_headers": {"x-api-token": "$T"}}
    monkeypatch.setenv("K", "server's")
    secrets = Secrets()
    mine = known({"mine": table})["mine"]
    provider = target_of(mine, "m", {}, {"T": "token"}, secrets).provider
    assert provider.access().api_key == "server's"
    monkeypatch.setenv("K", "changed")
    assert provider.access().api_key == "changed"
    theirs = target_of(mine, "m", {}, {"K": "client's"}, secrets).provider
    assert theirs.access().api_key == "client's"
    assert theirs.access().headers == {}  # empty, so left out
    assert set(secrets.values()) == {"server's", "changed", "client's", "token"}
    assert "changed" not in repr(provider.access())


def test_a_usual_variable_is_not_used_where_another_key_was_meant() -> None:
    env = {"OPENAI_API_KEY": "usual"}
    assert target("openai", {}, env=env).provider.access().api_key == "usual"
    assert target("openai", {"api_key": "$OTHER"}, env=env).provider.access().api_key == ""
    token = {"oauth": {"access_token": "brought"}}
    assert target("openai", token, env=env).provider.access().api_key == "brought"


@pytest.mark.parametrize(
    ("name", "table", "env", "problem"),
    [
        ("openai", {}, {}, "set the variable OPENAI_API_KEY, or providers.openai.api_key"),
        ("openai", {}, {"OPENAI_API_KEY": " "}, "set the variable OPENAI_API_KEY, or"),
        ("openai", {}, {"OPENAI_API_KEY": "k"}, ""),
        ("openai", {"api_key": "$MINE"}, {"OPENAI_API_KEY": "k"}, "set the variable MINE"),
        ("openai", {"api_key": "${A:-}$B"}, {}, "set the variable A or B"),
        ("openai", {"api_key": "$(pass show key)"}, {}, ""),  # not run to find out
        ("openai", {"oauth": {"access_token": "t"}}, {}, ""),
        ("openai", {"extra_headers": {"Authorization": "x"}}, {}, ""),
        ("gemini", {}, {}, "set the variable GEMINI_API_KEY or GOOGLE_API_KEY, or"),
        ("mine", {"type": "anthropic"}, {}, "set providers.mine.api_key"),
        ("mine", {"base_url": "http://x"}, {}, ""),
        ("groq", {}, {}, "set the variable GROQ_API_KEY, or"),
        ("ollama", {}, {}, ""),
        ("lmstudio", {}, {}, ""),
    ],
)
def test_a_missing_key_is_named_with_what_to_do(
    name: str, table: dict[str, Any], env: dict[str, str], problem: str
) -> None:
    found = key_problem(known({name: table})[name], env)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_only_what_is_configured_is_known_where_the_user_wants_it_so() -> None:
    both = {"mine": {"base_url": "http://x"}, "groq": {}}
    assert list(known(both, disable_default_providers=True)) == ["groq", "mine"]
    assert next(iter(known(both))) == "anthropic"


def test_a_provider_without_an_address_says_what_to_set() -> None:
    assert "set providers.azure.base_url" in unusable(known({"azure": {}})["azure"])
    with pytest.raises(ConfigError, match=r"set providers\.mine\.base_url"):
        target("mine", {"base_url": "$UNSET"}).provider.access()


def test_the_newest_secrets_are_remembered() -> None:
    secrets = Secrets()
    for number in range(1_500):
        secrets.add(str(number), "")
    assert (len(secrets.values()), secrets.values()[-1]) == (1_000, "1499")


def test_a_refusal_has_a_status() -> None:
    assert {Refused(code, "").status for code in ("unknown_provider", "key_missing")} == {400}
