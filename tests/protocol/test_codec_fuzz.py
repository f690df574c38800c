"""Whatever comes in, the codec gives a value of the class or raises `DecodeError`."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.protocol import codec
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.events import Frame
from crush_trio.protocol.requests import PromptRequest
from tests.protocol.values import CLASSES, JSON, control_frames, instances, journal_events

ANY_BYTES = st.binary(max_size=60) | st.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
BROKEN: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.5, 2**63, 1e300, "", "1", "true", [], [[]], {}, {"type": []}]
)


@given(ANY_BYTES)
def test_any_bytes_give_a_value_or_a_decode_error(raw: bytes) -> None:
    for read in (codec.parse, codec.decode_frames, lambda raw: codec.decode(raw, PromptRequest)):
        with contextlib.suppress(DecodeError):
            read(raw)
    with contextlib.suppress(DecodeError):
        codec.decode_body(raw, PromptRequest)


@given(st.text(max_size=40))
def test_any_text_gives_a_value_or_a_decode_error(raw: str) -> None:
    with contextlib.suppress(DecodeError):
        codec.decode_frames(raw)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(value=JSON)
def test_any_json_gives_an_instance_or_a_decode_error(cls: type[Any], value: Any) -> None:
    with contextlib.suppress(DecodeError):
        assert type(codec.from_json(value, cls)) is cls


@given(JSON)
def test_any_json_is_a_frame_or_a_decode_error(value: Any) -> None:
    with contextlib.suppress(DecodeError):
        codec.frame_from_json(value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key, _ in items] + [
        place for _, item in items for place in _places(item)
    ]


@given(journal_events() | control_frames(), st.data())
def test_a_frame_with_one_value_replaced_is_read_strictly_or_refused(
    frame: Frame, data: st.DataObject
) -> None:
    raw = copy.deepcopy(codec.frame_to_json(frame))
    holder, key = data.draw(st.sampled_from(_places(raw)))
    holder[key] = data.draw(BROKEN)
    with contextlib.suppress(DecodeError):
        back = codec.frame_from_json(raw)
        assert codec.frame_from_json(orjson.loads(orjson.dumps(codec.frame_to_json(back)))) == back


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_an_object_with_one_value_replaced_is_read_strictly_or_refused(
    cls: type[Any], data: st.DataObject
) -> None:
    raw = {"": codec.to_json(data.draw(instances(cls)))}
    holder, key = data.draw(st.sampled_from(_places(raw)))
    holder[key] = data.draw(BROKEN)
    with contextlib.suppress(DecodeError):
        value = codec.from_json(raw[""], cls)
        assert type(value) is cls
        assert codec.decode(codec.encode(value), cls) == value
