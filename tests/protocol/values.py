"""Hypothesis strategies for all the protocol can say, built from the classes' annotations."""

from __future__ import annotations

from enum import StrEnum
from types import ModuleType
from typing import Any, get_args, get_origin

import attrs
from hypothesis import strategies as st

from crush_trio.limits import INT_MAX
from crush_trio.protocol import events, messages, questions, requests, runs, sessions
from crush_trio.protocol.messages import Part, UnknownPart

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-INT_MAX, INT_MAX)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | INTS | FLOATS | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)

_CHOICES: dict[str, tuple[str, ...]] = {
    "if_busy": requests.IF_BUSY,
    "permission_mode": requests.PERMISSION_MODES,
    "on_disconnect": requests.ON_DISCONNECT,
    "sandbox": requests.SANDBOX_MODES,
}
_SPECIAL = {events.Event, events.UnknownFrame, UnknownPart}


def classes_of(*modules: ModuleType) -> list[type[Any]]:
    """The attrs classes these modules define."""
    return [
        value
        for module in modules
        for value in vars(module).values()
        if attrs.has(value) and value.__module__ == module.__name__ and value not in _SPECIAL
    ]


CLASSES = classes_of(messages, sessions, runs, events, questions, requests)
"""Every class with a fixed shape."""


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of an attrs class that the codec accepts."""
    if cls is UnknownPart:
        names = TEXT.map(lambda name: f"future_{name}")
        return st.builds(UnknownPart, type=names, data=OBJECTS)
    return st.builds(
        cls,
        **{
            field.name: _field(cls, field.name, field.type)
            for field in attrs.fields(attrs.resolve_types(cls))
        },
    )


def _field(cls: type[Any], name: str, target: Any) -> st.SearchStrategy[Any]:
    if cls is requests.PromptRequest and name in _CHOICES:
        return st.none() | st.sampled_from(_CHOICES[name])
    if cls in (requests.SummarizeRequest, requests.ShellRequest) and name in _CHOICES:
        return st.none() | st.sampled_from([c for c in _CHOICES[name] if c != "steer"])
    if cls in (runs.Limits, requests.EditRequest) and name != "prompt":
        whole = st.none() | st.integers(0, INT_MAX)
        return whole if int in get_args(target) else st.none() | st.floats(0, 1e9)
    return of_type(target)


def of_type(target: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotation, as our classes use them."""
    target = getattr(target, "__supertype__", target)
    if target == Part:
        return st.one_of([instances(cls) for cls in get_args(Part)])
    if get_origin(target) is tuple:
        return st.lists(of_type(get_args(target)[0]), max_size=3).map(tuple)
    if get_origin(target) is dict:
        return st.dictionaries(TEXT, of_type(get_args(target)[1]), max_size=3)
    if get_args(target):
        return st.one_of([of_type(member) for member in get_args(target)])
    if attrs.has(target):
        return instances(target)
    if isinstance(target, type) and issubclass(target, StrEnum):
        return st.sampled_from(target)
    return _PLAIN[target]


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTS,
    bool: st.booleans(),
    float: FLOATS,
    Any: JSON,
    type(None): st.none(),
}


def journal_events() -> st.SearchStrategy[events.Event]:
    """Any event: of each kind with its payload, and of kinds that have no class here."""
    return st.sampled_from([*events.KINDS, "a_future_kind"]).flatmap(_event_of)


def _event_of(kind: str) -> st.SearchStrategy[events.Event]:
    cls = events.PAYLOAD_CLASS.get(kind)
    return st.builds(
        events.Event,
        type=st.just("lsp_event" if kind in events.TRANSIENT_KINDS else kind),
        change=st.sampled_from(events.CHANGES),
        payload=OBJECTS if cls is None else instances(cls),
        workspace_id=TEXT,
        seq=st.none() | INTS,
        ts_ms=st.none() | INTS,
        truncated=st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    )


def control_frames() -> st.SearchStrategy[Any]:
    """Any frame that is not an event: transient ones, control frames, unknown ones."""
    unknown = OBJECTS.map(
        lambda raw: events.UnknownFrame("a_future_frame", {**raw, "type": "a_future_frame"})
    )
    return st.one_of([instances(cls) for cls in events.CONTROL_CLASS.values()]) | unknown
