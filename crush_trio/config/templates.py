"""The values of a configuration that are expanded when they are used, and what to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crush_trio.config.expand import has_command
from crush_trio.config.schema import CONFIG
from crush_trio.config.shapes import ListOf, MapOf, Shape, Table, Text, step_into


def templates(document: dict[str, Any]) -> dict[str, str]:
    """Every template of a valid configuration by its path, as ``$.providers.p.api_key``."""
    return dict(_found(CONFIG, document, "$"))


def _found(shape: Shape, value: Any, path: str) -> Iterator[tuple[str, str]]:
    match shape:
        case Text(expands=True):
            yield path, value
        case ListOf():
            for index, item in enumerate(value):
                yield from _found(shape.item, item, f"{path}[{index}]")
        case MapOf():
            for key, item in value.items():
                yield from _found(shape.value, item, step_into(path, key))
        case Table():
            for key, item in value.items():
                if key in shape.keys:
                    yield from _found(shape.keys[key], item, step_into(path, key))


def with_commands(found: dict[str, str], source: str) -> tuple[str, ...]:
    """The paths of the templates that hold a ``$(command)``; nothing is run.

    Raises:
        ConfigError: A template is broken; the message begins with ``source`` and its path.
    """
    return tuple(
        path for path, template in found.items() if has_command(template, where=f"{source}: {path}")
    )
