"""The one door between JSON and our classes: strict, path-naming, and `DecodeError` its only error.

Nothing is coerced (``"12"`` is not an int, ``true`` is not 1), unknown keys in answers and events
are ignored, and kinds this version does not know survive as they came. Of a key that an object has
twice, the last one counts.
"""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar, cast

import attrs
import orjson

from crush_trio.limits import JSON_DEPTH_MAX
from crush_trio.protocol.converter import converter, structure_hook, wire_name
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.events import (
    CONTROL_CLASS,
    KINDS,
    PAYLOAD_CLASS,
    Event,
    Frame,
    Payload,
    UnknownFrame,
)
from crush_trio.protocol.strict import Mismatch, json_name, sentence

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """``value`` as plain dicts, lists and scalars that `orjson` can write.

    Raises:
        DecodeError: A number is not finite, or a plain object is nested too deeply.
    """
    try:
        return converter.unstructure(value)
    except (Mismatch, RecursionError) as exc:
        raise DecodeError(_cannot_write(exc)) from exc


def encode(value: Any) -> bytes:
    """``value`` as compact UTF-8 JSON.

    Raises:
        DecodeError: A string holds a lone surrogate, or an int more than 64 bits, which no JSON
            reader must accept; or as for `to_json`.
    """
    return _dumps(to_json(value))


def from_json(value: Any, cls: type[T]) -> T:
    """``value`` (parsed JSON) as an instance of ``cls``.

    Raises:
        DecodeError: Names every wrong place by its path.
    """
    _check_depth(value, "$")
    return cast("T", _structure(value, cls, "$"))


def parse(raw: bytes | str) -> Any:
    """Parsed JSON: valid UTF-8, no NaN, no lone surrogates, at most `JSON_DEPTH_MAX` deep.

    Raises:
        DecodeError: With the position of the first mistake.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"not valid JSON: {exc}") from exc
    _check_depth(value, "$")
    return value


def decode(raw: bytes | str, cls: type[T]) -> T:
    """JSON text as an instance of ``cls``; unknown keys are ignored.

    Raises:
        DecodeError: Not JSON, or not of this shape.
    """
    return cast("T", _structure(parse(raw), cls, "$"))


def decode_body(raw: bytes, cls: type[T]) -> tuple[T, tuple[str, ...]]:
    """A request body as ``cls``, and its top-level keys that ``cls`` does not know.

    An empty body is an empty object; a top-level ``null`` is the same as leaving the key out (Go
    clients write nil slices that way).

    Raises:
        DecodeError: Not a JSON object, or a value of the wrong type.
    """
    value = parse(raw) if raw.strip() else {}
    if type(value) is not dict:
        raise DecodeError(f"the body must be a JSON object, not {json_name(value)}")
    known = attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls))
    ignored = tuple(sorted(key for key in value if key not in known))
    kept = {key: item for key, item in value.items() if key in known and item is not None}
    return _structure(kept, cls, "$"), ignored


def _structure(value: Any, cls: Any, path: str) -> Any:
    try:
        return structure_hook(cls)(value, cls)
    except Exception as exc:  # cattrs raises groups and KeyError, our hooks their own
        raise DecodeError(sentence(exc, path, wire_name)) from exc


def _check_depth(value: Any, path: str) -> None:
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [
            item
            for node in level
            if type(node) is list or type(node) is dict
            for item in (node.values() if type(node) is dict else node)
        ]
        if not level:
            return
    if any(type(node) is list or type(node) is dict for node in level):
        raise DecodeError(f"{path}: nested more than {JSON_DEPTH_MAX} deep")


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as exc:
        raise DecodeError(_cannot_write(exc)) from exc


def _cannot_write(exc: Exception) -> str:
    return f"cannot be written as JSON: {exc}"


# --- events and frames --------------------------------------------------------------------


def event_to_json(event: Event) -> dict[str, Any]:
    """An event in the envelope of contract 4; keys that are ``None`` are left out.

    Raises:
        DecodeError: As for `to_json`.
    """
    value: dict[str, Any] = {}
    if event.seq is not None:
        value["seq"] = event.seq
    if event.ts_ms is not None:
        value["ts_ms"] = event.ts_ms
    if event.workspace_id:
        value["workspace_id"] = event.workspace_id
    value["type"] = event.type
    value["payload"] = {"type": event.change, "payload": to_json(event.payload)}
    if event.truncated is not None:
        value["truncated"] = event.truncated
    return value


def encode_event_rest(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    """An event without ``seq`` and ``ts_ms``, and without its opening brace.

    The journal puts ``{"seq":N,"ts_ms":T,`` in front, so that an event is encoded once, before
    its place in the journal is known.

    Raises:
        DecodeError: As for `encode`.
    """
    return _dumps(event_to_json(Event(kind, change, payload, workspace_id)))[1:]


def frame_to_json(frame: Frame) -> dict[str, Any]:
    """Any frame as the object that travels.

    Raises:
        DecodeError: As for `to_json`.
    """
    if isinstance(frame, Event):
        return event_to_json(frame)
    if isinstance(frame, UnknownFrame):
        return frame.raw
    return {"type": _CONTROL_NAME[type(frame)], **to_json(frame)}


_CONTROL_NAME = {cls: name for name, cls in CONTROL_CLASS.items()}


def frame_from_json(value: Any) -> Frame:
    """One object of a websocket frame.

    An object of a kind that is not in `KINDS` is an `Event` if an event's envelope can say all of
    it; otherwise it is an `UnknownFrame`. Either way it keeps everything it came with.

    Raises:
        DecodeError: Not an object with a string ``type``, or a known kind of the wrong shape.
    """
    _check_depth(value, "$")
    return _frame(value, "$")


def decode_frames(raw: bytes | str) -> list[Frame]:
    """The objects of one websocket frame, in order.

    Raises:
        DecodeError: Not a JSON array, or one of its objects is malformed.
    """
    value = parse(raw)
    if type(value) is not list:
        raise DecodeError(f"a frame must be a JSON array, not {json_name(value)}")
    return [_frame(item, f"$[{index}]") for index, item in enumerate(value)]


def _frame(value: Any, path: str) -> Frame:
    if type(value) is not dict:
        raise DecodeError(f"{path}: expected object, not {json_name(value)}")
    kind = value.get("type")
    if type(kind) is not str:
        raise DecodeError(f"{path}: expected an object with a string type")
    if kind in CONTROL_CLASS:
        return cast("Frame", _structure(value, CONTROL_CLASS[kind], path))
    if kind in KINDS:
        return _event(kind, value, path)
    with contextlib.suppress(DecodeError):  # not an event's envelope: then it is kept as it is
        event = _event(kind, value, path)
        if event_to_json(event) == value:
            return event
    return UnknownFrame(kind, value)


@attrs.frozen
class _Change:
    type: str
    payload: Any


@attrs.frozen
class _Envelope:
    payload: _Change
    workspace_id: str = ""
    seq: int | None = None
    ts_ms: int | None = None
    truncated: dict[str, str] | None = None


def _event(kind: str, value: dict[str, Any], path: str) -> Event:
    envelope: _Envelope = _structure(value, _Envelope, path)
    cls = PAYLOAD_CLASS.get(kind, dict)  # kinds that have no class here carry any object
    return Event(
        type=kind,
        change=envelope.payload.type,
        payload=_structure(envelope.payload.payload, cls, f"{path}.payload.payload"),
        workspace_id=envelope.workspace_id,
        seq=envelope.seq,
        ts_ms=envelope.ts_ms,
        truncated=envelope.truncated,
    )
