"""What the Messages API says it has counted."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio.protocol.runs import Usage

_MOST = 10**12  # what is larger is not a count of tokens


def counted(before: Usage, said: Any) -> Usage:
    """``before`` with what a ``usage`` object says: its counts are sums, so later ones replace.

    A zero replaces nothing: compatible servers leave out at one end what they said at the other.
    """
    if not isinstance(said, dict):
        return before
    written = _count(said.get("cache_creation_input_tokens"))
    by_age = said.get("cache_creation")
    if not written and isinstance(by_age, dict):
        written = sum(_count(value) for value in by_age.values())
    return attrs.evolve(
        before,
        input_tokens=_count(said.get("input_tokens")) or before.input_tokens,
        output_tokens=_count(said.get("output_tokens")) or before.output_tokens,
        cache_read_tokens=_count(said.get("cache_read_input_tokens")) or before.cache_read_tokens,
        cache_write_tokens=written or before.cache_write_tokens,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= _MOST else 0
