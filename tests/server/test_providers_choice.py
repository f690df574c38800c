"""Names people write, and what is taken when they name nothing (contract 9)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from crush_trio.config.load import Config
from crush_trio.host.kit import Chosen
from crush_trio.http.connections import Connections
from crush_trio.models.catalogue import FILE, load
from crush_trio.models.local import LocalServers
from crush_trio.models.network.model import NetworkModel
from crush_trio.protocol.errors import ConfigError, Refused
from crush_trio.server.kit import ServerKit
from crush_trio.server.providers.models import Models
from crush_trio.tools.processes.spill import SpillArea

ANTHROPIC = {"ANTHROPIC_API_KEY": "k1"}
BOTH = {**ANTHROPIC, "OPENROUTER_API_KEY": "k2"}
LARGE, SMALL = "claude-sonnet-5-5", "claude-haiku-4-5-20251001"
DEN = {
    "base_url": "http://127.0.0.1:9/v1",
    "models": [{"id": "tiny"}, {"id": "little"}, {"id": "llama3:latest"}],
}


@pytest.fixture
async def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Models]:
    """A server without keys, on a machine without model servers."""
    for each in load().providers():
        for name in each.key_variables:
            monkeypatch.delenv(name, raising=False)
    async with Connections(environ={}) as connections:
        yield Models(tmp_path, connections, LocalServers({}, sockets=tuple))


async def chosen(
    models: Models, name: str | None, config: Mapping[str, Any], env: Mapping[str, str] = BOTH
) -> Chosen:
    """What is chosen; something must be."""
    found = await models.choose(name, Config(dict(config)), env)
    assert found is not None
    return found


def name_of(found: Chosen) -> str:
    info = found.model.info
    return f"{info.provider}/{info.model}"


def small_of(found: Chosen) -> str:
    small = found.model.titler()  # type: ignore[attr-defined]
    return f"{small.info.provider}/{small.info.model}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("anthropic", f"anthropic/{LARGE}"),
        ("anthropic/", f"anthropic/{LARGE}"),
        (f"anthropic/{LARGE}", f"anthropic/{LARGE}"),
        ("anthropic/claude-haiku-4-5", f"anthropic/{SMALL}"),
        ("claude-opus-5-5", "anthropic/claude-opus-5-5"),
        ("OPUS-5-5", "anthropic/claude-opus-5-5"),
        ("openrouter/anthropic/claude-sonnet-5.5", "openrouter/anthropic/claude-sonnet-5.5"),
        ("anthropic/claude-sonnet-5.5", "openrouter/anthropic/claude-sonnet-5.5"),
        ("anthropic/brand-new", "anthropic/brand-new"),
        ("openrouter/maker/brand-new", "openrouter/maker/brand-new"),
        ("den", "den/tiny"),
        ("den/little", "den/little"),
        ("tiny", "den/tiny"),
        ("den/llama3", "den/llama3:latest"),
    ],
)
async def test_a_name_leads_to_one_model(models: Models, name: str, meant: str) -> None:
    found = await chosen(models, name, {"providers": {"den": DEN}})
    assert name_of(found) == meant
    assert bool(found.notices) == (name.endswith("new") or name == "anthropic/claude-sonnet-5.5")


async def test_configured_certificates_count_for_the_models_of_that_configuration(
    models: Models, tmp_path: Path
) -> None:
    path = tmp_path / "company.pem"
    with_file = await chosen(
        models, f"anthropic/{LARGE}", {"options": {"ca_file": str(path)}}, ANTHROPIC
    )
    without = await chosen(models, f"anthropic/{LARGE}", {}, ANTHROPIC)
    for found, file in ((with_file, path), (without, None)):
        assert isinstance(found.model, NetworkModel)
        assert found.model.connections.certificates.ca_file == file
        small = found.model.titler()
        assert isinstance(small, NetworkModel)
        assert small.connections is found.model.connections


async def test_a_makers_name_is_read_as_a_provider_first(models: Models) -> None:
    found = await chosen(models, "openai/gpt-oss-120b", {}, {"GROQ_API_KEY": "k", **ANTHROPIC})
    assert name_of(found) == "groq/openai/gpt-oss-120b"
    assert found.notices == ("using groq/openai/gpt-oss-120b (openai has no model gpt-oss-120b)",)
    with pytest.raises(Refused, match="OPENAI_API_KEY"):
        await chosen(models, "openai/gpt-5.5", {})  # though openrouter has it, too


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("sonnet-5", "unknown_model", "may mean anthropic/claude-sonnet-5-5, anthropic/claude-"),
        ("claude-sonet-5", "unknown_model", "did you mean claude-sonnet-5"),
        ("antropic/x", "unknown_provider", "did you mean anthropic?"),
        ("antropic", "unknown_model", "did you mean anthropic"),
        ("nobody/x", "unknown_provider", "There is no provider 'nobody'"),
        (
            "zzz",
            "unknown_model",
            "There is no model 'zzz'; write PROVIDER/MODEL; crush-trio models",
        ),
        ("openai/gpt-9", "key_missing", "set the variable OPENAI_API_KEY"),
        ("grok-4.7", "key_missing", "'xai' has no key: set the variable XAI_API_KEY"),
        ("off/x", "unknown_provider", "'off' is disabled in the configuration"),
        ("cloud/x", "unknown_provider", "of type bedrock, which this version does not speak"),
        ("ollama/x", "unknown_provider", "Ollama does not answer at http://127.0.0.1:11434/v1"),
    ],
)
async def test_a_name_that_leads_nowhere_says_what_to_write(
    models: Models, name: str, code: str, words: str
) -> None:
    """G14."""
    providers = {"off": {**DEN, "disable": True}, "cloud": {"type": "bedrock"}}
    with pytest.raises(Refused) as caught:
        await chosen(models, name, {"providers": providers})
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.message[-1] in ".?"


@pytest.mark.parametrize("name", [None, "den/tiny", "tiny"])
async def test_a_file_that_is_not_trusted_is_named_where_its_provider_is_missed(
    models: Models, name: str | None
) -> None:
    """Contract 7: what does not count is named, also where nothing can run without it."""
    large = {"models": {"large": {"provider": "den", "model": "tiny"}}}
    for inert, said in (("providers, mcp", True), ("mcp", False)):
        config = Config(large, inert=(f"crush.json: {inert}",), trust="none")
        with pytest.raises(Refused) as caught:
            await models.choose(name, config, ANTHROPIC)
        assert ("crush.json: providers" in caught.value.message) == said
        assert ("(crush-trio config trust)." in caught.value.message) == said


async def test_a_client_that_means_another_file_than_the_server_is_told_so(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a shell names does not reach a server that runs already."""
    kit = ServerKit(tmp_path, SpillArea(tmp_path / "outputs"), models)
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    ours.write_text("{}")
    env = {**ANTHROPIC, "CRUSH_TRIO_CONFIG": str(theirs)}
    for started, counts in (("", "without one"), (str(ours), f"with {ours}")):
        monkeypatch.setenv("CRUSH_TRIO_CONFIG", started)
        told = f"CRUSH_TRIO_CONFIG names {theirs}, but the server was started {counts}: crush-trio"
        found = await kit.model(None, tmp_path, local=True, env=env)
        assert found.notices[-1].startswith(told)
        with pytest.raises(Refused, match="There is no provider 'nobody'") as caught:
            await kit.model("nobody/x", tmp_path, local=True, env=env)
        assert told in caught.value.message
    same = {**ANTHROPIC, "CRUSH_TRIO_CONFIG": str(ours)}
    assert len((await kit.model(None, tmp_path, local=True, env=same)).notices) == 1


async def test_what_is_configured_comes_before_keys_and_keys_in_the_catalogues_order(
    models: Models,
) -> None:
    den = {"providers": {"den": DEN}}
    large = {"models": {"large": {"provider": "openrouter", "model": "openai/gpt-5.5"}}}
    assert name_of(await chosen(models, None, {**den, **large})) == "openrouter/openai/gpt-5.5"
    assert name_of(await chosen(models, None, den)) == "den/tiny"
    found = await chosen(models, None, {})
    assert name_of(found) == f"anthropic/{LARGE}"
    assert found.notices == (f"using anthropic/{LARGE} (ANTHROPIC_API_KEY is set)",)
    assert not (await chosen(models, None, den)).notices


async def test_a_clients_keys_count_before_those_of_the_server(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "server's")
    found = await chosen(models, None, {}, {"OPENROUTER_API_KEY": "client's"})
    assert found.model.info.provider == "openrouter"
    assert (await chosen(models, None, {}, {})).model.info.provider == "anthropic"


async def test_the_planner_is_left_only_if_nothing_else_was_meant(models: Models) -> None:
    """Contract 9: exit 4 where a configured provider lacks its key, which is named."""
    assert await models.choose(None, Config({}), {}) is None
    off = {"providers": {"den": {**DEN, "disable": True}, "anthropic": {"disable": True}}}
    assert await models.choose(None, Config(off), ANTHROPIC) is None
    lacking = {"providers": {"den": {**DEN, "api_key": "$DEN_KEY"}}}
    with pytest.raises(Refused, match="set the variable DEN_KEY") as caught:
        await models.choose(None, Config(lacking), {})
    assert caught.value.code == "key_missing"
    found = await chosen(models, None, lacking, ANTHROPIC)  # another key is there
    assert found.model.info.provider == "anthropic"


async def test_a_configured_model_that_cannot_be_used_is_not_made_up_for(models: Models) -> None:
    def large(provider: str, model: str = "m", **more: Any) -> dict[str, Any]:
        return {"models": {"large": {"provider": provider, "model": model, **more}}}

    with pytest.raises(Refused, match="OPENAI_API_KEY"):
        await chosen(models, None, large("openai"))
    with pytest.raises(Refused, match="which is not known; did you mean openrouter"):
        await chosen(models, None, large("openroute"))
    with pytest.raises(ConfigError, match="expected one of"):
        await chosen(models, None, large("anthropic", LARGE, reasoning_effort="ultra"))


async def test_titles_go_to_the_small_model_of_the_same_choice(models: Models) -> None:
    """CW 5.12; who names a model of another provider sends the prompt to no third one."""
    slots = {
        "large": {"provider": "anthropic", "model": LARGE},
        "small": {"provider": "den", "model": "little"},
    }
    config = {"providers": {"den": DEN}, "models": slots}
    assert small_of(await chosen(models, None, config)) == "den/little"
    assert small_of(await chosen(models, "den/tiny", config)) == "den/little"
    assert small_of(await chosen(models, "openrouter", config)).startswith("openrouter/")
    assert small_of(await chosen(models, "anthropic", {})) == f"anthropic/{SMALL}"
    assert small_of(await chosen(models, "den", {"providers": {"den": DEN}})) == "den/tiny"


async def test_settings_of_a_slot_count_when_its_model_is_named(models: Models) -> None:
    slot = {"provider": "anthropic", "model": LARGE, "reasoning_effort": "ultra"}
    with pytest.raises(ConfigError):
        await chosen(models, f"anthropic/{LARGE}", {"models": {"large": slot}})
    found = await chosen(models, "anthropic/claude-opus-5-5", {"models": {"large": slot}})
    assert found.model.info.model == "claude-opus-5-5"


async def test_a_refreshed_catalogue_counts_from_the_next_run_on(
    models: Models, tmp_path: Path
) -> None:
    async def window() -> int:
        return (await chosen(models, "anthropic", {})).model.info.context_window

    before = await window()
    model = {"id": LARGE, "name": "New", "context_window": before + 1}
    provider = {"id": "anthropic", "name": "A", "type": "anthropic", "dialect": "anthropic"}
    provider |= {"base_url": "https://api.anthropic.com", "models": [model]}  # type: ignore[dict-item]
    newer = {"format": 1, "date": "2099-01-01", "about": "", "sources": [], "providers": [provider]}
    (tmp_path / FILE).write_text(json.dumps(newer))
    assert await window() == before + 1
    (tmp_path / FILE).unlink()
    assert await window() == before
