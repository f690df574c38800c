"""Small checked looks into parsed JSON, so that a thin client needs no class per shape."""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

from crush_trio.client.errors import BadAnswer

JsonObject: TypeAlias = dict[str, Any]


def parse_object(raw: bytes | str, what: str) -> JsonObject:
    """``raw`` as a JSON object.

    Raises:
        BadAnswer: It is not one; ``what`` names it in the sentence.
    """
    value = _parse(raw, what)
    if type(value) is not dict:
        raise BadAnswer(f"{what} is not a JSON object")
    return value


def parse_objects(raw: bytes | str, what: str) -> list[JsonObject]:
    """``raw`` as a JSON array of objects.

    Raises:
        BadAnswer: It is not one; ``what`` names it in the sentence.
    """
    return objects(_parse(raw, what), what)


def objects(value: Any, what: str) -> list[JsonObject]:
    """``value`` if it is a list of objects.

    Raises:
        BadAnswer: It is not one.
    """
    if type(value) is not list or any(type(item) is not dict for item in value):
        raise BadAnswer(f"{what} is not a JSON array of objects")
    return value


def _parse(raw: bytes | str, what: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise BadAnswer(f"{what} is not JSON: {exc}") from exc


def required(value: JsonObject, key: str, what: str) -> str:
    """The non-empty string under ``key``.

    Raises:
        BadAnswer: It is missing, empty, or no string.
    """
    found = value.get(key)
    if type(found) is not str or not found:
        raise BadAnswer(f"{what} has no string `{key}`")
    return found


def text(value: Any, key: str) -> str:
    """The string under ``key``, or an empty one for anything else."""
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is str else ""


def number(value: Any, key: str) -> int:
    """The integer under ``key``, or 0 for anything else."""
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is int else 0


def child(value: Any, key: str) -> JsonObject:
    """The object under ``key``, or an empty one for anything else."""
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is dict else {}


def children(value: Any, key: str) -> list[JsonObject]:
    """The objects in the list under ``key``; anything else in it is left out."""
    found = value.get(key) if type(value) is dict else None
    return [item for item in found if type(item) is dict] if type(found) is list else []
