"""Chat Completions streams as nobody documents them: any cut, any nonsense in any place."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crush_trio.models.dialects.chat.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from tests.models.dialects.kit import FIXTURES, Heard, fixture, play, split, sse, target

OURS = (
    "azure", "deepseek", "gateway", "gemini_compat", "groq", "javascript", "llamacpp", "lmstudio",
    "localai", "mistral", "ollama", "openai_chat", "openrouter", "proxy", "vllm", "xai",
)  # fmt: skip
STREAMS = sorted(p.name for p in FIXTURES.glob("*.sse") if p.name.startswith(OURS))
AT = target(quirks=["openrouter", "text_tools"])

_ARGUMENTS = st.dictionaries(
    st.sampled_from(["file_path", "a", "b"]),
    st.text(max_size=12) | st.integers() | st.dictionaries(st.just("{}"), st.none(), max_size=1),
    max_size=3,
)


def chunk(*calls: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    delta = {"tool_calls": list(calls)} if calls else {}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def cut(text: str, data: st.DataObject) -> list[str]:
    """The text in pieces, some of them empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def interleaved(lists: Sequence[Sequence[Any]], data: st.DataObject) -> Iterator[Any]:
    """One of the next items of each list, in any order that keeps each list's own."""
    queues = [list(items) for items in lists if items]
    while queues:
        queue = data.draw(st.sampled_from(queues)) if len(queues) > 1 else queues[0]
        yield queue.pop(0)
        queues = [items for items in queues if items]


def numbered(
    index: int, pieces: list[str], *, repeats: bool, name: str, indexed: bool, id_: str
) -> list[dict[str, Any]]:
    """The entries of one call: its name in the first of them, or in each."""
    entries = []
    for position, piece in enumerate(pieces):
        named = position == 0 or repeats
        entry: dict[str, Any] = {
            "function": {"arguments": piece} | ({"name": name} if named else {})
        }
        entry |= {"index": index} if indexed else {}
        entry |= {"id": id_} if (named or not indexed) and id_ else {}
        entries.append(entry)
    return entries


@settings(max_examples=150, deadline=None)
@given(st.lists(_ARGUMENTS, min_size=1, max_size=3), st.booleans(), st.booleans(), st.data())
def test_any_cut_and_order_of_pieces_gives_the_same_calls(
    arguments: list[dict[str, Any]], repeats: bool, indexed: bool, data: st.DataObject
) -> None:
    """R-COMPAT: arguments in one piece or many, calls told apart by number or by id alone."""
    texts = [json.dumps(value, ensure_ascii=data.draw(st.booleans())) for value in arguments]
    entries = [
        numbered(i, cut(text, data), repeats=repeats, name="view", indexed=indexed, id_=f"c{i}")
        for i, text in enumerate(texts)
    ]
    order = list(interleaved(entries, data))
    told = play(DIALECT, sse(*map(chunk, order), chunk(finish="tool_calls")))
    assert sorted(told.calls) == [(f"c{i}", "view", text) for i, text in enumerate(texts)]


@settings(max_examples=100, deadline=None)
@given(st.lists(_ARGUMENTS.filter(bool), min_size=1, max_size=3), st.booleans(), st.data())
def test_calls_without_number_and_id_are_told_apart_by_their_names(
    arguments: list[dict[str, Any]], zero: bool, data: st.DataObject
) -> None:
    """R-COMPAT: missing or repeated indexes."""
    texts = [json.dumps(value) for value in arguments]
    entries = [
        entry
        for i, text in enumerate(texts)
        for entry in numbered(
            0, cut(text, data), repeats=False, name=f"tool{i}", indexed=zero, id_=""
        )
    ]
    told = play(DIALECT, sse(*map(chunk, entries), chunk(finish="tool_calls")))
    assert [call[1:] for call in told.calls] == [(f"tool{i}", t) for i, t in enumerate(texts)]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.data())
def test_any_cut_of_a_text_gives_the_same_text(text: str, data: st.DataObject) -> None:
    """Cuts between the halves of a character too, as servers in JavaScript make them."""
    units = json.dumps(f"x{text}")[1:-1]  # halves of a character are separate escapes
    parts = _escapes(units)
    deltas = []
    for piece in cut("".join("x" for _ in parts), data):
        taken, parts = parts[: len(piece)], parts[len(piece) :]
        deltas.append(f'{{"choices":[{{"delta":{{"content":"{"".join(taken)}"}}}}]}}')
    events = [("message", delta) for delta in deltas]
    told = play(DIALECT, [*events, ("message", "[DONE]")], at=AT)
    assert told.text == f"x{text}"


def _escapes(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text):
        length = 1
        if text[place] == "\\":
            length = 6 if text[place + 1] == "u" else 2
        found.append(text[place : place + length])
        place += length
    return found


_NONSENSE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "stop", "error", "{}", '{"a":1}', "<think>", "<tool_call>{", "\ud83d"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["text", "content", "name", "arguments", "function", "index", "id", "type", "thinking",
             "code", "message", "raw", "error"]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
_EXAMPLE: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion.chunk",
    "error": None,
    "type": None,
    "detail": None,
    "message": None,
    "code": None,
    "base_resp": {"status_code": 0, "status_msg": ""},
    "timings": {"prompt_n": 1, "predicted_n": 2, "cache_n": 3},
    "x_groq": {"usage": {"prompt_tokens": 1}},
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
        "cost": 0.1,
        "is_byok": True,
        "cost_details": {"upstream_inference_cost": 0.1},
    },
    "choices": [
        {
            "index": 0,
            "error": None,
            "text": "x",
            "message": None,
            "finish_reason": "tool_calls",
            "delta": {
                "content": [{"type": "text", "text": "x"}, {"thinking": [{"text": "y"}]}],
                "refusal": "no",
                "reasoning": "z",
                "reasoning_content": None,
                "reasoning_details": [{"type": "reasoning.text", "text": "z", "index": 0}],
                "function_call": {"name": "view", "arguments": "{}"},
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "function": {"name": "view", "arguments": "{}"},
                        "extra_content": {"google": {}},
                    }
                ],
            },
        }
    ],
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in items.items() if isinstance(items, dict) else ():
        yield from _places(inner, (*path, key))


PLACES = list(_places(_EXAMPLE))


def replaced(place: tuple[Any, ...], nonsense: Any) -> dict[str, Any]:
    whole = copy.deepcopy(_EXAMPLE)
    inner: Any = whole
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = nonsense
    return whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), _NONSENSE), min_size=1, max_size=3))
@example([(("choices", 0, "delta", "tool_calls", 0, "function", "arguments"), {"\ud83d": 1})])
def test_nonsense_in_any_place_is_a_failure_or_is_passed_over(
    spoiled: list[tuple[tuple[Any, ...], Any]],
) -> None:
    """R-COMPAT: whatever a server sends, the reader raises a `Failure` or nothing."""
    heard = Heard()
    with contextlib.suppress(Failure):  # the one thing it may raise
        events = [("message", json.dumps(replaced(*place))) for place in spoiled]
        play(DIALECT, events, at=AT, heard=heard)
    assert len({call[0] for call in heard.calls}) == len(heard.calls)
    orjson.dumps([repr(event) for event in heard.events])  # can be stored


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40) | _NONSENSE.map(json.dumps), st.sampled_from(["message", "error", "x"]))
@example("[" * 100_000, "message")
@example('{"a":' * 100_000, "message")
@example("NaN", "message")
def test_any_data_is_a_failure_or_is_passed_over(data: str, event: str) -> None:
    with pytest.raises(Failure):
        play(DIALECT, [(event, data)], at=AT)  # alone it is never a whole answer


@pytest.mark.parametrize("data", ["{", "}", '{"choices":[', "nonsense", '"text"', "1", '{"a":1} x'])
def test_data_that_is_not_json_or_no_object_is_malformed(data: str) -> None:
    with pytest.raises(Failure) as caught:
        play(DIALECT, [("message", data)], at=AT)
    assert caught.value.kind is Kind.MALFORMED


def outcome(events: Sequence[tuple[str, str]]) -> Kind | None:
    """The class of the failure that these events are, if they are one."""
    try:
        play(DIALECT, events, at=AT)
    except Failure as failure:
        return failure.kind
    return None


@pytest.mark.parametrize(
    "place",
    [
        ("choices", 0, "delta", "content"),
        ("choices", 0, "delta", "reasoning_details"),
        ("choices", 0, "delta", "tool_calls", 0, "function", "arguments"),
        ("choices", 0, "delta", "tool_calls", 0, "extra_content"),
    ],
)
@pytest.mark.parametrize("depth", [20, 400, 505, 5_000])
def test_deep_nesting_is_malformed_at_most(place: tuple[Any, ...], depth: int) -> None:
    deep = '{"thinking":[' * depth + "]}" * depth
    whole = json.dumps(replaced(place, "HERE")).replace('"HERE"', deep)
    assert outcome([("message", whole), ("message", "[DONE]")]) in (None, Kind.MALFORMED)


@pytest.mark.parametrize("depth", [20, 400, 505, 5_000])
def test_deep_nesting_of_a_call_as_text_is_malformed_at_most(depth: int) -> None:
    deep = '{"a":[' * depth + "]}" * depth
    text = f'<tool_call>{{"name":"view","arguments":{deep}}}</tool_call>'
    delta = json.dumps({"choices": [{"delta": {"content": text}}]})
    assert outcome([("message", delta), ("message", "[DONE]")]) in (None, Kind.MALFORMED)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_off_anywhere_fails_or_brought_whole_calls(name: str) -> None:
    """R-RETRY, mid-stream: half an answer is an error; calls are never run with half of theirs."""
    events = list(split(fixture(name)))
    whole = Heard()
    with contextlib.suppress(Failure):  # some fixtures end in one
        play(DIALECT, events, at=AT, heard=whole)
    for length in range(len(events)):
        heard = Heard()
        with contextlib.suppress(Failure):  # the retry layer takes it from there
            play(DIALECT, events[:length], at=AT, heard=heard)
        if heard.end is not None:
            assert heard.calls == whole.calls[: len(heard.calls)]
            assert heard.text == whole.text
