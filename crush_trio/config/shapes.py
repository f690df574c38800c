"""What a JSON value may look like: one description, from which checks and a JSON schema come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from crush_trio import limits


@attrs.frozen
class Text:
    """A string. ``secret`` values are masked when shown, of ``url`` values only the risky parts.

    ``expands`` says that it is a template (`config.expand`), ``regex`` that it is a regular
    expression of RE2, which takes linear time, or the one sign ``*``. ``reads`` raises
    `ValueError` with what was expected if it cannot read the value.
    """

    about: str
    choices: tuple[str, ...] = ()
    secret: bool = False
    url: bool = False
    expands: bool = False
    regex: bool = False
    reads: Callable[[str], object] | None = None


@attrs.frozen
class Number:
    """A number, ``whole`` or not, at least ``minimum`` and at most ``maximum``."""

    about: str
    whole: bool = True
    minimum: int | None = 0
    maximum: int | None = None


@attrs.frozen
class Flag:
    """``true`` or ``false``."""

    about: str


@attrs.frozen
class Anything:
    """An object that is handed on as it is; strings in it are masked when shown."""

    about: str


@attrs.frozen
class ListOf:
    """An array; those of several files are joined."""

    about: str
    item: Shape


@attrs.frozen
class MapOf:
    """An object with free names, all values of one shape."""

    about: str
    value: Shape


@attrs.frozen
class Table:
    """An object with known names, some of them required. Unknown ones are kept and reported."""

    about: str
    keys: Mapping[str, Shape]
    required: tuple[str, ...] = ()


@attrs.frozen
class Short:
    """A table, or a string in its place, which is short for the table with this one key."""

    about: str
    key: str
    table: Table


Shape: TypeAlias = Text | Number | Flag | Anything | ListOf | MapOf | Table | Short


class MismatchError(Exception):
    """A value is not of its shape.

    Args:
        path: Where, as in ``$.options.progress``.
        expectation: What was expected there, and what was found, without the value itself.
    """

    def __init__(self, path: str, expectation: str) -> None:
        super().__init__(f"{path}: {expectation}")
        self.path = path


def step_into(path: str, key: str) -> str:
    """``path`` extended by an object's key, bounded and free of control characters."""
    if key.isidentifier() and key.isascii() and len(key) <= limits.CONFIG_NAME_CHARS:
        return f"{path}.{key}"
    return f"{path}[{quoted(key)}]"


def quoted(text: str) -> str:
    """``text`` in double quotes, cut to `limits.CONFIG_NAME_CHARS`, safe for a terminal."""
    if len(text) > limits.CONFIG_NAME_CHARS:
        text = text[: limits.CONFIG_NAME_CHARS] + "…"
    # ASCII escapes keep terminal control sequences and direction marks out of our messages.
    return json.dumps(text)


def json_name(value: Any) -> str:
    """What JSON calls the type of ``value``, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    return names.get(type(value)) or ("an array" if isinstance(value, list) else "an object")


def checked(shape: Shape, value: Any, path: str, unknown: list[str]) -> Any:
    """``value`` if it is of ``shape``, without the keys that hold ``null``.

    A ``null`` is the same as leaving the key out. Paths of unknown keys are added to ``unknown``.

    Raises:
        MismatchError: At the first wrong place.
    """
    match shape:
        case Text():
            return _text(shape, value, path)
        case Number():
            return _number(shape, value, path)
        case Flag():
            return _of(bool, "true or false", value, path)
        case Anything():
            return _of(dict, "an object", value, path)
        case ListOf():
            items = _of(list, "an array", value, path)
            return [
                checked(shape.item, item, f"{path}[{index}]", unknown)
                for index, item in enumerate(items)
            ]
        case MapOf():
            return {
                key: checked(shape.value, item, step_into(path, key), unknown)
                for key, item in _of(dict, "an object", value, path).items()
                if item is not None
            }
        case Table():
            return _table(shape, value, path, unknown)
        case Short():
            if type(value) is str:
                return {shape.key: checked(shape.table.keys[shape.key], value, path, unknown)}
            if type(value) is not dict:
                raise MismatchError(path, f"expected a string or a table, not {json_name(value)}")
            return _table(shape.table, value, path, unknown)


def _of(expected: type[Any], words: str, value: Any, path: str) -> Any:
    if type(value) is not expected:
        raise MismatchError(path, f"expected {words}, not {json_name(value)}")
    return value


def _text(shape: Text, value: Any, path: str) -> Any:
    if shape.regex:
        return _regex(_of(str, "a string", value, path), path)
    if shape.reads is not None:
        try:
            shape.reads(_of(str, "a string", value, path))
        except ValueError as problem:
            raise MismatchError(path, str(problem)) from None
    if not shape.choices:
        return _of(str, "a string", value, path)
    words = "one of " + ", ".join(json.dumps(choice) for choice in shape.choices)
    _of(str, words, value, path)
    if value not in shape.choices:
        raise MismatchError(path, f"expected {words}")
    return value


def _regex(value: str, path: str) -> str:
    if value not in ("", "*"):
        # Here: few configurations have one, and loading the engine takes 10 ms.
        import re2  # type: ignore[import-untyped]  # it has no stubs

        options = re2.Options()
        options.log_errors = False
        try:
            re2.compile(value, options)
        except re2.error as exc:
            expected = "expected a regular expression of RE2 (no look-around, no back-references)"
            raise MismatchError(path, expected) from exc
    return value


def _number(shape: Number, value: Any, path: str) -> Any:
    words = "an integer" if shape.whole else "a number"
    if shape.maximum is not None:
        words += f" from {shape.minimum} to {shape.maximum}"
    elif shape.minimum is not None:
        words += f" of at least {shape.minimum}"
    if type(value) is not int and (shape.whole or type(value) is not float):
        raise MismatchError(path, f"expected {words}, not {json_name(value)}")
    too_small = shape.minimum is not None and value < shape.minimum
    too_large = shape.maximum is not None and value > shape.maximum
    if too_small or too_large:
        raise MismatchError(path, f"expected {words}")
    return value


def _table(shape: Table, value: Any, path: str, unknown: list[str]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, item in _of(dict, "an object", value, path).items():
        if item is None:
            continue
        known = shape.keys.get(key)
        if known is None:
            unknown.append(step_into(path, key) + _meant(key, shape, len(unknown)))
            clean[key] = item
        else:
            clean[key] = checked(known, item, step_into(path, key), unknown)
    for key in shape.required:
        if not clean.get(key):
            raise MismatchError(path, f"expected an object with {key}")
    return clean


def _meant(key: str, shape: Table, before: int) -> str:
    """The known key that was probably meant, in words; only for those that are shown."""
    if before >= limits.CONFIG_NAMES:
        return ""
    meant = nearest(key, shape.keys)
    return f" (did you mean {meant}?)" if meant else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` is a slip of, if there is one."""
    if len(name) > limits.CONFIG_NAME_CHARS:
        return None
    import difflib

    plain = {_plain(each): each for each in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def json_schema(shape: Shape) -> dict[str, Any]:
    """The same shape as a JSON schema (draft 2020-12)."""
    about: dict[str, Any] = {"description": shape.about}
    match shape:
        case Text():
            choices = {"enum": list(shape.choices)} if shape.choices else {}
            return {"type": "string", **choices, **about}
        case Number():
            ends = {"minimum": shape.minimum, "maximum": shape.maximum}
            bound = {name: end for name, end in ends.items() if end is not None}
            return {"type": "integer" if shape.whole else "number", **bound, **about}
        case Flag():
            return {"type": "boolean", **about}
        case Anything():
            return {"type": "object", **about}
        case ListOf():
            return {"type": "array", "items": json_schema(shape.item), **about}
        case MapOf():
            return {"type": "object", "additionalProperties": json_schema(shape.value), **about}
        case Short():
            forms = [json_schema(shape.table.keys[shape.key]), json_schema(shape.table)]
            return {"anyOf": forms, **about}
        case Table():
            keys = {name: json_schema(key) for name, key in shape.keys.items()}
            required = {"required": list(shape.required)} if shape.required else {}
            return {"type": "object", "properties": keys, **required, **about}
