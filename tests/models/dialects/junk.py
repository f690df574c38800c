"""Any JSON, with a liking for the keys that a dialect looks at."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)


def junk(keys: str, *words: str) -> st.SearchStrategy[Any]:
    """Any JSON value; ``keys`` are separated by spaces, ``words`` are likely strings."""
    names = st.sampled_from(keys.split()) | st.text(max_size=3)
    leaves = _LEAVES | st.sampled_from(words) if words else _LEAVES
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=15,
    )


def replaced(whole: Any, place: tuple[Any, ...], value: Any) -> Any:
    """``whole`` with ``value`` at ``place``, a path of keys and indices; not a copy."""
    if not place:
        return value
    holder = whole
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return whole
