"""A script file is read strictly, its mistakes are named, and its schema says the same."""

from __future__ import annotations

import os
import types
import typing
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from crush_trio import limits
from crush_trio.models import script_schema as s
from crush_trio.protocol.errors import DecodeError

SCHEMA = orjson.loads(s.schema_text())
CLASSES = [s.Script, s.ModelFacts, s.When, s.UsageNumbers, s.Step, s.Title, *s.ACTIONS.values()]


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ([], "$: expected an object, not a list"),
        ({}, "$: missing key steps"),
        ({"steps": {}}, "$.steps: expected a list, not an object"),
        (
            {"steps": [], "step": 1},
            "$: unknown key step; expected steps, version, model, then, title",
        ),
        ({"steps": [], "then": "stop"}, "$.then: expected one of error, end, repeat, not stop"),
        ({"steps": [], "version": 2}, "$.version: expected one of 1, not 2"),
        ({"steps": [], "version": True}, "$.version: expected a whole number, not true or false"),
        (
            {"steps": [], "model": {"name": 1}},
            "$.model.name: expected a string, not a whole number",
        ),
        ({"steps": [], "model": {"context_window": -1}}, "expected at least 0, not -1"),
        ({"steps": [{}]}, "$.steps[0]: missing key actions"),
        ({"steps": [{"actions": [7]}]}, "$.steps[0].actions[0]: expected an object"),
        ({"steps": [{"actions": [{}]}]}, "expected exactly one of text, reasoning, tool"),
        (
            {"steps": [{"actions": [{"text": "a", "cut": True}]}]},
            "$.steps[0].actions[0]: expected exactly one of text, reasoning, tool, wait_ms, reset, "
            "error, silence, cut, usage_so_far, found text and cut",
        ),
        ({"steps": [{"actions": [{"text": "a", "ms": 1}]}]}, "actions[0]: unknown key ms"),
        ({"steps": [{"actions": [{"text": 3}]}]}, "actions[0].text: expected a string"),
        ({"steps": [{"actions": [{"text": "a", "tokens": 0}]}]}, "tokens: expected at least 1"),
        ({"steps": [{"actions": [{"text": "a", "tokens": 1.0}]}]}, "tokens: expected a whole"),
        ({"steps": [{"actions": [{"wait_ms": 1e300}]}]}, "expected at most 86400000, not 1e+300"),
        (
            {"steps": [{"actions": [{"silence": False}]}]},
            "silence: expected one of true, not false",
        ),
        ({"steps": [{"actions": [{"tool": ""}]}]}, "actions[0].tool: must not be empty"),
        (
            {"steps": [{"actions": [{"tool": "ls", "input": {}, "raw_input": ""}]}]},
            "actions[0]: expected input or raw_input, not both",
        ),
        (
            {"steps": [{"actions": [{"cut": True}, {"text": "never"}]}]},
            "$.steps[0].actions[0]: nothing is reached after it",
        ),
        (
            {"steps": [{"actions": [], "when": {"prompt": "x"}}]},
            "$.steps[0].when: unknown key prompt",
        ),
        (
            {"steps": [{"actions": [], "finish": "stop"}]},
            "$.steps[0].finish: expected one of end_turn",
        ),
    ],
)
def test_a_mistake_is_named_by_its_path(value: Any, mistake: str) -> None:
    with pytest.raises(DecodeError) as caught:
        s.parse_script(orjson.dumps(value))
    assert mistake in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(DecodeError) as caught:
        s.parse_script('{"steps": [{"actions": [{"text": 1}, {"wait": 1}]}], "then": null}')
    assert str(caught.value).count("; ") == 2


def test_text_that_is_no_json_is_one_sentence() -> None:
    with pytest.raises(DecodeError, match="not valid JSON"):
        s.parse_script("{")


def test_a_whole_number_counts_as_a_number_and_null_as_left_out() -> None:
    script = s.parse_script(
        '{"$schema": "x", "steps": [{"actions": [{"wait_ms": 1}], "when": null}]}'
    )
    assert script.steps[0].actions == (s.Wait(1.0),)
    assert script.steps[0].when is None


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "large", "broken"])
def test_a_file_that_is_no_script_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "script.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # nobody will ever write to it
    elif kind == "large":
        monkeypatch.setattr(limits, "SCRIPT_FILE_BYTES", 10)
        path.write_text('{"steps": []}')
    elif kind == "broken":
        path.write_text('{"steps": 1}')
    reason = {
        "missing": "cannot be read: No such file",
        "directory": "cannot be read: Is a directory",
        "pipe": "is not a script: it is not a regular file",
        "large": "is not a script: it is larger than 10 bytes",
        "broken": "is not a script: $.steps: expected a list",
    }
    with pytest.raises(DecodeError) as caught:
        s.load_script(path)
    assert str(caught.value).startswith(f"{path} {reason[kind]}")


def test_a_script_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('{"steps": [{"actions": [{"text": "hi"}]}]}')
    assert s.load_script(path) == s.Script(steps=(s.Step(actions=(s.Text("hi"),)),))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_schema_and_loader_know_the_same_keys_types_and_bounds(cls: type[Any]) -> None:
    schema = SCHEMA if cls is s.Script else SCHEMA["$defs"][cls.__name__]
    fields = {field.name: field for field in attrs.fields(cls)}
    required = [name for name, field in fields.items() if field.default is attrs.NOTHING]
    assert set(schema["properties"]) - {"$schema"} == set(fields)
    assert schema.get("required", []) == required
    assert schema["additionalProperties"] is False
    hints = typing.get_type_hints(cls)
    for name, field in fields.items():
        shape = _resolved(schema["properties"][name])
        rules = field.metadata or {}
        optional = typing.get_origin(hints[name]) is types.UnionType
        allowed = list(rules.get("one_of") or ())
        if "const" in shape:
            assert allowed == [shape["const"]]
        elif "enum" in shape:
            assert shape["enum"] == allowed + [None] * optional
        else:
            assert _types(shape) == _json_types(hints[name])
            assert shape.get("minimum") == rules.get("at_least")
            assert shape.get("maximum") == rules.get("at_most")
            assert bool(shape.get("minLength")) == bool(rules.get("not_empty"))


def test_schema_and_loader_know_the_same_actions() -> None:
    listed = SCHEMA["$defs"]["Step"]["properties"]["actions"]["items"]["oneOf"]
    names = [entry["$ref"].rpartition("/")[2] for entry in listed]
    assert names == [cls.__name__ for cls in s.ACTIONS.values()]
    assert [attrs.fields(cls)[0].name for cls in s.ACTIONS.values()] == list(s.ACTIONS)
    others = [
        {field.name for field in attrs.fields(cls)} & (set(s.ACTIONS) - {key})
        for key, cls in s.ACTIONS.items()
    ]
    assert not any(others)


def _resolved(shape: dict[str, Any]) -> dict[str, Any]:
    name = shape.get("$ref", "").rpartition("/")[2]
    return SCHEMA["$defs"][name] if name else shape


def _types(shape: dict[str, Any]) -> set[str]:
    return {shape["type"]} if isinstance(shape["type"], str) else set(shape["type"])


def _json_types(hint: Any) -> set[str]:
    names = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        types.NoneType: "null",
    }
    if typing.get_origin(hint) is types.UnionType:
        return set().union(*(_json_types(arg) for arg in typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return {"array"}
    return {names.get(hint, "object")}
