"""Server-sent events out of bytes, however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.models.failures import Failure, Kind
from crush_trio.models.network.sse import EventDecoder


def decode(*pieces: bytes, max_bytes: int = 1_000) -> list[tuple[str, str]]:
    """All events of a body that comes in these pieces."""
    decoder = EventDecoder(max_bytes)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [*events, *decoder.end()]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", [("message", "a")]),
        (b"data:a\n\n", [("message", "a")]),
        (b"data:  a\n\n", [("message", " a")]),
        (b"data: a\r\n\r\n", [("message", "a")]),
        (b"data: a\r\rdata: b\r\r", [("message", "a"), ("message", "b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
        (b"event: ping\ndata: {}\n\n", [("ping", "{}")]),
        (b"event:ping\ndata:1\n\ndata: 2\n\n", [("ping", "1"), ("message", "2")]),
        (b"data: a\ndata: b\n\n", [("message", "a\nb")]),
        (b"data\ndata\n\n", [("message", "\n")]),
        (b"data:\n\n", [("message", "")]),
        (b": comment\n\n:\n\ndata: a\n\n", [("message", "a")]),
        (b"event: ping\n\ndata: a\n\n", [("message", "a")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [("message", "a")]),
        (b"whatever\ndata: a\n\n", [("message", "a")]),
        ("data: \u00e9\U0001f980\n\n".encode(), [("message", "\u00e9\U0001f980")]),
        (b"data: \xff\n\n", [("message", "\ufffd")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(body: bytes, events: list[tuple[str, str]]) -> None:
    assert decode(body) == events


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'{"a":1}\n{"a":2}\n', ['{"a":1}', '{"a":2}']),
        (b'{"a":1}\n{"a":2}', ['{"a":1}', '{"a":2}']),
        (b'{"a":1}', ['{"a":1}']),
        (b'{\n  "a": 1,\n  "b": [\n 2]\n}\n', ['{\n  "a": 1,\n  "b": [\n 2]\n}\n']),
        (b'[{"a":1},\n{"a":2}]\n', ['[{"a":1},\n{"a":2}]\n']),
        (b'{\r\n"a": 1\r\n}', ['{\n"a": 1\n}']),
        (b'{"a":1}\n{"a":', ['{"a":1}']),
        (b"[1,\n2", []),
        (b"<html>\n<p>{}</p>", []),
    ],
)
def test_json_without_fields_is_an_event_by_itself(body: bytes, events: list[str]) -> None:
    assert decode(body) == [("message", data) for data in events]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'data: {"a":1}', ['{"a":1}']),
        (b'data: {"a":1}\n', ['{"a":1}']),
        (b'data: {"a":1}\r', ['{"a":1}']),
        (b"data: [DONE]", ["[DONE]"]),
        (b'data: {"a":', []),
        (b'data: {"a":\n', []),
        (b"data: [DO", []),
        (b"dat", []),
        (b'data: {"a":\ndata: 1}\n', ['{"a":\n1}']),
    ],
)
def test_an_event_without_its_blank_line_counts_if_it_is_complete(
    body: bytes, events: list[str]
) -> None:
    assert decode(body) == [("message", data) for data in events]


BODY = (
    "\ufeffevent: \u00e4\r\ndata: {\U0001f980}\r\ndata: b\r\r\n: c\n\ndata: x\r\n\r\n"
    'data:\n\n{"n": 1}\ndata: [DONE]\n'
).encode()


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_events_do_not_depend_on_how_their_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[start:end] for start, end in itertools.pairwise(places)]
    assert decode(*pieces) == decode(BODY) != []


def test_one_byte_at_a_time_is_enough() -> None:
    pieces = [BODY[place : place + 1] for place in range(len(BODY))]
    assert decode(*pieces) == decode(BODY)


def test_an_event_is_given_as_soon_as_its_end_is_there() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: a\n")) == []
    assert list(decoder.feed(b"\n")) == [("message", "a")]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 200],
        [b"x" * 60, b"x" * 60],
        [b"data: xxxxxxxx\n"] * 20,
        [b"{\n", *([b"1,\n"] * 60)],
    ],
)
def test_what_is_too_long_is_refused_before_it_is_all_in_memory(pieces: list[bytes]) -> None:
    with pytest.raises(Failure) as caught:
        decode(*pieces, max_bytes=100)
    assert caught.value.kind is Kind.MALFORMED
    assert "100 bytes" in caught.value.message


def test_many_events_that_are_short_enough_have_no_limit_together() -> None:
    assert len(decode(*([b"data: xxxxxxxxxx\n\n"] * 100), max_bytes=30)) == 100
