"""The bytes of an event: encoded once, its longest strings cut when it would not fit a frame."""

from __future__ import annotations

from typing import Any

import orjson

from crush_trio import limits
from crush_trio.protocol.codec import encode_event_rest
from crush_trio.protocol.events import Payload

_HEAD_ROOM = 128  # seq, ts_ms and the brackets of the frame around the object
_SHORTEST_CUT = 256  # ids are at most this long, so no id is ever cut
_REF = {  # below `/v1/workspaces/{w}/`, where the whole thing can be fetched
    "message": "messages",
    "session": "sessions",
    "file": "files",
    "run": "runs",
    "permission_request": "permissions",
}


def encode_rest(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    """An event without ``seq``, ``ts_ms`` and its opening brace, small enough for one frame.

    If it is larger than `limits.FRAME_OUT_BYTES`, its longest strings are cut, and ``truncated``
    names each by its path in the object and tells where the whole can be read (contract 4).
    """
    rest = encode_event_rest(kind, change, payload, workspace_id)
    if len(rest) <= limits.FRAME_OUT_BYTES - _HEAD_ROOM:
        return rest
    return _shortened(orjson.loads(b"{" + rest), limits.FRAME_OUT_BYTES - _HEAD_ROOM)[1:]


def stamp(rest: bytes, seq: int, ts_ms: int) -> bytes:
    """The whole object of contract 4: its place in the journal put in front of `encode_rest`."""
    return b'{"seq":%d,"ts_ms":%d,%b' % (seq, ts_ms, rest)


def encode_transient(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    """An event without a place in the journal: the present state of something open."""
    return b"{" + encode_rest(kind, change, payload, workspace_id)


def _shortened(value: dict[str, Any], limit: int) -> bytes:
    ref = _reference(value)
    longest = min(limit, _longest(value))
    while longest > _SHORTEST_CUT:
        longest = max(longest // 2, _SHORTEST_CUT)
        named: dict[str, str] = {}
        cut = _cut(value, longest, "", ref, named)
        data = orjson.dumps({**cut, "truncated": named})
        if len(data) <= limit:
            return data
    # Thousands of strings, none of them long: only what identifies the thing is left.
    inner = value["payload"]["payload"]
    kept = {key: inner[key] for key in ("id", "session_id", "run_id") if key in inner}
    value["payload"]["payload"] = kept
    return orjson.dumps({**value, "truncated": {"payload.payload": ref}})


def _reference(value: dict[str, Any]) -> str:
    inner = value["payload"]["payload"]
    list_of = _REF.get(value["type"])
    if list_of is not None:
        return f"{list_of}/{inner['id']}"
    return f"runs/{inner['run_id']}" if inner.get("run_id") else ""


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return max(map(_longest, inner), default=0)
    return 0


def _cut(value: Any, longest: int, path: str, ref: str, named: dict[str, str]) -> Any:
    if isinstance(value, str) and len(value) > longest:
        named[path] = ref
        return value[:longest]
    prefix = f"{path}." if path else ""
    if isinstance(value, dict):
        return {k: _cut(v, longest, f"{prefix}{k}", ref, named) for k, v in value.items()}
    if isinstance(value, list):
        return [_cut(v, longest, f"{prefix}{i}", ref, named) for i, v in enumerate(value)]
    return value
