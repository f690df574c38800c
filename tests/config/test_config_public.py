"""What others see of a configuration: CW 10.5's fields always, a secret never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crush_trio.config.keys import environment_keys, missing_key
from crush_trio.config.load import CONTEXT_PATHS, Config
from crush_trio.config.public import public
from crush_trio.config.schema import CONFIG
from crush_trio.config.shapes import Anything, ListOf, MapOf, Shape, Table, Text

DATA = Path("/data/crush-trio")


def shown(data: dict[str, Any]) -> dict[str, Any]:
    before = json.dumps(data)
    answer = public(Config(data), data_directory=DATA)
    assert json.dumps(data) == before
    return answer


def test_an_empty_configuration_still_has_everything_crushs_client_needs() -> None:
    answer = shown({})
    chosen = {"provider": "offline", "model": "scout"}
    assert answer["options"] == {
        "tui": {},
        "data_directory": "/data/crush-trio",
        "context_paths": list(CONTEXT_PATHS),
    }
    assert answer["models"] == {"large": chosen, "small": chosen}
    (provider,) = answer["providers"].values()
    assert provider["id"] == "offline"
    assert not provider.get("disable")
    assert [model["id"] for model in provider["models"]] == ["scout"]


@pytest.mark.parametrize(
    ("data", "large", "small"),
    [
        (
            {"providers": {"p": {"models": [{"id": "a"}, {"id": "b"}]}}},
            ("p", "a"),
            ("p", "a"),
        ),
        (
            {"providers": {"p": {"disable": True, "models": [{"id": "a"}]}, "q": {}}},
            ("offline", "scout"),
            ("offline", "scout"),
        ),
        (
            {"models": {"large": {"provider": "p", "model": "x"}}, "providers": {"p": {}}},
            ("p", "x"),
            ("p", "x"),
        ),
        (
            {
                "models": {
                    "large": {"provider": "local", "model": "x"},
                    "small": {"provider": "offline", "model": "scout"},
                }
            },
            ("local", "x"),
            ("offline", "scout"),
        ),
        (
            {
                "models": {"large": {"provider": "p", "model": "a"}},
                "providers": {"p": {"disable": True, "models": [{"id": "a"}]}},
            },
            ("offline", "scout"),
            ("offline", "scout"),
        ),
        (
            {"models": {"large": {}}, "providers": {"offline": {"disable": True}}},
            ("offline", "scout"),
            ("offline", "scout"),
        ),
    ],
)
def test_both_slots_name_a_model_of_an_enabled_provider(
    data: dict[str, Any], large: tuple[str, str], small: tuple[str, str]
) -> None:
    answer = shown(data)
    for slot, (provider, model) in (("large", large), ("small", small)):
        chosen = answer["models"][slot]
        assert (chosen["provider"], chosen["model"]) == (provider, model)
        listed = answer["providers"][provider]
        assert not listed.get("disable")
        assert model in [each["id"] for each in listed["models"]]


def filled(shape: Shape, secret: str) -> Any:
    """A value of ``shape`` with ``secret`` in every place where one might be written."""
    match shape:
        case Text(secret=True):
            return secret
        case Text(url=True):
            return f"https://user:{secret}@host/path?key={secret}#{secret}"
        case Text():
            return "plain"
        case Anything():
            return {"key": secret, "deep": [{"key": secret, "n": 1}]}
        case ListOf():
            return [filled(shape.item, secret)]
        case MapOf():
            return {"name": filled(shape.value, secret)}
        case Table():
            keys = {key: filled(value, secret) for key, value in shape.keys.items()}
            return {**keys, "apiKey": secret}
    return 1


def test_no_literal_secret_is_shown_wherever_it_is_written() -> None:
    """G12: every key of the table is filled, and each table has one unknown key too."""
    data = filled(CONFIG, "sk-123")
    assert json.dumps(data).count("sk-123") > 40
    answer = shown(data)
    assert "sk-123" not in json.dumps(answer)
    provider = answer["providers"]["name"]
    assert provider["api_key"] == "***"
    assert provider["base_url"] == "https://***@host/path?***"
    assert provider["extra_body"] == {"key": "***", "deep": [{"key": "***", "n": 1}]}
    assert answer["env"] == {"name": "***"}
    assert "apiKey" not in provider


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("$OPENAI_API_KEY", "$OPENAI_API_KEY"),
        ("${OPENAI_API_KEY}", "${OPENAI_API_KEY}"),
        ("Bearer $TOKEN", "Bearer $TOKEN"),
        ("", ""),
        ("${KEY:-sk-123}", "***"),
        ("$(echo sk-123)", "***"),
        ("sk-$TAIL", "***"),
        ("$KEY-123", "***"),
        ("$KEY\nsk-123", "***"),
    ],
)
def test_of_a_key_only_references_to_variables_are_shown(key: str, answer: str) -> None:
    """G12."""
    assert shown({"providers": {"p": {"api_key": key}}})["providers"]["p"]["api_key"] == answer


def test_providers_without_their_key_are_known_before_a_model_is_chosen() -> None:
    providers: dict[str, dict[str, Any]] = {
        "good": {"api_key": "literal"},
        "named": {"api_key": "$SET"},
        "unset": {"api_key": "$UNSET"},
        "openai": {},
        "anthropic": {"type": "anthropic"},
        "mine": {"type": "openai"},
        "login": {"type": "openai", "oauth": {"access_token": "t"}},
        "ollama": {"type": "ollama"},
        "local": {"type": "openai-compat", "base_url": "http://localhost:1"},
    }
    environ = {"SET": "k", "ANTHROPIC_API_KEY": "k", "OPENROUTER_API_KEY": ""}
    lacking = [name for name, each in providers.items() if missing_key(name, each, environ)]
    assert lacking == ["unset", "openai", "mine"]
    assert environment_keys(environ) == {"anthropic": "ANTHROPIC_API_KEY"}


def test_a_key_that_a_command_gives_is_not_missing_and_the_command_is_not_run(
    tmp_path: Path,
) -> None:
    assert missing_key("p", {"api_key": f"$(touch {tmp_path}/ran)"}, {}) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "provider", "words"),
    [
        ("p", {"api_key": "$A_KEY"}, "set the variable A_KEY"),
        ("p", {"api_key": " ${A_KEY}$B "}, "set the variable A_KEY or B"),
        ("openai", {}, "set the variable OPENAI_API_KEY, or providers.openai.api_key"),
        ("mine", {"type": "openai"}, "set providers.mine.api_key"),
        ("mine", {"type": "openai-compat"}, ""),
        ("openai", {"oauth": {"access_token": "t"}}, ""),
        ("openai", {"oauth": {}}, "set the variable OPENAI_API_KEY, or providers.openai.api_key"),
        ("openai", {"api_key": "sk-1"}, ""),
        ("openai", {"extra_headers": {"Authorization": "$T"}}, ""),
    ],
)
def test_what_to_do_about_a_missing_key_names_its_variable(
    name: str, provider: dict[str, Any], words: str
) -> None:
    """G14."""
    assert missing_key(name, provider, {}) == words
