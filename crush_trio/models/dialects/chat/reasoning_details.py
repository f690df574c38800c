"""OpenRouter's ``reasoning_details``: the pieces of a stream put together as it wants them back."""

from __future__ import annotations

from typing import Any, Final

_TEXTS: Final = ("text", "summary", "data")


def merged(pieces: list[Any]) -> list[dict[str, Any]]:
    """The blocks that the pieces make: texts of the same type and index are joined.

    A block begins where type, index or id differ from the piece before; all else is taken from
    whichever piece says it last.
    """
    blocks: list[dict[str, Any]] = []
    for piece in pieces:
        if type(piece) is not dict:
            continue
        last = blocks[-1] if blocks else None
        if last is None or not _goes_on(last, piece):
            blocks.append(dict(piece))
            continue
        for key, value in piece.items():
            if key in _TEXTS and type(value) is str and type(last.get(key)) is str:
                last[key] += value
            elif value is not None:
                last[key] = value
    return blocks


def _goes_on(last: dict[str, Any], piece: dict[str, Any]) -> bool:
    if any(last.get(key) != piece.get(key) for key in ("type", "index")):
        return False
    ids = {str(block["id"]) for block in (last, piece) if block.get("id") is not None}
    return len(ids) <= 1 and piece.get("type") != "reasoning.encrypted"
