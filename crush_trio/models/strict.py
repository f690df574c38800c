"""A strict reader for hand-written JSON: parsed values become attrs classes, or named mistakes.

Nothing is coerced, unknown keys are mistakes, and all mistakes are found, not only the first.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias, cast

import attrs

Reader: TypeAlias = Callable[[Any, str, list[str]], Any]
Readers: TypeAlias = Mapping[Any, Reader]

_NAMES: dict[type[Any], str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def rule(
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: tuple[Any, ...] = (),
    not_empty: bool = False,
) -> dict[str, Any]:
    """Metadata for `attrs.field`: what a value must be beyond its type; bounds are inclusive."""
    return {"at_least": at_least, "at_most": at_most, "one_of": one_of, "not_empty": not_empty}


def read_object(
    cls: type[Any], value: Any, path: str, mistakes: list[str], readers: Readers
) -> Any:
    """``value`` as an instance of ``cls``, or ``None`` after adding to ``mistakes``.

    Args:
        path: Where ``value`` stands, as in ``$.steps[0]``.
        readers: How to read a type that is no attrs class, scalar, tuple, dict or optional.
    """
    if type(value) is not dict:
        mistakes.append(f"{path}: expected an object, not {_name(value)}")
        return None
    before = len(mistakes)
    hints = _hints(cast("Hashable", cls))
    fields = {field.name: field for field in attrs.fields(cls)}
    mistakes += [
        f"{path}: unknown key {key}; expected {', '.join(fields)}"
        for key in value
        if key not in fields
    ]
    given: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            place = f"{path}.{name}"
            given[name] = _read(hints[name], value[name], place, mistakes, readers)
            _check_rule(field.metadata, given[name], place, mistakes)
        elif field.default is attrs.NOTHING:
            mistakes.append(f"{path}: missing key {name}")
    return cls(**given) if len(mistakes) == before else None


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cast("type[Any]", cls))


def _read(kind: Any, value: Any, path: str, mistakes: list[str], readers: Readers) -> Any:
    if kind in readers:
        return readers[kind](value, path, mistakes)
    origin = typing.get_origin(kind)
    if origin is types.UnionType:  # only ``X | None`` is used
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return None if value is None else _read(inner, value, path, mistakes, readers)
    if origin is tuple:
        if type(value) is not list:
            mistakes.append(f"{path}: expected a list, not {_name(value)}")
            return None
        item = typing.get_args(kind)[0]
        return tuple(
            _read(item, entry, f"{path}[{index}]", mistakes, readers)
            for index, entry in enumerate(value)
        )
    if attrs.has(kind):
        return read_object(kind, value, path, mistakes, readers)
    expected = origin or kind
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        mistakes.append(f"{path}: expected {_NAMES[expected]}, not {_name(value)}")
        return None
    return value


def _check_rule(rules: Mapping[str, Any], value: Any, path: str, mistakes: list[str]) -> None:
    if value is None or not rules:
        return
    if rules["one_of"] and value not in rules["one_of"]:
        words = ", ".join(str(word).lower() for word in rules["one_of"])
        mistakes.append(f"{path}: expected one of {words}, not {str(value).lower()}")
    if rules["at_least"] is not None and value < rules["at_least"]:
        mistakes.append(f"{path}: expected at least {rules['at_least']}, not {value}")
    if rules["at_most"] is not None and value > rules["at_most"]:
        mistakes.append(f"{path}: expected at most {rules['at_most']}, not {value}")
    if rules["not_empty"] and not value:
        mistakes.append(f"{path}: must not be empty")


def _name(value: Any) -> str:
    return _NAMES.get(type(value), "something else")
