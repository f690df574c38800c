"""The table of keys: what it refuses, what it lets through, and the schema made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crush_trio import limits
from crush_trio.config.schema import CONFIG, NO_EFFECT, config_json_schema, validated
from crush_trio.config.shapes import Anything, Flag, ListOf, MapOf, Number, Shape, Table, Text
from crush_trio.protocol.errors import ConfigError

COMPLETE: dict[str, Any] = {
    "$schema": "https://example.org/schema.json",
    "models": {
        "large": {"model": "m", "provider": "p", "temperature": 0.5, "think": True},
        "small": {"model": "n", "provider": "p", "frequency_penalty": -1},
    },
    "recent_models": {"large": [{"model": "m", "provider": "p"}]},
    "providers": {
        "p": {
            "type": "openai-compat",
            "base_url": "https://example.org/v1",
            "api_key": "$KEY",
            "oauth": {"access_token": "a", "expires_in": 1, "client": {"auth_style": 1}},
            "extra_headers": {"X-Team": "$TEAM"},
            "extra_body": {"anything": [1, {"deep": None}]},
            "models": [{"id": "m", "cost_per_1m_in": 1.5, "options": {"top_k": 3}}],
        }
    },
    "mcp": {"files": {"type": "stdio", "command": "npx", "args": ["-y", "files"], "env": {}}},
    "lsp": {"go": {"command": "gopls", "init_options": {"a": 1}}},
    "options": {
        "context_paths": ["NOTES.md"],
        "tui": {"diff_mode": "split", "completions": {"max_depth": 2}},
        "attribution": {"trailer_style": "none"},
        "env_allow": ["CARGO_HOME"],
    },
    "permissions": {"allowed_tools": ["bash:execute"]},
    "tools": {"ls": {"max_depth": 0}, "grep": {"timeout": 5_000_000_000}},
    "hooks": {"PreToolUse": [{"matcher": "^bash$", "command": "true"}]},
    "env": {"NAME": "value"},
}


def test_a_file_that_uses_every_top_level_key_is_accepted_unchanged() -> None:
    assert set(COMPLETE) == set(CONFIG.keys)
    assert validated(COMPLETE, "f") == (COMPLETE, ())


def test_null_is_the_same_as_leaving_the_key_out() -> None:
    document = {"mcp": None, "options": {"tui": None, "debug": True}, "providers": {"p": None}}
    assert validated(document, "f") == ({"options": {"debug": True}, "providers": {}}, ())


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"options": []}, "$.options: expected an object, not an array"),
        (
            {"options": {"progress": "yes"}},
            "$.options.progress: expected true or false, not a string",
        ),
        ({"options": {"debug": 1}}, "$.options.debug: expected true or false, not an integer"),
        (
            {"options": {"tui": {"diff_mode": "side"}}},
            '$.options.tui.diff_mode: expected one of "unified", "split"',
        ),
        (
            {"options": {"notifications": False}},
            '$.options.notifications: expected one of "auto", "native", "osc", "bell", "disabled",'
            " not a boolean",
        ),
        (
            {"models": {"large": {"max_tokens": 1.5}}},
            "$.models.large.max_tokens: expected an integer of at least 0, not a number",
        ),
        (
            {"models": {"large": {"max_tokens": True}}},
            "$.models.large.max_tokens: expected an integer of at least 0, not a boolean",
        ),
        (
            {"models": {"large": {"top_k": -1}}},
            "$.models.large.top_k: expected an integer of at least 0",
        ),
        (
            {"models": {"large": {"presence_penalty": "1"}}},
            "$.models.large.presence_penalty: expected a number from -2 to 2, not a string",
        ),
        (
            {"models": {"small": {"temperature": 2.1}}},
            "$.models.small.temperature: expected a number from 0 to 2",
        ),
        (
            {"models": {"small": {"top_p": -0.1}}},
            "$.models.small.top_p: expected a number from 0 to 1",
        ),
        (
            {"providers": {"my own": {"api_key": 12345}}},
            '$.providers["my own"].api_key: expected a string, not an integer',
        ),
        (
            {"permissions": {"allowed_tools": ["view", None]}},
            "$.permissions.allowed_tools[1]: expected a string, not null",
        ),
        (
            {"providers": {"p": {"models": [{"id": "a"}, {"id": {}}]}}},
            "$.providers.p.models[1].id: expected a string, not an object",
        ),
        (
            {"providers": {"p": {"extra_body": 1}}},
            "$.providers.p.extra_body: expected an object, not an integer",
        ),
    ],
)
def test_a_wrong_value_gets_one_sentence_with_file_path_and_expectation(
    document: dict[str, Any], sentence: str
) -> None:
    """G14."""
    with pytest.raises(ConfigError) as caught:
        validated(document, "/etc/c.json")
    assert str(caught.value) == f"/etc/c.json: {sentence}."


def test_a_refusal_never_quotes_the_value_because_it_may_be_a_secret() -> None:
    """G12."""
    secret = "sk-very-secret"
    for document in (
        {"options": {"notifications": secret}},
        {"providers": {"p": {"type": secret}}},
        {"providers": {"p": {"api_key": [secret]}}},
    ):
        with pytest.raises(ConfigError) as caught:
            validated(document, "f")
        assert secret not in str(caught.value)


def test_unknown_keys_are_kept_and_named_by_path() -> None:
    document = {
        "theme": "dark",
        "options": {"new": None, "newer": 1},
        "mcp": {"x": {"typ": "http"}},
    }
    clean, unknown = validated(document, "f")
    assert clean == {"theme": "dark", "options": {"newer": 1}, "mcp": {"x": {"typ": "http"}}}
    assert unknown == ("$.theme", "$.options.newer", "$.mcp.x.typ (did you mean type?)")


def test_a_hostile_key_cannot_flood_or_control_the_terminal() -> None:
    """G14."""
    _, unknown = validated({"\x1b[2J" + "a" * 10_000: 1}, "f")
    (name,) = unknown
    assert "\x1b" not in name
    assert len(name) < limits.CONFIG_NAME_CHARS + 40


def agrees(shape: Shape, schema: dict[str, Any]) -> int:
    """How many places of the table the schema describes the same way."""
    assert schema["description"] == shape.about != ""
    match shape:
        case Text():
            assert schema["type"] == "string"
            assert tuple(schema.get("enum", ())) == shape.choices
        case Number():
            assert schema["type"] == ("integer" if shape.whole else "number")
            assert schema.get("minimum") == shape.minimum
            assert schema.get("maximum") == shape.maximum
        case Flag():
            assert schema["type"] == "boolean"
        case Anything():
            assert schema["type"] == "object"
        case ListOf():
            assert schema["type"] == "array"
            return 1 + agrees(shape.item, schema["items"])
        case MapOf():
            assert schema["type"] == "object"
            return 1 + agrees(shape.value, schema["additionalProperties"])
        case Table():
            assert schema["type"] == "object"
            assert "additionalProperties" not in schema
            assert set(schema["properties"]) == set(shape.keys)
            return 1 + sum(agrees(shape.keys[k], s) for k, s in schema["properties"].items())
    return 1


def test_the_json_schema_says_the_same_as_the_table() -> None:
    schema = config_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema.pop("$schema").endswith("2020-12/schema")
    assert schema.pop("title")
    assert agrees(CONFIG, schema) > 150


def test_keys_without_effect_are_keys_of_the_table() -> None:
    for path in NO_EFFECT:
        shape: Shape = CONFIG
        for key in path:
            if key == "*":
                assert isinstance(shape, MapOf)
                shape = shape.value
            else:
                assert isinstance(shape, Table)
                shape = shape.keys[key]


def test_the_page_about_configuration_names_every_key_of_the_first_two_levels() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    options = CONFIG.keys["options"]
    assert isinstance(options, Table)
    missing = [key for key in (*CONFIG.keys, *options.keys) if f"`{key}" not in page]
    assert missing == []
    without_effect = page.partition("## Without effect")[2]
    assert [path for path in NO_EFFECT if f"`{path[-1]}" not in without_effect] == []
