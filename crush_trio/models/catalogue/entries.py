"""What may stand in a catalogue file, key by key: one table that is checked fast.

Written by hand rather than read by a general reader: a catalogue has thousands of values, and a
server reads it while somebody waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from crush_trio import limits
from crush_trio.models.dialects import DIALECTS

FORMAT: Final = 1
"""The one format there is; a file of another one is refused."""


@attrs.frozen
class Shape:
    """What a value must be: of one of ``types``, and besides, where given, within the bounds.

    ``words`` say it in an error. ``most`` is the upper bound of a number whose lower one is 0;
    ``choices`` are the only values; ``texts`` asks each item of a list to be a string.
    """

    words: str
    types: frozenset[type[Any]]
    needed: bool = False
    most: float | None = None
    choices: tuple[Any, ...] = ()
    texts: bool = False

    def fits(self, value: Any) -> bool:
        """Whether ``value`` is such a thing; no string that is needed may be empty."""
        if type(value) not in self.types:
            return False
        if self.most is not None:
            return value is None or 0 <= value <= self.most
        if self.choices:
            return value in self.choices
        if self.texts:
            return all(type(item) is str for item in value)
        return bool(value) or not self.needed or type(value) is not str


Table: TypeAlias = Mapping[str, Shape]

_NONE = type(None)
_NAME = Shape("a string that is not empty", frozenset({str}), needed=True)
_TEXT = Shape("a string", frozenset({str}))
_TEXTS = Shape("a list of strings", frozenset({list}), texts=True)
_LIST = Shape("a list", frozenset({list}), needed=True)
_FLAG = Shape("true or false", frozenset({bool}))
_MAYBE = Shape("true, false or null", frozenset({bool, _NONE}))
_TOKENS = Shape(
    f"a whole number from 0 to {limits.CATALOGUE_TOKENS_MAX}",
    frozenset({int}),
    most=limits.CATALOGUE_TOKENS_MAX,
)
_PRICE = Shape(
    f"a number from 0 to {limits.CATALOGUE_PRICE_MAX:g}, or null",
    frozenset({int, float, _NONE}),
    most=limits.CATALOGUE_PRICE_MAX,
)

MODEL: Final[Table] = {
    "id": _NAME,
    "name": _TEXT,
    "context_window": _TOKENS,
    "max_output_tokens": _TOKENS,
    "cost_per_1m_in": _PRICE,
    "cost_per_1m_out": _PRICE,
    "cost_per_1m_in_cached": _PRICE,
    "cost_per_1m_out_cached": _PRICE,
    "can_reason": _FLAG,
    "reasoning_levels": _TEXTS,
    "default_reasoning_effort": _TEXT,
    "supports_attachments": _MAYBE,
    "supports_tools": _MAYBE,
}
"""One model; what the keys mean is said at `ModelInfo`, whose ``model`` is ``id`` here."""

PROVIDER: Final[Table] = {
    "id": _NAME,
    "name": _NAME,
    "type": _NAME,
    "dialect": Shape(
        f"one of {', '.join(DIALECTS)}", frozenset({str}), needed=True, choices=tuple(DIALECTS)
    ),
    "base_url": _TEXT,
    "key_variables": _TEXTS,
    "default_large": _TEXT,
    "default_small": _TEXT,
    "is_local": _FLAG,
    "quirks": _TEXTS,
    "models": _LIST,
}
"""One provider; what the keys mean is said at `CatalogueProvider`."""

FILE: Final[Table] = {
    "format": Shape(f"{FORMAT}", frozenset({int}), needed=True, choices=(FORMAT,)),
    "date": _NAME,
    "about": _TEXT,
    "sources": attrs.evolve(_TEXTS, needed=True),
    "providers": _LIST,
}
"""A whole file: the date of its newest source, where its facts are from, and these."""


def check(value: Any, table: Table, path: str, mistakes: list[str]) -> bool:
    """Whether ``value`` is an object as ``table`` says; if not, why is added to ``mistakes``."""
    if type(value) is not dict:
        mistakes.append(f"{path}: expected an object")
        return False
    before = len(mistakes)
    for key, item in value.items():
        shape = table.get(key)
        if shape is None:
            mistakes.append(f"{path}: expected no key {json.dumps(key)[: limits.QUOTED_CHARS_MAX]}")
        elif not shape.fits(item):
            mistakes.append(f"{path}.{key}: expected {shape.words}")
    mistakes.extend(
        f"{path}.{key}: expected {shape.words}, found nothing"
        for key, shape in table.items()
        if shape.needed and key not in value
    )
    return len(mistakes) == before
