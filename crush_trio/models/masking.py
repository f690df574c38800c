"""Secrets taken out of what others may read; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

MASK: Final = "***"
_SHORTEST = 6
"""A shorter value is no key that anybody gives out, and would be found in ordinary words."""

_TEXTS = ("text", "reasoning")


def secrets_among(values: Iterable[str]) -> tuple[str, ...]:
    """Those that are long enough to be secrets, the longest first; ``Bearer`` is left off."""
    bare = (value.removeprefix("Bearer ").strip() for value in values)
    return tuple(sorted({each for each in bare if len(each) >= _SHORTEST}, key=len, reverse=True))


def masked(value: Any, secrets: Sequence[str]) -> Any:
    """A JSON value with every occurrence of a secret in its strings and keys masked."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        return {masked(key, secrets): masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, secrets) for item in value]
    return value


def masked_actions(actions: Sequence[dict[str, Any]], secrets: Sequence[str]) -> list[Any]:
    """A script's actions, masked, also where a secret goes on in the next action of its kind.

    The text of such actions is moved into the first of them.
    """
    found: list[Any] = masked(list(actions), secrets)
    for kind in _TEXTS:
        places = [place for place, action in enumerate(found) if kind in action]
        whole = masked("".join(found[place][kind] for place in places), secrets)
        if whole != "".join(found[place][kind] for place in places):
            for place in places:
                found[place][kind] = ""
            found[places[0]][kind] = whole
    return found
