"""The one door between JSON and our classes: strict, path-naming, and `DecodeError` its only error.

Nothing is coerced (``"12"`` is not an int), unknown keys in answers and events are ignored, and
kinds this version does not know survive as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.orjson import make_converter

from crush_trio.protocol import messages as m
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.events import (
    CONTROL_CLASS,
    PAYLOAD_CLASS,
    AgentEvent,
    Event,
    Frame,
    MessageDelta,
    Payload,
    Ping,
    Pong,
    ToolOutput,
    UnknownFrame,
)
from crush_trio.protocol.runs import Limits, RunComplete
from crush_trio.protocol.sessions import Session

T = TypeVar("T")

_PART_CLASS: dict[str, type[Any]] = {
    "text": m.TextPart,
    "reasoning": m.ReasoningPart,
    "image_url": m.ImageUrlPart,
    "binary": m.BinaryPart,
    "tool_call": m.ToolCallPart,
    "tool_result": m.ToolResultPart,
    "finish": m.FinishPart,
    "shell_command": m.ShellCommandPart,
}
_PART_TYPE = {cls: name for name, cls in _PART_CLASS.items()}
_PART_DATA: dict[type[Any], Callable[[Any], Any]] = {}

# Keys that CW always writes although they have their zero value; all others of these classes are
# dropped when zero (CW 3.5 and 13, "opt").
_ALWAYS: dict[type[Any], frozenset[str]] = {
    m.TextPart: frozenset({"text"}),
    m.ReasoningPart: frozenset({"thinking", "signature"}),
    m.ImageUrlPart: frozenset({"url"}),
    m.BinaryPart: frozenset({"path", "mime_type", "data"}),
    m.ToolCallPart: frozenset({"id", "name", "input"}),
    m.ToolResultPart: frozenset({"tool_call_id", "name", "content", "metadata", "is_error"}),
    m.FinishPart: frozenset({"reason", "time"}),
    m.ShellCommandPart: frozenset({"command", "output", "exit_code"}),
    m.Message: frozenset(
        {"id", "role", "session_id", "parts", "model", "provider", "created_at", "updated_at"}
    ),
    Session: frozenset(attrs.fields_dict(Session)) - {"todos"},
    RunComplete: frozenset({"session_id", "run_id", "message_id", "outcome", "usage", "processes"}),
    AgentEvent: frozenset({"type"}),
    MessageDelta: frozenset(attrs.fields_dict(MessageDelta)) - {"tool_call_id"},
    ToolOutput: frozenset(attrs.fields_dict(ToolOutput)) - {"run_id", "job_id"},
    Ping: frozenset(),
    Pong: frozenset(),
}
_RENAME: dict[type[Any], dict[str, str]] = {
    m.BinaryPart: {"path": "Path", "mime_type": "MIMEType", "data": "Data"},
}


def _exactly(expected: type[T]) -> Callable[[Any, Any], T]:
    """A structure hook that takes a value of this JSON type and refuses every other."""

    def check(value: Any, _: Any) -> T:
        if type(value) is not expected:
            raise TypeError(f"expected {expected.__name__}, not {_json_name(value)}")
        return value

    return check


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected float, not {_json_name(value)}")
    return float(value)


def _json_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _sequence(value: Any, element: Any) -> tuple[Any, ...]:
    if type(value) is not list:
        raise TypeError(f"expected list, not {_json_name(value)}")
    return tuple(_converter.structure(item, element) for item in value)


def _make_converter() -> cattrs.Converter:
    converter = make_converter()
    for exact in (int, str, bool):
        converter.register_structure_hook(exact, _exactly(exact))
    converter.register_structure_hook(float, _number)
    for cls, always in _ALWAYS.items():
        _register(converter, cls, always)
        if cls in _PART_TYPE:
            _PART_DATA[cls] = converter.get_unstructure_hook(cls)
        if cls is m.ShellCommandPart:  # the last part: messages, which come next, hold them
            converter.register_unstructure_hook(m.Part, _part_to_json)
            converter.register_structure_hook(m.Part, _part_from_json)
    converter.register_structure_hook(
        Limits,
        make_dict_structure_fn(Limits, converter, _cattrs_forbid_extra_keys=True),
    )
    return converter


def _register(converter: cattrs.Converter, cls: type[Any], always: frozenset[str]) -> None:
    renames = _RENAME.get(cls, {})
    out: dict[str, Any] = {
        name: override(omit_if_default=name not in always, rename=renames.get(name))
        for name in attrs.fields_dict(cls)
    }
    converter.register_unstructure_hook(cls, make_dict_unstructure_fn(cls, converter, **out))
    if renames:
        back: dict[str, Any] = {name: override(rename=wire) for name, wire in renames.items()}
        converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, **back))


def _part_to_json(part: m.Part) -> dict[str, Any]:
    if isinstance(part, m.UnknownPart):
        return {"type": part.type, "data": part.data}
    return {"type": _PART_TYPE[type(part)], "data": _PART_DATA[type(part)](part)}


def _part_from_json(value: Any, _: Any) -> m.Part:
    if type(value) is not dict:
        raise TypeError(f"expected object, not {_json_name(value)}")
    kind, data = value.get("type"), value.get("data")
    if type(kind) is not str or type(data) is not dict:
        raise TypeError("expected an object with a string `type` and an object `data`")
    cls = _PART_CLASS.get(kind)
    if cls is None:
        return m.UnknownPart(kind, data)
    return cast("m.Part", _converter.structure(data, cls))


_converter = _make_converter()


def to_json(value: Any) -> Any:
    """``value`` as plain dicts, lists and scalars that `orjson` can write."""
    return _converter.unstructure(value)


def encode(value: Any) -> bytes:
    """``value`` as compact UTF-8 JSON.

    Raises:
        DecodeError: A string holds a lone surrogate, which no JSON reader must accept.
    """
    try:
        return orjson.dumps(_converter.unstructure(value))
    except TypeError as exc:
        raise DecodeError(f"cannot be written as JSON: {exc}") from exc


def from_json(value: Any, cls: type[T]) -> T:
    """``value`` (parsed JSON) as an instance of ``cls``.

    Raises:
        DecodeError: Names every wrong place by its path.
    """
    try:
        return _converter.structure(value, cls)
    except Exception as exc:  # cattrs raises groups, KeyError and TypeError alike
        raise DecodeError(_sentence(exc, cls)) from exc


def parse(raw: bytes | str) -> Any:
    """Parsed JSON: valid UTF-8, no NaN, no lone surrogates.

    Raises:
        DecodeError: With the position of the first mistake.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"not valid JSON: {exc}") from exc


def decode(raw: bytes | str, cls: type[T]) -> T:
    """JSON text as an instance of ``cls``; unknown keys are ignored.

    Raises:
        DecodeError: Not JSON, or not of this shape.
    """
    return from_json(parse(raw), cls)


def decode_body(raw: bytes, cls: type[T]) -> tuple[T, tuple[str, ...]]:
    """A request body as ``cls``, and its top-level keys that ``cls`` does not know.

    An empty body is an empty object; a top-level ``null`` is the same as leaving the key out (Go
    clients write nil slices that way).

    Raises:
        DecodeError: Not a JSON object, or a value of the wrong type.
    """
    value = parse(raw) if raw.strip() else {}
    if type(value) is not dict:
        raise DecodeError(f"the body must be a JSON object, not {_json_name(value)}")
    known = attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls))
    ignored = tuple(sorted(key for key in value if key not in known))
    kept = {key: item for key, item in value.items() if key in known and item is not None}
    return from_json(kept, cls), ignored


def _sentence(exc: Exception, cls: type[Any]) -> str:
    lines: Iterable[str] = cattrs.transform_error(exc, format_exception=_format)
    return "; ".join(line.replace(" @ $", " at $", 1) for line in lines) or (
        f"not a valid {cls.__name__}"
    )


def _format(exc: BaseException, expected: type[Any] | None) -> str:
    if isinstance(exc, TypeError) and str(exc).startswith("expected "):
        return str(exc)
    if isinstance(exc, cattrs.errors.ForbiddenExtraKeysError):
        return f"unknown key {', '.join(sorted(exc.extra_fields))}"
    if isinstance(exc, KeyError):
        return f"missing key {exc.args[0]}"
    if isinstance(exc, ValueError) and not isinstance(exc, UnicodeError):
        return f"unknown value: {exc}"
    return f"expected {getattr(expected, '__name__', 'object')}"


# --- events and frames --------------------------------------------------------------------


def event_to_json(event: Event) -> dict[str, Any]:
    """An event in the envelope of contract 4; keys that are ``None`` are left out."""
    value: dict[str, Any] = {}
    if event.seq is not None:
        value["seq"] = event.seq
    if event.ts_ms is not None:
        value["ts_ms"] = event.ts_ms
    if event.workspace_id:
        value["workspace_id"] = event.workspace_id
    value["type"] = event.type
    value["payload"] = {"type": event.change, "payload": _converter.unstructure(event.payload)}
    if event.truncated is not None:
        value["truncated"] = event.truncated
    return value


def encode_event_rest(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    """An event without ``seq`` and ``ts_ms``, and without its opening brace.

    The journal puts ``{"seq":N,"ts_ms":T,`` in front, so that an event is encoded once, before
    its place in the journal is known.
    """
    value = event_to_json(Event(kind, change, payload, workspace_id))
    return orjson.dumps(value)[1:]


def frame_to_json(frame: Frame) -> dict[str, Any]:
    """Any frame as the object that travels."""
    if isinstance(frame, Event):
        return event_to_json(frame)
    if isinstance(frame, UnknownFrame):
        return frame.raw
    name = _CONTROL_NAME[type(frame)]
    body = _converter.unstructure(frame)
    return {"type": name, **body}


_CONTROL_NAME = {cls: name for name, cls in CONTROL_CLASS.items()}


def frame_from_json(value: Any) -> Frame:
    """One object of a websocket frame.

    Raises:
        DecodeError: Not an object with a string ``type``, or a known kind of the wrong shape.
    """
    if type(value) is not dict or type(value.get("type")) is not str:
        raise DecodeError("a frame's object needs a string `type`")
    kind = value["type"]
    if kind in CONTROL_CLASS:
        body = {key: item for key, item in value.items() if key != "type"}
        return cast("Frame", from_json(body, CONTROL_CLASS[kind]))
    payload = value.get("payload")
    if type(payload) is not dict or "payload" not in payload:
        return UnknownFrame(kind, value)
    cls = PAYLOAD_CLASS.get(kind)
    inner = payload["payload"]
    return Event(
        type=kind,
        change=from_json(payload.get("type"), str),
        payload=inner if cls is None else from_json(inner, cls),
        workspace_id=from_json(value.get("workspace_id", ""), str),
        seq=from_json(value.get("seq"), cast("type[int | None]", int | None)),
        ts_ms=from_json(value.get("ts_ms"), cast("type[int | None]", int | None)),
        truncated=from_json(
            value.get("truncated"), cast("type[dict[str, str] | None]", dict[str, str] | None)
        ),
    )


def decode_frames(raw: bytes | str) -> list[Frame]:
    """The objects of one websocket frame, in order.

    Raises:
        DecodeError: Not a JSON array, or one of its objects is malformed.
    """
    value = parse(raw)
    if type(value) is not list:
        raise DecodeError(f"a frame must be a JSON array, not {_json_name(value)}")
    return [frame_from_json(item) for item in value]
