"""What is encoded comes back as it was: every class, every frame, whatever it holds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.protocol import codec
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.events import Event, Frame, UnknownFrame
from crush_trio.protocol.messages import Message, Part, TextPart, UnknownPart
from crush_trio.protocol.runs import Outcome, RunRecord, RunState
from tests.protocol.values import (
    CLASSES,
    JSON,
    OBJECTS,
    TEXT,
    control_frames,
    instances,
    journal_events,
    of_type,
)

PARTS: tuple[type[Any], ...] = Part.__args__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_class_comes_back_equal_through_bytes_and_through_plain_json(
    cls: type[Any], data: st.DataObject
) -> None:
    value = data.draw(instances(cls))
    assert codec.decode(codec.encode(value), cls) == value
    assert codec.from_json(codec.to_json(value), cls) == value


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_message_comes_back_with_every_kind_of_part(cls: type[Any], data: st.DataObject) -> None:
    message = Message("m", "assistant", "s", (data.draw(instances(cls)),))  # type: ignore[arg-type]  # ids are plain text here
    back = codec.decode(codec.encode(message), Message)
    assert back == message
    assert type(back.parts[0]) is cls


@given(journal_events() | control_frames())
def test_every_frame_comes_back_equal_and_of_its_own_class(frame: Frame) -> None:
    raw = orjson.dumps([codec.frame_to_json(frame)])
    (back,) = codec.decode_frames(raw)
    assert type(back) is type(frame)
    assert back == frame
    assert codec.frame_from_json(orjson.loads(raw)[0]) == frame


@given(st.lists(journal_events() | control_frames(), max_size=4))
def test_a_joined_frame_keeps_its_order(frames: list[Frame]) -> None:
    raw = orjson.dumps([codec.frame_to_json(frame) for frame in frames])
    assert codec.decode_frames(raw) == frames


@given(journal_events(), st.integers(1, 2**53), st.integers(0, 2**53))
def test_an_event_encoded_before_its_place_is_known_is_the_same_event(
    event: Event, seq: int, ts_ms: int
) -> None:
    rest = codec.encode_event_rest(event.type, event.change, event.payload, event.workspace_id)
    (back,) = codec.decode_frames(b'[{"seq":%d,"ts_ms":%d,%b]' % (seq, ts_ms, rest))
    whole = Event(event.type, event.change, event.payload, event.workspace_id, seq, ts_ms)
    assert back == whole


@given(st.lists(instances(RunRecord), max_size=3), of_type(dict[str, str]))
def test_lists_and_objects_of_things_are_written_whole(
    records: list[RunRecord], texts: dict[str, str]
) -> None:
    back = orjson.loads(codec.encode({"runs": records, "texts": texts}))
    assert codec.from_json(back["runs"], list[RunRecord]) == records
    assert codec.from_json(back["texts"], dict[str, str]) == texts


def test_states_and_outcomes_come_back_as_themselves_not_as_text() -> None:
    record = RunRecord("r", "w", "s", "p", 1, 2, state=RunState.FINISHED, outcome=Outcome.LOST)  # type: ignore[arg-type]  # ids are plain text here
    back = codec.decode(codec.encode(record), RunRecord)
    assert back.state is RunState.FINISHED
    assert back.outcome is Outcome.LOST
    assert type(codec.to_json(record)["state"]) is str


def test_sequences_come_back_immutable_and_are_written_as_lists() -> None:
    message = Message("m", "user", "s", (TextPart("hi"),))  # type: ignore[arg-type]  # ids are plain text here
    assert codec.to_json(message)["parts"] == [{"type": "text", "data": {"text": "hi"}}]
    assert type(codec.decode(codec.encode(message), Message).parts) is tuple


@given(TEXT, OBJECTS)
def test_a_part_of_a_kind_not_known_here_survives(name: str, data: dict[str, Any]) -> None:
    part = {"type": f"future_{name}", "data": data}
    raw = {"id": "m", "role": "assistant", "session_id": "s", "parts": [part]}
    message = codec.from_json(raw, Message)
    assert message.parts == (UnknownPart(f"future_{name}", data),)
    assert orjson.loads(codec.encode(message))["parts"] == [part]


@given(
    st.fixed_dictionaries(
        {"type": TEXT.map(lambda name: f"future_{name}")},
        optional={
            "payload": JSON | st.fixed_dictionaries({"type": TEXT | JSON, "payload": JSON}),
            "workspace_id": TEXT | JSON,
            "seq": st.integers(1, 99) | JSON,
            "ts_ms": JSON,
            "truncated": JSON,
            "something_new": JSON,
        },
    )
)
def test_a_frame_of_a_kind_not_known_here_survives_whatever_it_holds(raw: dict[str, Any]) -> None:
    frame = codec.frame_from_json(raw)
    assert orjson.dumps(codec.frame_to_json(frame), option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        raw, option=orjson.OPT_SORT_KEYS
    )
    assert isinstance(frame, Event | UnknownFrame)
    if type(raw.get("seq")) is int:
        assert frame.seq == raw["seq"]


def test_a_future_kind_in_an_events_envelope_is_an_event() -> None:
    raw = {"seq": 4, "type": "weather", "payload": {"type": "created", "payload": {"sky": "blue"}}}
    assert codec.frame_from_json(raw) == Event("weather", "created", {"sky": "blue"}, seq=4)


@pytest.mark.parametrize(
    "more", [{"seq": None}, {"seq": "4"}, {"workspace_id": ""}, {"mood": "good"}, {"payload": {}}]
)
def test_a_future_kind_that_an_envelope_cannot_hold_is_kept_as_it_came(more: Any) -> None:
    raw = {"type": "weather", "payload": {"type": "created", "payload": {}}, **more}
    assert codec.frame_from_json(raw) == UnknownFrame("weather", raw)


def test_an_unknown_frame_without_a_whole_number_has_no_place_in_the_journal() -> None:
    assert UnknownFrame("weather", {"seq": True}).seq is None
    assert UnknownFrame("weather", {"seq": 7}).seq == 7


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Message("\ud800", "user", "s", ()), "surrogate"),  # type: ignore[arg-type]  # ids are plain text here
        ({"n": 2**64}, "64"),
        ({"n": float("nan")}, "finite"),
    ],
)
def test_what_no_reader_could_take_is_not_written(value: Any, sentence: str) -> None:
    with pytest.raises(DecodeError, match=r"^cannot be written as JSON: ") as caught:
        codec.encode(value)
    assert sentence in str(caught.value)


def test_a_lone_surrogate_in_an_event_is_a_decode_error_before_the_journal_sees_it() -> None:
    with pytest.raises(DecodeError, match="cannot be written as JSON"):
        codec.encode_event_rest("session", "updated", {"title": "\udfff"}, "w")


@pytest.mark.parametrize("depth", [300, 5_000])
def test_an_endless_nesting_is_a_decode_error_also_when_written(depth: int) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(DecodeError, match="cannot be written as JSON"):
        codec.encode({"params": value})
