"""Structure hooks that take exactly one JSON type, and the sentence that names each wrong place."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, TypeAlias, cast

import attrs
import cattrs

from crush_trio.limits import DECODE_PLACES_MAX, INT_MAX, QUOTED_CHARS_MAX

Hook: TypeAlias = Callable[[Any, Any], Any]
"""Takes parsed JSON (and the type, which is not looked at); gives the value or raises."""

_JSON_NAME = {
    type(None): "null",
    dict: "object",
    list: "list",
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
}


class Mismatch(Exception):
    """One value is not what was agreed; its text goes after the path."""


class Inside(Exception):
    """Mistakes below a value: ``places`` pairs a path step (``.key``, ``[3]``) with its mistake."""

    def __init__(self, places: list[tuple[str, Exception]]) -> None:
        super().__init__(places)
        self.places = places


def json_name(value: Any) -> str:
    """What JSON calls the type of ``value``, as used in error sentences."""
    return _JSON_NAME.get(type(value), type(value).__name__)


def quoted(text: str) -> str:
    """``text`` in quotes, on one line, cut when long; for error sentences."""
    cut = text if len(text) <= QUOTED_CHARS_MAX else text[:QUOTED_CHARS_MAX] + "…"
    return repr(cut)


# --- hooks --------------------------------------------------------------------------------


def exact_str(value: Any, _: Any) -> str:
    """A string."""
    if type(value) is not str:
        raise Mismatch(f"expected str, not {json_name(value)}")
    return value


def exact_bool(value: Any, _: Any) -> bool:
    """A bool; 0 and 1 are not."""
    if type(value) is not bool:
        raise Mismatch(f"expected bool, not {json_name(value)}")
    return value


def exact_int(value: Any, _: Any) -> int:
    """A whole number that fits 64 bits; a bool is none, nor is 1.0."""
    if type(value) is not int:
        raise Mismatch(f"expected int, not {json_name(value)}")
    if not -INT_MAX <= value <= INT_MAX:
        raise Mismatch("expected int of at most 64 bits")
    return value


def finite_float(value: Any, _: Any) -> float:
    """A finite number; an int counts, a bool does not."""
    if type(value) not in (int, float):
        raise Mismatch(f"expected float, not {json_name(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Mismatch("expected a finite float")
    return number


def exact_none(value: Any, _: Any) -> None:
    """Null."""
    if value is not None:
        raise Mismatch(f"expected null, not {json_name(value)}")


def an_object(inner: Hook) -> Hook:
    """``inner``, for JSON objects only."""

    def structure(value: Any, target: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch(f"expected object, not {json_name(value)}")
        return inner(value, target)

    return structure


def a_list(element: Hook, build: Callable[[Iterable[Any]], Any]) -> Hook:
    """A JSON array, each item through ``element``; the results go to ``build``."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not list:
            raise Mismatch(f"expected list, not {json_name(value)}")
        items: list[Any] = []
        places: list[tuple[str, Exception]] = []
        for index, item in enumerate(value):
            try:
                items.append(element(item, None))
            except Exception as exc:
                places.append((f"[{index}]", exc))
                if len(places) > DECODE_PLACES_MAX:
                    break
        if places:
            raise Inside(places)
        return build(items)

    return structure


def a_mapping(element: Hook) -> Hook:
    """A JSON object with any keys, each value through ``element``."""

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Mismatch(f"expected object, not {json_name(value)}")
        items: dict[str, Any] = {}
        places: list[tuple[str, Exception]] = []
        for key, item in value.items():
            try:
                items[exact_str(key, None)] = element(item, None)
            except Exception as exc:
                places.append((_step(key), exc))
                if len(places) > DECODE_PLACES_MAX:
                    break
        if places:
            raise Inside(places)
        return items

    return structure


def optional(inner: Hook) -> Hook:
    """Null, or what ``inner`` takes."""

    def structure(value: Any, target: Any) -> Any:
        return None if value is None else inner(value, target)

    return structure


@functools.cache
def member_of(enum: type[StrEnum]) -> Hook:
    """A member of ``enum`` by its value."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}
    choose = one_of(tuple(members))

    def structure(value: Any, target: Any) -> StrEnum:
        return members[choose(value, target)]

    return structure


def one_of(choices: tuple[str, ...]) -> Hook:
    """One of these strings."""
    allowed = ", ".join(choices)

    def structure(value: Any, _: Any) -> str:
        if type(value) is not str:
            raise Mismatch(f"expected one of {allowed}, not {json_name(value)}")
        if value not in choices:
            raise Mismatch(f"expected one of {allowed}, not {quoted(value)}")
        return value

    return structure


def not_negative(inner: Hook) -> Hook:
    """A number of at least 0, or null where ``inner`` takes it."""

    def structure(value: Any, target: Any) -> Any:
        number = inner(value, target)
        if number is not None and number < 0:
            raise Mismatch(f"expected 0 or more, not {value}")
        return number

    return structure


# --- the sentence -------------------------------------------------------------------------


def sentence(exc: Exception, path: str, wire_name: Callable[[Any, str], str]) -> str:
    """Every wrong place below ``exc``, path first: ``$.limits.max_steps: expected int, not str``.

    ``wire_name`` gives the JSON key of a class's attribute. At most `DECODE_PLACES_MAX` places
    are named.
    """
    lines = list(itertools.islice(_lines(exc, path, wire_name), DECODE_PLACES_MAX + 1))
    if len(lines) > DECODE_PLACES_MAX:
        lines[DECODE_PLACES_MAX:] = ["and more"]
    return "; ".join(lines)


def _lines(exc: Exception, path: str, wire_name: Callable[[Any, str], str]) -> Iterator[str]:
    if isinstance(exc, Inside):
        for step, below in exc.places:
            yield from _lines(below, path + step, wire_name)
    elif isinstance(exc, cattrs.ClassValidationError):
        noted, plain = exc.group_exceptions()
        for below, note in noted:
            if isinstance(below, KeyError):  # raised for the object, noted for its attribute
                yield f"{path}: missing key {below.args[0]}"
            else:
                yield from _lines(below, path + _step(wire_name(exc.cl, note.name)), wire_name)
        for below in plain:
            yield from _lines(below, path, wire_name)
    elif isinstance(exc, cattrs.ForbiddenExtraKeysError):
        allowed = ", ".join(attrs.fields_dict(cast("Any", exc.cl)))
        for key in sorted(exc.extra_fields):
            yield f"{path}{_step(key)}: unknown key; known are {allowed}"
    elif isinstance(exc, Mismatch):
        yield f"{path}: {exc}"
    else:
        yield f"{path}: cannot be read ({type(exc).__name__})"


def _step(key: Any) -> str:
    """How a path goes on to ``key``: ``.key``, or ``["any text"]``."""
    text = str(key)
    if text.isidentifier() and len(text) <= QUOTED_CHARS_MAX:
        return f".{text}"
    return f"[{quoted(text)}]"
