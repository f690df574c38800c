"""Servers that cut text by UTF-16 units: a character may come in two events, half in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.agent.ports import (
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.models.dialects import dialect
from crush_trio.models.dialects.halves import WholeCharacters, loaded
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.runs import Usage
from tests.models.dialects.kit import Heard, play, target

Json = dict[str, Any]
MARMOT = "a 🐿️ whistles 🦅!"
ARGUMENTS = json.dumps({"file_path": "🐿.md"}, ensure_ascii=False)


def units(text: str) -> list[str]:
    """One string for each UTF-16 unit of the text."""
    data = text.encode("utf-16-le")
    return [data[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(data), 2)]


def chat(texts: Sequence[str], inputs: Sequence[str]) -> list[Json]:
    """A text and a call as chunks of Chat Completions."""
    call: Json = {"index": 0, "id": "c1", "function": {"name": "view", "arguments": ""}}
    deltas: list[Json] = [{"content": each} for each in texts]
    deltas.append({"tool_calls": [call]})
    more = ({"index": 0, "function": {"arguments": each}} for each in inputs)
    deltas += [{"tool_calls": [each]} for each in more]
    chunks: list[Json] = [{"choices": [{"index": 0, "delta": each}]} for each in deltas]
    return [*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]


def responses(texts: Sequence[str], inputs: Sequence[str]) -> list[Json]:
    """The same of the Responses API."""
    item = {"type": "function_call", "id": "f", "call_id": "c1", "name": "view"}
    said = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0}
    piece = {"type": "response.function_call_arguments.delta", "output_index": 1}
    return [
        *({**said, "delta": each} for each in texts),
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        *({**piece, "delta": each} for each in inputs),
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {**item, "arguments": "".join(inputs)},
        },
        {"type": "response.completed", "response": {"status": "completed"}},
    ]


def claude(texts: Sequence[str], inputs: Sequence[str]) -> list[Json]:
    """The same of the Messages API."""
    begin = "content_block_start"
    call = {"type": "tool_use", "id": "c1", "name": "view", "input": {}}
    said = ({"type": "text_delta", "text": each} for each in texts)
    pieces = ({"type": "input_json_delta", "partial_json": each} for each in inputs)
    return [
        {"type": begin, "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": each} for each in said),
        {"type": "content_block_stop", "index": 0},
        {"type": begin, "index": 1, "content_block": call},
        *({"type": "content_block_delta", "index": 1, "delta": each} for each in pieces),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]


def gemini(texts: Sequence[str], inputs: Sequence[str]) -> list[Json]:
    """The same of Gemini, where a call comes whole."""
    call = {"name": "view", "id": "c1", "args": json.loads("".join(units("".join(inputs))))}
    parts: list[Json] = [{"text": each} for each in texts]
    content = [{"content": {"parts": [each]}} for each in parts]
    last = {"content": {"parts": [{"functionCall": call}]}, "finishReason": "STOP"}
    return [{"candidates": [each]} for each in (*content, last)]


SPOKEN: dict[str, Callable[[Sequence[str], Sequence[str]], list[Json]]] = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic": claude,
    "gemini": gemini,
}


def heard(name: str, events: Sequence[Json]) -> Heard:
    """The answer as it is read."""
    stream = [(each.get("type", "message"), json.dumps(each)) for each in events]
    return play(dialect(name), stream, at=target(name))


@pytest.mark.parametrize("name", SPOKEN)
def test_a_character_that_was_cut_in_two_is_whole_again(name: str) -> None:
    inputs = [ARGUMENTS] if name == "gemini" else units(ARGUMENTS)
    answer = heard(name, SPOKEN[name](units(MARMOT), inputs))
    assert answer.text == MARMOT
    (call,) = answer.calls
    assert json.loads(call[2]) == json.loads(ARGUMENTS)
    for event in answer.events:
        str(event).encode()  # no half gets out of here


@pytest.mark.parametrize("name", SPOKEN)
def test_half_a_character_without_the_other_is_replaced(name: str) -> None:
    answer = heard(name, SPOKEN[name](["a", "\ud83d", "b", "\ude00"], ["{}"]))
    assert answer.text == "a\ufffdb\ufffd"


@given(st.lists(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6))
def test_whatever_is_cut_where_nothing_is_lost(said: list[str], thought: list[str]) -> None:
    """Thoughts, text and arguments in turns, each cut everywhere."""
    answer = Heard()
    emit = WholeCharacters(answer.events.append)
    emit(ToolCallStart("c1", "view"))
    for text in said:
        for unit in units(text):
            emit(TextDelta(unit))
            emit(UsageSoFar(Usage(1)))
    for text in thought:
        for unit in units(text):
            emit(ReasoningDelta(unit))
    inputs = [unit for text in said for unit in units(text)]
    for unit in inputs:
        emit(ToolInputDelta("c1", unit))
    emit(ToolCallEnd("c1", "".join(inputs)))
    whole = "".join(said)
    assert (answer.text, answer.reasoning) == (whole, "".join(thought))
    assert answer.calls == [("c1", "view", whole)]


def test_what_a_text_ends_with_goes_out_before_what_follows() -> None:
    events: list[ModelEvent] = []
    emit = WholeCharacters(events.append)
    emit(TextDelta("a\ud83d"))
    emit(ReasoningDelta("b\ud83d"))
    emit(ToolCallStart("c1", "view"))
    emit(ToolInputDelta("c1", "{\ud83d"))
    emit(ToolCallEnd("c1", "{\ud83d"))
    assert events == [
        TextDelta("a"),
        TextDelta("\ufffd"),
        ReasoningDelta("b"),
        ReasoningDelta("\ufffd"),
        ToolCallStart("c1", "view"),
        ToolInputDelta("c1", "{"),
        ToolInputDelta("c1", "\ufffd"),
        ToolCallEnd("c1", "{\ufffd"),
    ]


def test_halves_stay_only_where_text_grows() -> None:
    value = loaded('{"text": "\\ud83d", "name": "v\\ud83d", "k\\ud83d": [1, "\\ude00", null]}')
    assert value == {"text": "\ud83d", "name": "v\ufffd", "k\ufffd": [1, "\ufffd", None]}


@pytest.mark.parametrize("data", ["{", '{"a": NaN}', "[" * 100_000, '"\\ud83d" x'])
def test_what_is_no_json_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        loaded(data)


@pytest.mark.parametrize("name", ["openai-responses", "anthropic", "gemini"])
def test_data_that_is_nearly_json_is_malformed(name: str) -> None:
    with pytest.raises(Failure) as caught:
        play(dialect(name), [("message", '{"type": NaN}')], at=target(name))
    assert caught.value.kind is Kind.MALFORMED
