"""The one cattrs converter: which JSON shape each of our classes has, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from crush_trio.protocol import messages as m
from crush_trio.protocol import questions as q
from crush_trio.protocol import strict
from crush_trio.protocol.events import (
    AgentEvent,
    Bye,
    ConfigChanged,
    Hello,
    MessageDelta,
    PermissionNotification,
    PermissionRequest,
    Ping,
    Pong,
    Replayed,
    Resync,
    ToolOutput,
)
from crush_trio.protocol.requests import (
    IF_BUSY,
    IF_BUSY_WITHOUT_STEERING,
    ON_DISCONNECT,
    PERMISSION_MODES,
    SANDBOX_MODES,
    EditRequest,
    PromptRequest,
    ShellRequest,
    Snapshot,
    SummarizeRequest,
)
from crush_trio.protocol.runs import Limits, RunComplete, Usage
from crush_trio.protocol.sessions import Session

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

# Keys that CW always writes although they have their zero value; all others of these classes are
# dropped when zero (CW 3.5 and 13, "opt"). Classes that are not named here write every key.
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
    Usage: frozenset(attrs.fields_dict(Usage)) - {"estimated"},
    Session: frozenset(attrs.fields_dict(Session)) - {"todos"},
    RunComplete: frozenset({"session_id", "run_id", "message_id", "outcome", "usage", "processes"}),
    AgentEvent: frozenset({"type"}),
    ConfigChanged: frozenset({"workspace_id"}),
    MessageDelta: frozenset(attrs.fields_dict(MessageDelta)) - {"tool_call_id"},
    ToolOutput: frozenset(attrs.fields_dict(ToolOutput)) - {"run_id", "job_id"},
    q.Choice: frozenset({"id", "label"}),
    q.Question: frozenset({"id", "type", "question"}),
    q.QuestionRequest: frozenset({"id", "session_id", "tool_call_id", "questions"}),
    q.QuestionResponse: frozenset({"request_id"}),
    q.QuestionNotification: frozenset({"batch_id"}),
    PermissionRequest: frozenset(attrs.fields_dict(PermissionRequest))
    - {"why", "covers", "digest"},
    PermissionNotification: frozenset({"tool_call_id", "granted", "denied"}),
    Snapshot: frozenset(attrs.fields_dict(Snapshot)) - {"session", "sessions", "messages"},
    Hello: frozenset(attrs.fields_dict(Hello)) - {"workspace_id"},
    Replayed: frozenset({"seq"}),
    Resync: frozenset(attrs.fields_dict(Resync)) - {"workspace_id"},
    Bye: frozenset({"reason"}),
    Ping: frozenset(),
    Pong: frozenset(),
}
_RENAME: dict[type[Any], dict[str, str]] = {
    m.BinaryPart: {"path": "Path", "mime_type": "MIMEType", "data": "Data"},
}
_CHOICES: dict[type[Any], dict[str, tuple[str, ...]]] = {
    PromptRequest: {
        "if_busy": IF_BUSY,
        "permission_mode": PERMISSION_MODES,
        "on_disconnect": ON_DISCONNECT,
        "sandbox": SANDBOX_MODES,
    },
    SummarizeRequest: {"if_busy": IF_BUSY_WITHOUT_STEERING, "on_disconnect": ON_DISCONNECT},
    ShellRequest: {"if_busy": IF_BUSY_WITHOUT_STEERING, "on_disconnect": ON_DISCONNECT},
}
_NOT_NEGATIVE: dict[type[Any], frozenset[str]] = {
    Limits: frozenset(attrs.fields_dict(Limits)),
    EditRequest: frozenset({"position"}),
}
_CLOSED: frozenset[type[Any]] = frozenset({Limits})  # unknown keys inside are refused (contract 3)

_SCALARS: dict[Any, strict.Hook] = {
    str: strict.exact_str,
    bool: strict.exact_bool,
    int: strict.exact_int,
    float: strict.finite_float,
    type(None): strict.exact_none,
    dict: strict.an_object(lambda value, _: value),
}


def wire_name(cls: Any, attribute: str) -> str:
    """The JSON key of an attribute of ``cls``."""
    return _RENAME.get(cls, {}).get(attribute, attribute)


# --- from JSON ----------------------------------------------------------------------------


def _class_hook(cls: Any) -> strict.Hook:
    """An instance of ``cls`` from a JSON object and from nothing else."""
    overrides: dict[str, Any] = {}
    for field in attrs.fields(attrs.resolve_types(cls)):
        wire = _RENAME.get(cls, {}).get(field.name)
        if field.name in _CHOICES.get(cls, {}):
            hook = strict.optional(strict.one_of(_CHOICES[cls][field.name]))
            overrides[field.name] = override(rename=wire, struct_hook=hook)
        elif field.name in _NOT_NEGATIVE.get(cls, ()):
            hook = strict.not_negative(structure_hook(field.type))
            overrides[field.name] = override(rename=wire, struct_hook=hook)
        elif wire is not None:
            overrides[field.name] = override(rename=wire)
    inner = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=cls in _CLOSED, **overrides
    )
    return strict.an_object(cast("strict.Hook", inner))


def _is_list(target: Any) -> bool:
    arguments = get_args(target)
    return get_origin(target) is list or (
        get_origin(target) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
    )


def _list_hook(target: Any) -> strict.Hook:
    return strict.a_list(structure_hook(get_args(target)[0]), cast("Any", get_origin(target)))


def _is_mapping(target: Any) -> bool:
    return get_origin(target) is dict


def _mapping_hook(target: Any) -> strict.Hook:
    return strict.a_mapping(structure_hook(get_args(target)[1]))


def _is_union(target: Any) -> bool:
    return get_origin(target) in (Union, UnionType)


def _union_hook(target: Any) -> strict.Hook:
    """A union of one type (or names for the same one, such as ids and ``str``) and perhaps null."""
    members = {_base(member) for member in get_args(target)} - {type(None)}
    if len(members) != 1:
        raise TypeError(f"the converter cannot tell the members of {target} apart")
    hook = structure_hook(members.pop())
    return strict.optional(hook) if type(None) in get_args(target) else hook


def _base(member: Any) -> Any:
    return getattr(member, "__supertype__", member)


def _part_from_json(value: Any, _: Any) -> m.Part:
    if type(value) is not dict:
        raise strict.Mismatch(f"expected object, not {strict.json_name(value)}")
    for key in ("type", "data"):
        if key not in value:
            raise strict.Mismatch(f"missing key {key}")
    kind, data = value["type"], value["data"]
    if type(kind) is not str:
        raise strict.Inside(
            [(".type", strict.Mismatch("expected str, not " + strict.json_name(kind)))]
        )
    if type(data) is not dict:
        wrong = strict.Mismatch(f"expected object, not {strict.json_name(data)}")
        raise strict.Inside([(".data", wrong)])
    cls = _PART_CLASS.get(kind)
    if cls is None:
        return m.UnknownPart(kind, data)
    try:
        return cast("m.Part", structure_hook(cls)(data, cls))
    except Exception as exc:
        raise strict.Inside([(".data", exc)]) from exc


# --- to JSON ------------------------------------------------------------------------------


def _class_to_json(cls: Any) -> Callable[[Any], dict[str, Any]]:
    always = _ALWAYS.get(cls)
    overrides: dict[str, Any] = {
        field.name: override(
            omit_if_default=always is not None and field.name not in always,
            rename=_RENAME.get(cls, {}).get(field.name),
        )
        for field in attrs.fields(attrs.resolve_types(cls))
    }
    return make_dict_unstructure_fn(cls, converter, **overrides)


def _list_to_json(target: Any) -> Callable[[Any], list[Any]]:
    element = converter.get_unstructure_hook(get_args(target)[0])
    return lambda items: [element(item) for item in items]


def _part_to_json(part: m.Part) -> dict[str, Any]:
    if type(part) is m.UnknownPart:
        return {"type": part.type, "data": part.data}
    name, data = _PART_TO_JSON[type(part)]
    return {"type": name, "data": data(part)}


def _float_to_json(value: float) -> float:
    # orjson would write null for NaN and infinity: another value than the one that was meant
    return strict.finite_float(value, None)


def _as_it_is(value: Any) -> Any:
    return value


def _make_converter() -> cattrs.Converter:
    made = cattrs.Converter()
    for scalar, hook in _SCALARS.items():
        made.register_structure_hook(scalar, hook)
    made.register_structure_hook(StrEnum, lambda value, enum: strict.member_of(enum)(value, enum))
    made.register_structure_hook_factory(_is_list, _list_hook)
    made.register_structure_hook_factory(_is_mapping, _mapping_hook)
    made.register_structure_hook_factory(_is_union, _union_hook)
    made.register_structure_hook_func(lambda target: target == m.Part, _part_from_json)
    made.register_structure_hook_factory(attrs.has, _class_hook)

    made.register_unstructure_hook(float, _float_to_json)
    made.register_unstructure_hook(StrEnum, lambda member: member.value)
    made.register_unstructure_hook_factory(_is_list, _list_to_json)
    made.register_unstructure_hook_func(lambda target: target == m.Part, _part_to_json)
    made.register_unstructure_hook_func(_is_mapping, _as_it_is)
    made.register_unstructure_hook_factory(attrs.has, _class_to_json)
    return made


converter = _make_converter()
"""Errors of its hooks are `strict` ones and cattrs groups; only `codec` may meet them."""


def structure_hook(target: Any) -> strict.Hook:
    """The hook that reads ``target``, whatever second argument it is called with."""
    hook: strict.Hook = converter.get_structure_hook(target)
    return lambda value, _: hook(value, target)


_PART_TO_JSON: dict[type[Any], tuple[str, Callable[[Any], Any]]] = {
    cls: (name, converter.get_unstructure_hook(cls)) for name, cls in _PART_CLASS.items()
}
