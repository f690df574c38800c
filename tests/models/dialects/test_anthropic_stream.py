"""What the Messages API streams, and what compatible servers make of it."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import ModelEvent, ReasoningEnd, TextDelta, UsageSoFar
from crush_trio.models.dialects.anthropic.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.messages import Message, ReasoningPart, TextPart, ToolCallPart
from crush_trio.protocol.runs import Usage
from tests.models.dialects.kit import Heard, fixture, play, request, split, target
from tests.models.kit import message

AT = target("anthropic", provider="anthropic", model="claude-sonnet-4-5")
Events = list[tuple[str, str]]


def event(kind: str, **members: Any) -> tuple[str, str]:
    """One event as the API names and writes it."""
    return kind, orjson.dumps({"type": kind, **members}).decode()


def start(block: Any, index: Any = 0) -> tuple[str, str]:
    """The beginning of a content block."""
    return event("content_block_start", index=index, content_block=block)


def delta(index: Any = 0, **members: Any) -> tuple[str, str]:
    """A piece of a content block."""
    return event("content_block_delta", index=index, delta=members)


def text(words: str, index: Any = 0) -> tuple[str, str]:
    """A piece of text."""
    return delta(index, type="text_delta", text=words)


def stopped(reason: str | None, **usage: Any) -> tuple[str, str]:
    """How the message ended."""
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


STOP = event("message_stop")
CALL = {"type": "tool_use", "id": "toolu_1", "name": "view", "input": {}}


def hear(stream: str | Events) -> Heard:
    """Play a stream to its end."""
    return play(DIALECT, stream, at=AT)


def failed(stream: str | Events) -> Failure:
    """What playing a stream fails with."""
    with pytest.raises(Failure) as caught:
        hear(stream)
    return caught.value


def written(events: list[ModelEvent]) -> Message:
    """The message that a turn writes from what was streamed."""
    live = LiveMessage(message("assistant"), lambda *_: None, lambda: 1)
    for one in events:
        live.apply(one)
    return live.finish("end_turn")


def test_text_comes_as_it_is_streamed() -> None:
    heard = hear(fixture("anthropic_text.sse"))
    pieces = [e.text for e in heard.events if isinstance(e, TextDelta)]
    assert pieces == ["Hello", " – wörld!"]
    assert heard.done
    assert heard.end is not None
    assert (heard.end.reason, heard.end.usage) == ("end_turn", Usage(25, 15))


def test_thoughts_text_and_two_calls_come_in_their_order_with_the_signature() -> None:
    heard = hear(fixture("anthropic_thinking_and_calls.sse"))
    assert heard.reasoning == "Two files to read."
    assert heard.signatures == ["EqQBCgIYAhIM1gbcDa9GJwZA"]
    assert heard.text == "I look at both."
    assert heard.calls == [
        ("toolu_01A", "view", '{"file_path": "a.py"}'),
        ("toolu_01B", "bash", '{"command": "cat b.py"}'),
    ]
    assert heard.end is not None
    assert heard.end.reason == "tool_use"
    assert heard.end.usage == Usage(12, 89, cache_read_tokens=4096, cache_write_tokens=310)


def test_what_was_counted_is_reported_before_the_answer_ends() -> None:
    heard = hear(fixture("anthropic_thinking_and_calls.sse"))
    counted = [e.usage for e in heard.events if isinstance(e, UsageSoFar)]
    assert counted == [Usage(12, 1, 4096, 310), Usage(12, 89, 4096, 310)]
    assert isinstance(heard.events[0], UsageSoFar)


def test_thoughts_between_the_text_keep_their_places_also_those_without_words() -> None:
    heard = hear(fixture("anthropic_interleaved.sse"))
    parts = written(heard.events).parts[:-1]
    assert [type(part) for part in parts] == [
        ReasoningPart,
        ReasoningPart,
        TextPart,
        ReasoningPart,
        ToolCallPart,
    ]
    signed = [part.signature for part in parts if isinstance(part, ReasoningPart)]
    assert signed == ["redacted_thinking:EmwKAhgBEgy3va3pzix", "Eu8BCkYICRgC", "ErUBCkYI"]
    assert heard.calls == [("toolu_01C", "now", "{}")]


def test_what_the_providers_own_tools_do_is_not_shown_and_citations_are_left_out() -> None:
    heard = hear(fixture("anthropic_server_tool.sse"))
    assert heard.text == "Trio is a library for Python."
    assert heard.calls == []


def test_a_call_that_was_cut_at_the_limit_stays_as_broken_as_it_is() -> None:
    heard = hear(fixture("anthropic_cut_at_the_limit.sse"))
    assert heard.calls == [("toolu_01D", "bash", '{"command": "cat <<')]
    assert heard.end is not None
    assert heard.end.reason == "max_tokens"


def test_a_call_that_was_cut_before_its_first_argument_is_never_complete() -> None:
    cut: Events = [text("So:"), start(CALL, 1), event("content_block_stop", index=1)]
    assert hear([*cut, stopped("max_tokens"), STOP]).calls == []
    assert hear([*cut, stopped("tool_use"), STOP]).calls == [("toolu_1", "view", "{}")]


def test_a_whole_message_is_an_answer_too() -> None:
    heard = hear([("message", fixture("anthropic_whole.json"))])
    assert heard.done
    assert (heard.reasoning, heard.signatures) == ("Easy.", ["c2lnbmF0dXJl"])
    assert heard.text == "I look."
    assert heard.calls == [("toolu_02", "bash", '{"command":"ls"}')]
    assert heard.end is not None
    assert heard.end.usage == Usage(9, 21, cache_write_tokens=130)


def test_a_server_that_leaves_out_indexes_ends_and_ids_is_understood() -> None:
    heard = hear(fixture("anthropic_compat_no_index.sse"))
    assert (heard.reasoning, heard.text) == ("Hm. Right.", "See below.")
    assert [(name, given) for _, name, given in heard.calls] == [
        ("view", '{"file_path":"a.py"}'),
        ("bash", '{"command": "ls"}'),
    ]
    assert heard.signatures == [""]
    assert heard.end is not None
    assert (heard.end.reason, heard.end.usage) == ("tool_use", None)


def test_the_same_index_for_every_block_begins_a_new_block_each_time() -> None:
    again = {**CALL, "id": "toolu_2"}
    arguments = delta(0, type="input_json_delta", partial_json='{"file_path":"b"}')
    heard = hear([start(CALL), start(again), arguments, stopped("tool_use"), STOP])
    assert heard.calls == [("toolu_1", "view", "{}"), ("toolu_2", "view", '{"file_path":"b"}')]


def test_calls_may_be_written_side_by_side() -> None:
    again = {**CALL, "id": "toolu_2"}

    def piece(index: int, given: str) -> tuple[str, str]:
        return delta(index, type="input_json_delta", partial_json=given)

    pieces = [piece(0, '{"a"'), piece(1, '{"b"'), piece(0, ":1}"), piece(1, ":2}")]
    heard = hear([start(CALL, 0), *pieces[:1], start(again, 1), *pieces[1:], stopped("tool_use")])
    assert heard.calls == [("toolu_1", "view", '{"a":1}'), ("toolu_2", "view", '{"b":2}')]


def test_text_after_the_end_of_its_block_is_still_text() -> None:
    blocks = [start({"type": "text", "text": "a"}, 0), start({"type": "text", "text": "b"}, 1)]
    assert hear([*blocks, text("c", 0), stopped("end_turn")]).text == "abc"


def test_arguments_too_deep_to_be_written_are_malformed() -> None:
    deep = {"type": "tool_use", "id": "t", "name": "view", "input": "DEEP"}
    kind, data = start(deep)
    nested = '{"a":' + "[" * 400 + "]" * 400 + "}"
    assert failed([(kind, data.replace('"DEEP"', nested))]).kind is Kind.MALFORMED


def test_the_sum_of_what_was_cached_counts_more_than_its_parts() -> None:
    parts = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
    both = stopped("end_turn", cache_creation_input_tokens=7, cache_creation=parts)
    end = hear([text("Hi"), both]).end
    assert end is not None
    assert end.usage == Usage(cache_write_tokens=7)


def test_two_calls_with_one_id_are_two_calls() -> None:
    heard = hear([start(CALL, 0), start(CALL, 1), stopped("tool_use"), STOP])
    assert len({call for call, _, _ in heard.calls}) == 2


def test_a_stop_reason_without_message_stop_ends_the_answer() -> None:
    heard = hear(fixture("anthropic_compat_no_stop.sse"))
    assert heard.text == "Done."
    assert heard.end is not None
    assert heard.end.usage == Usage(31, 3, cache_read_tokens=1024)


def test_a_piece_whose_block_never_began_is_text() -> None:
    assert hear([text("Hi", 4), stopped("end_turn")]).text == "Hi"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("end_turn", "end_turn"),
        ("stop_sequence", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("refusal", "content_filter"),
        ("pause_turn", "unknown"),
        ("something_new", "unknown"),
        (None, "end_turn"),
    ],
)
def test_each_stop_reason_has_a_meaning(said: str | None, reason: str) -> None:
    end = hear([text("Hi"), stopped(said), STOP]).end
    assert end is not None
    assert end.reason == reason


@pytest.mark.parametrize("stops_at", range(1, 15))
def test_a_stream_that_breaks_off_is_never_an_answer(stops_at: int) -> None:
    events = list(split(fixture("anthropic_thinking_and_calls.sse")))
    assert failed(events[:stops_at]).kind is Kind.TRUNCATED


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("end_turn", Kind.EMPTY),
        (None, Kind.EMPTY),
        ("tool_use", Kind.EMPTY),
        ("pause_turn", Kind.EMPTY),
        ("refusal", Kind.FILTERED),
        ("model_context_window_exceeded", Kind.TOO_LONG),
    ],
)
def test_an_answer_without_text_and_calls_is_an_error_with_its_reason(
    reason: str | None, kind: Kind
) -> None:
    thought = start({"type": "thinking", "thinking": "Hm."})
    assert failed([thought, text("\n \n", 1), stopped(reason), STOP]).kind is kind


def test_thoughts_that_took_all_of_the_answer_reached_its_limit() -> None:
    end = hear([start({"type": "thinking", "thinking": "Hm"}), stopped("max_tokens"), STOP]).end
    assert end is not None
    assert end.reason == "max_tokens"


def test_a_refusal_says_what_the_provider_explains() -> None:
    failure = failed(fixture("anthropic_refusal.sse"))
    assert failure.kind is Kind.FILTERED
    assert "This may help to attack computers." in failure.message


def test_an_error_in_the_middle_of_a_stream_is_raised_where_it_comes() -> None:
    heard = Heard()
    with pytest.raises(Failure) as caught:
        play(DIALECT, fixture("anthropic_overloaded_midway.sse"), at=AT, heard=heard)
    assert caught.value.kind is Kind.OVERLOAD
    assert heard.text == "It is"


def test_an_error_object_without_a_type_is_an_error() -> None:
    assert failed(fixture("anthropic_compat_bare_error.sse")).kind is Kind.OVERLOAD


def test_an_error_event_in_plain_words_is_an_error() -> None:
    assert failed([("error", "upstream is overloaded")]).kind is Kind.OVERLOAD


@pytest.mark.parametrize("data", ["{", "[]", "7", '"text"', "<html>", '{"type": "message_sto'])
def test_data_that_is_no_json_object_is_malformed(data: str) -> None:
    assert failed([text("Hi"), ("message", data)]).kind is Kind.MALFORMED


def test_pings_blank_data_and_unknown_events_are_no_content() -> None:
    events: Events = [event("ping"), ("ping", " "), event("new_kind", text="x"), ("x", "{}")]
    heard = hear([*events, text("Hi"), stopped("end_turn"), STOP])
    assert [type(e) for e in heard.events] == [TextDelta]


@pytest.mark.parametrize(
    "usage", [None, [], "7", {}, {"input_tokens": None}, {"input_tokens": -1, "output_tokens": 0.5}]
)
def test_usage_that_nobody_counted_is_none(usage: Any) -> None:
    begin = event("message_start", message={"usage": usage})
    end = hear([begin, text("Hi"), event("message_delta", delta={"stop_reason": "end_turn"})]).end
    assert end is not None
    assert end.usage is None


def test_nothing_is_read_after_the_end() -> None:
    reader = DIALECT.reader(request(), AT, list[ModelEvent]().append)
    for kind, data in [text("Hi"), stopped("end_turn"), STOP, ("error", "{}")]:
        reader.feed(kind, data)
    assert reader.is_done
    assert reader.end().reason == "end_turn"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_however_the_pieces_are_cut_the_message_is_the_same(data: st.DataObject) -> None:
    blocks = [
        ("thinking", "thinking_delta", "Überlegung, 12 Schritte", "sig=="),
        ("text", "text_delta", "So:\n– ein Wort 🎈", ""),
        ("tool_use", "input_json_delta", '{"file_path": "ä.py", "n": [1, 2]}', ""),
    ]
    events: Events = []
    for index, (kind, name, whole, signature) in enumerate(blocks):
        block = {**CALL, "id": "t"} if kind == "tool_use" else {"type": kind}
        member = {"tool_use": "partial_json"}.get(kind, kind)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)))
        edges = [0, *cuts, len(whole)]
        events.append(start(block, index))
        for a, b in itertools.pairwise(edges):
            events.append(delta(index, type=name, **{member: whole[a:b]}))
            if data.draw(st.booleans()):
                events.append(event("ping"))
        if signature:
            middle = data.draw(st.integers(0, len(signature)))
            events += [
                delta(index, type="signature_delta", signature=signature[:middle]),
                delta(index, type="signature_delta", signature=signature[middle:]),
            ]
        events.append(event("content_block_stop", index=index))
    parts = written(hear([*events, stopped("tool_use"), STOP]).events).parts
    assert parts[:3] == (
        ReasoningPart(blocks[0][2], "sig==", 1, 1),
        TextPart(blocks[1][2]),
        ToolCallPart("t", "view", blocks[2][2], finished=True),
    )


_NAMES = """
type index delta content_block message usage text thinking signature partial_json id name input
stop_reason stop_details error content data input_tokens cache_creation
"""
_TYPES = """
message_start content_block_start content_block_delta content_block_stop message_delta message_stop
ping error message text thinking redacted_thinking tool_use text_delta thinking_delta
signature_delta input_json_delta end_turn refusal
"""
_KEYS = st.sampled_from(_NAMES.split())
_KINDS = st.sampled_from(_TYPES.split())
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | _KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=12,
)


def _mutated(data: st.DataObject, value: Any) -> Any:
    """``value`` with anything in some place of it."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: _mutated(data, value[key])}
    return data.draw(_ANY)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_json_comes_only_a_failure_is_raised(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["thinking_and_calls.sse", "interleaved.sse", "refusal.sse"]))
    events = list(split(fixture(f"anthropic_{name}")))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(events) - 1))
        kind, old = events[place]
        new = json.dumps(_mutated(data, json.loads(old)))  # also NaN and huge numbers
        events[place] = (data.draw(st.sampled_from([kind, "message"])), new)
    heard = Heard()
    with contextlib.suppress(Failure):  # the one thing that may be raised
        play(DIALECT, events, at=AT, heard=heard)
    live = written(heard.events)
    assert all(isinstance(e.signature, str) for e in heard.events if isinstance(e, ReasoningEnd))
    assert live.finish() is not None
    assert len(heard.calls) <= len(live.tool_calls())
