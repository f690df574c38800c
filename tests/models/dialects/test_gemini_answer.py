"""What is read from Gemini's answers, whole ones and broken ones."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.agent.ports import ToolCallEnd, UsageSoFar
from crush_trio.models.dialects.gemini.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.runs import Usage
from tests.models.dialects import kit
from tests.models.dialects.junk import junk, replaced

AT = kit.target("gemini", provider="google", model="gemini-3-pro-preview")


def heard(*pieces: Any, **more: Any) -> kit.Heard:
    return kit.play(DIALECT, kit.sse(*pieces, done=False), at=AT, **more)


def recorded(name: str) -> kit.Heard:
    return kit.play(DIALECT, kit.fixture(name), at=AT)


def failed(*pieces: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        heard(*pieces)
    return caught.value


def piece(*parts: Any, finish: str = "", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [{**candidate, **more}]}


def test_text_thoughts_signature_and_usage_are_read() -> None:
    """Thoughts are billed as output; what came from the cache is not counted as input (5.11)."""
    answer = recorded("gemini_text.sse")
    assert answer.text == "Hello, world."
    assert answer.reasoning == "**Looking**\n\nI should greet."
    assert answer.signatures == ["", "c2ln"]
    used = Usage(input_tokens=186, output_tokens=30, cache_read_tokens=1024)
    assert answer.end is not None
    assert (answer.end.reason, answer.end.usage) == ("end_turn", used)
    counted = [event.usage for event in answer.events if isinstance(event, UsageSoFar)]
    assert [usage.output_tokens for usage in counted] == [26, 27, 30]


def test_calls_in_one_answer_keep_their_ids_and_the_signature() -> None:
    answer = recorded("gemini_parallel_calls.sse")
    assert answer.calls == [
        ("fc-1", "view", '{"file_path":"a.py"}'),
        ("fc-2", "bash", '{"command":"ls"}'),
    ]
    ends = [event for event in answer.events if isinstance(event, ToolCallEnd)]
    assert [end.signature for end in ends] == ["c2lnbmF0dXJlQQ==", ""]
    assert answer.end is not None
    assert answer.end.reason == "tool_use"


def test_calls_without_ids_get_the_same_unique_ones_each_time() -> None:
    first, again = (
        recorded("gemini_calls_without_ids.sse"),
        recorded("gemini_calls_without_ids.sse"),
    )
    ids = [call for call, _, _ in first.calls]
    assert ids == [call for call, _, _ in again.calls]
    assert len(set(ids)) == 2
    later = kit.play(
        DIALECT,
        kit.fixture("gemini_calls_without_ids.sse"),
        at=AT,
        asked=attrs.evolve(kit.request(), step=2),
    )
    assert not {call for call, _, _ in later.calls} & set(ids)


def test_an_id_that_comes_twice_is_made_unique() -> None:
    call = {"functionCall": {"name": "view", "args": {}, "id": "same"}}
    answer = heard(piece(call, call, finish="STOP"))
    assert len({call for call, _, _ in answer.calls}) == 2


def test_an_error_inside_the_stream_is_the_failure_it_names() -> None:
    with pytest.raises(Failure) as caught:
        recorded("gemini_overloaded_midway.sse")
    assert caught.value.kind is Kind.OVERLOAD
    assert "gemini-3-pro-preview" in caught.value.message
    assert "The model is overloaded" in caught.value.message


def test_a_whole_answer_that_is_not_streamed_is_accepted() -> None:
    pieces = [piece({"text": "Hel"}), piece({"text": "lo"}, finish="STOP")]
    answer = kit.play(DIALECT, [("message", orjson.dumps(pieces).decode())], at=AT)
    assert answer.text == "Hello"


def test_a_finish_reason_in_every_piece_does_not_end_the_answer() -> None:
    answer = heard(piece({"text": "a"}, finish="STOP"), piece({"text": "b"}, finish="STOP"))
    assert answer.text == "ab"


def test_only_the_first_candidate_is_read() -> None:
    other = {"index": 1, "content": {"parts": [{"text": "other"}]}}
    two = piece({"text": "one"}, finish="STOP")
    two["candidates"].append(other)
    assert heard(two).text == "one"


@pytest.mark.parametrize(
    ("finish", "with_text", "reason"),
    [
        ("STOP", True, "end_turn"),
        ("MAX_TOKENS", True, "max_tokens"),
        ("MAX_TOKENS", False, "max_tokens"),
        ("SAFETY", True, "content_filter"),
        ("RECITATION", True, "content_filter"),
        ("OTHER", True, "unknown"),
        ("SOMETHING_NEW", True, "unknown"),
    ],
)
def test_each_finish_reason_has_its_meaning(finish: str, with_text: bool, reason: str) -> None:
    end = heard(piece(*[{"text": "some"}] * with_text, finish=finish)).end
    assert end is not None
    assert end.reason == reason


def test_calls_are_to_be_run_whatever_a_gateway_calls_the_end() -> None:
    call = {"functionCall": {"name": "view", "args": {}}}
    reasons = [heard(piece(call, finish=end)).end for end in ("FUNCTION_CALL", "OTHER", "SAFETY")]
    assert [end and end.reason for end in reasons] == ["tool_use", "tool_use", "content_filter"]


def test_counts_of_nothing_but_zeros_are_none() -> None:
    """A provider that counts nothing leaves it to the estimate (CW 5.11)."""
    zeros = {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    answer = heard({**piece({"text": "a"}, finish="STOP"), "usageMetadata": zeros})
    assert answer.end is not None
    assert answer.end.usage is None


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([], Kind.TRUNCATED),
        ([piece({"text": "half"})], Kind.TRUNCATED),
        ([piece(finish="STOP")], Kind.EMPTY),
        ([piece({"text": " \n"}, finish="STOP")], Kind.EMPTY),
        ([piece({"text": "hm", "thought": True}, finish="STOP")], Kind.EMPTY),
        ([piece(finish="OTHER")], Kind.EMPTY),
        ([piece(finish="SAFETY")], Kind.FILTERED),
        ([piece(finish="RECITATION")], Kind.FILTERED),
        ([piece(finish="PROHIBITED_CONTENT")], Kind.FILTERED),
        ([piece(finish="BLOCKLIST")], Kind.FILTERED),
        ([piece(finish="SPII")], Kind.FILTERED),
        ([piece(finish="IMAGE_SAFETY")], Kind.FILTERED),
        ([{"promptFeedback": {"blockReason": "SAFETY"}}], Kind.FILTERED),
        ([piece(finish="MALFORMED_FUNCTION_CALL")], Kind.MALFORMED),
        ([piece({"text": "x"}, finish="UNEXPECTED_TOOL_CALL")], Kind.MALFORMED),
        ([piece(finish="MISSING_THOUGHT_SIGNATURE")], Kind.REFUSED),
        ([piece({"functionCall": {"args": {}}}, finish="STOP")], Kind.MALFORMED),
        ([["no piece"]], Kind.MALFORMED),
        ([7], Kind.MALFORMED),
        ([{"error": {"code": 500, "message": "oh", "status": "INTERNAL"}}], Kind.SERVER),
        ([[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]], Kind.RATE_LIMIT),
        ([{"error": "a word"}], Kind.SERVER),
    ],
)
def test_a_broken_answer_is_a_failure_with_a_reason(pieces: list[Any], kind: Kind) -> None:
    failure = failed(*pieces)
    assert failure.kind is kind
    assert "Google" in failure.message
    assert "gemini-3-pro-preview" in failure.message


def test_what_google_remarks_about_a_broken_call_is_quoted() -> None:
    remark = "Malformed function call: print(default_api.view(...))"
    failure = failed(piece(finish="MALFORMED_FUNCTION_CALL", finishMessage=remark))
    assert "default_api.view" in failure.message


def test_arguments_too_deep_to_be_written_are_a_failure() -> None:
    whole = piece({"functionCall": {"name": "view", "args": "DEEP"}}, finish="STOP")
    data = orjson.dumps(whole).decode().replace('"DEEP"', "[" * 300 + "]" * 300)
    with pytest.raises(Failure) as caught:
        kit.play(DIALECT, [("message", data)], at=AT)
    assert caught.value.kind is Kind.MALFORMED


def test_data_that_is_no_json_is_a_failure() -> None:
    with pytest.raises(Failure) as caught:
        kit.play(DIALECT, [("message", "<html>")], at=AT)
    assert caught.value.kind is Kind.MALFORMED


@given(st.lists(st.integers(1, 12), max_size=8), st.data())
def test_any_cut_of_the_text_gives_the_same_answer(lengths: list[int], data: Any) -> None:
    thought, text = "I think so, certainly.", "The answer\n\nis 42, of course."
    pieces = []
    for whole, is_thought in ((thought, True), (text, False)):
        places = sorted({min(place, len(whole)) for place in lengths} | {0, len(whole)})
        for begin, end in itertools.pairwise(places):
            part: dict[str, Any] = {"text": whole[begin:end]}
            pieces.append({**part, "thought": True} if is_thought else part)
    pieces.append({"functionCall": {"name": "view", "args": {"file_path": "a"}, "id": "1"}})
    chunks: list[list[Any]] = [[]]
    for part in pieces:
        if data.draw(st.booleans()):
            chunks.append([])
        chunks[-1].append(part)
    answer = heard(*(piece(*chunk) for chunk in chunks), piece(finish="STOP"))
    assert (answer.reasoning, answer.text) == (thought, text)
    assert answer.calls == [("1", "view", '{"file_path":"a"}')]
    assert answer.signatures == [""]


JSON = junk(
    "candidates content parts text thought thoughtSignature functionCall name args id "
    "finishReason index usageMetadata promptTokenCount promptFeedback blockReason error code "
    "message status details retryDelay violations quotaId",
    "STOP",
    "SAFETY",
)
PLACES: list[tuple[Any, ...]] = [
    (),
    ("candidates",),
    ("candidates", 0),
    ("candidates", 0, "content"),
    ("candidates", 0, "content", "parts"),
    ("candidates", 0, "content", "parts", 0),
    ("candidates", 0, "content", "parts", 0, "text"),
    ("candidates", 0, "content", "parts", 0, "thoughtSignature"),
    ("candidates", 0, "content", "parts", 0, "functionCall"),
    ("candidates", 0, "finishReason"),
    ("usageMetadata",),
    ("usageMetadata", "promptTokenCount"),
    ("promptFeedback",),
    ("error",),
]


@settings(max_examples=200)
@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_in_an_answer_only_a_failure_is_raised(
    place: tuple[Any, ...], value: Any
) -> None:
    whole = {
        **piece({"text": "x", "functionCall": {"name": "view"}}, finish="STOP"),
        "usageMetadata": {"promptTokenCount": 1},
        "promptFeedback": {},
    }
    ended = None
    with suppress(Failure):  # the one exception a reader may raise
        ended = heard(replaced(whole, place, value), piece({"text": "more"}, finish="STOP")).end
    assert ended is None or ended.reason
