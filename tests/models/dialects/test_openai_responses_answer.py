"""What is read from answers of the Responses API, whole ones and broken ones."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.agent.ports import ReasoningEnd, TextDelta, UsageSoFar
from crush_trio.models.dialects.responses.dialect import DIALECT
from crush_trio.models.dialects.responses.input_items import phase_signature
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.runs import Usage
from tests.models.dialects import kit
from tests.models.dialects.junk import junk, replaced

AT = kit.target("openai-responses", provider="openai", model="gpt-5")
FIXTURE = "responses_reasoning_and_calls.sse"
USED = Usage(input_tokens=76, output_tokens=80, cache_read_tokens=1024, cache_write_tokens=200)
CALLS = [
    ("call_a", "view", '{"file_path":"a.py"}'),
    ("call_b", "bash", '{"command":"ls"}'),
]


def heard(*events: Any, **more: Any) -> kit.Heard:
    return kit.play(DIALECT, kit.sse(*events, done=False), at=AT, **more)


def failed(*events: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        heard(*events)
    return caught.value


def recorded(name: str = FIXTURE) -> list[dict[str, Any]]:
    return [orjson.loads(data) for _, data in kit.split(kit.fixture(name))]


def text(words: str, place: int = 0) -> dict[str, Any]:
    kind = "response.output_text.delta"
    return {"type": kind, "output_index": place, "content_index": 0, "delta": words}


def ended(status: str = "completed", **more: Any) -> dict[str, Any]:
    response = {"status": status, "output": [], **more}
    return {"type": f"response.{status}", "response": response}


def item(verb: str, place: int, **given_: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{verb}", "output_index": place, "item": given_}


def call(**more: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "view", **more}


def check_whole(answer: kit.Heard) -> None:
    assert answer.reasoning == "First I look around.\n\nThen I list."
    assert answer.text == "I look first."
    assert answer.calls == CALLS
    thought = '{"id":"rs_1","encrypted_content":"gAAA-whole"}'
    assert answer.signatures == [thought, phase_signature("commentary")]
    assert answer.end is not None
    assert (answer.end.reason, answer.end.usage) == ("tool_use", USED)


def test_reasoning_text_and_two_calls_at_once_are_read() -> None:
    """What came from the cache or went into it is not counted as input (CW 5.11)."""
    answer = heard(*recorded())
    check_whole(answer)
    assert answer.done
    assert [e.usage for e in answer.events if isinstance(e, UsageSoFar)] == [USED]


def test_the_names_of_the_events_are_enough() -> None:
    events = [
        (event, orjson.dumps({k: v for k, v in orjson.loads(data).items() if k != "type"}).decode())
        for event, data in kit.split(kit.fixture(FIXTURE))
    ]
    check_whole(kit.play(DIALECT, events, at=AT))


def test_a_whole_response_that_is_not_streamed_is_accepted() -> None:
    check_whole(heard(recorded()[-1]["response"]))


def test_an_answer_that_comes_only_at_its_end_is_read() -> None:
    check_whole(heard(recorded()[0], recorded()[-1]))


def test_an_answer_whose_items_come_without_pieces_is_read() -> None:
    events = [e for e in recorded() if "item" in e or "response" in e]
    check_whole(heard(*events))


def test_events_that_name_their_item_by_its_id_alone_are_read() -> None:
    events = [{k: v for k, v in e.items() if k != "output_index"} for e in recorded()]
    check_whole(heard(*events))


def test_events_that_do_not_name_their_item_are_not_read_twice() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}
    spoken = {"type": "response.output_text.delta", "delta": "Yes."}
    asked = call(arguments="{}", id="")
    end = ended(output=[message, asked])
    answer = heard(spoken, {"type": "response.output_item.done", "item": asked}, end)
    assert (answer.text, answer.calls) == ("Yes.", [("c1", "view", "{}")])


def test_ids_that_change_between_events_do_no_harm() -> None:
    events = recorded()
    for number, event in enumerate(events):
        if "item_id" in event:
            event["item_id"] = f"changed-{number}"
    check_whole(heard(*events))


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_left_out_of_what_is_repeated_the_answer_is_the_same(data: Any) -> None:
    repeated = {
        "response.in_progress",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    }
    events = recorded()
    gone = data.draw(st.sets(st.sampled_from(sorted(repeated))))
    check_whole(heard(*(e for e in events if e["type"] not in gone)))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 13), max_size=8))
def test_any_cut_of_the_pieces_gives_the_same_answer(lengths: list[int]) -> None:
    events: list[dict[str, Any]] = []
    for event in recorded():
        rest = event.get("delta")
        if not isinstance(rest, str):
            events.append(event)
            continue
        for length in [*lengths, len(rest)]:
            events.append({**event, "delta": rest[:length]})
            rest = rest[length:]
    check_whole(heard(*events))


def test_a_refusal_is_text_with_its_own_reason() -> None:
    refused = {"type": "response.refusal.delta", "output_index": 0, "delta": "I will not."}
    answer = heard(refused, ended())
    assert answer.text == "I will not."
    assert answer.end is not None
    assert answer.end.reason == "content_filter"


def test_thoughts_in_plain_words_are_read_once() -> None:
    plain = {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "Hm."}
    summary = {**plain, "type": "response.reasoning_summary_text.delta", "delta": "In short"}
    answer = heard(plain, summary, text("Yes.", 1), ended())
    assert (answer.reasoning, answer.text, answer.signatures) == ("Hm.", "Yes.", [""])


def test_a_thought_without_words_keeps_what_must_go_back() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    answer = heard(item("done", 0, **thought), text("Yes.", 1), ended())
    assert answer.signatures == ['{"id":"rs_1","encrypted_content":"gAAA"}']
    kinds = [type(event) for event in answer.events]
    assert kinds.index(ReasoningEnd) < kinds.index(TextDelta)


def test_a_call_cut_off_at_the_limit_is_left_open() -> None:
    part = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"}
    details = {"incomplete_details": {"reason": "max_output_tokens"}}
    answer = heard(item("added", 0, **call()), part, ended("incomplete", **details))
    assert answer.calls == []
    assert answer.end is not None
    assert answer.end.reason == "max_tokens"


def test_a_call_whose_end_was_not_said_is_complete_when_the_answer_is() -> None:
    part = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}
    assert heard(item("added", 0, **call()), part, ended()).calls == [("c1", "view", "{}")]


def test_arguments_before_the_name_wait_for_it() -> None:
    part = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"}
    events = [item("added", 0, **call(name="")), part, item("done", 0, **call(arguments="{}"))]
    assert heard(*events, ended()).calls == [("c1", "view", "{}")]


def test_calls_without_ids_or_with_the_same_one_are_told_apart() -> None:
    same = [item("done", place, **call(arguments="{}")) for place in (0, 1)]
    nameless = item("done", 2, **call(call_id="", id="", arguments="{}"))
    ids = [name for name, _, _ in heard(*same, nameless, ended()).calls]
    assert len(set(ids)) == 3
    assert ids[0] == "c1"


@pytest.mark.parametrize(
    ("status", "details", "with_text", "reason"),
    [
        ("completed", None, True, "end_turn"),
        ("incomplete", {"reason": "max_output_tokens"}, True, "max_tokens"),
        ("incomplete", {"reason": "max_output_tokens"}, False, "max_tokens"),
        ("incomplete", {"reason": "content_filter"}, True, "content_filter"),
        ("incomplete", {"reason": "something new"}, True, "unknown"),
        ("incomplete", None, True, "unknown"),
    ],
)
def test_each_way_to_end_has_its_meaning(
    status: str, details: Any, with_text: bool, reason: str
) -> None:
    end = heard(*[text("some")] * with_text, ended(status, incomplete_details=details)).end
    assert end is not None
    assert end.reason == reason


def test_an_answer_cut_at_its_limit_says_what_it_used() -> None:
    end = heard(*recorded("responses_incomplete.sse")).end
    assert end is not None
    assert (end.reason, end.usage) == ("max_tokens", Usage(10, 16))


def test_counts_of_nothing_but_zeros_are_none() -> None:
    """A provider that counts nothing leaves it to the estimate (CW 5.11)."""
    end = heard(text("a"), ended(usage={"input_tokens": 0, "output_tokens": 0})).end
    assert end is not None
    assert end.usage is None


FILTER = {"incomplete_details": {"reason": "content_filter"}}
ERROR = {"code": "server_error", "message": "The server had an error"}


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([], Kind.TRUNCATED),
        ([text("half")], Kind.TRUNCATED),
        (recorded()[:-1], Kind.TRUNCATED),
        ([text("half"), ended("cancelled")], Kind.TRUNCATED),
        ([ended()], Kind.EMPTY),
        ([text(" "), ended()], Kind.EMPTY),
        ([ended("incomplete", **FILTER)], Kind.FILTERED),
        ([item("done", 0, type="function_call")], Kind.MALFORMED),
        ([[]], Kind.MALFORMED),
        (recorded("responses_failed.sse"), Kind.RATE_LIMIT),
        ([ended("failed", error=ERROR)], Kind.SERVER),
        ([ended("failed", error=None)], Kind.SERVER),
        ([{"type": "error", **ERROR}], Kind.SERVER),
        ([{"type": "error", "error": {"code": "insufficient_quota"}}], Kind.QUOTA),
        ([{"error": {"code": "context_length_exceeded", "message": "x"}}], Kind.TOO_LONG),
        ([{"error": "overloaded"}], Kind.OVERLOAD),
    ],
)
def test_a_broken_answer_is_a_failure_with_a_reason(events: list[Any], kind: Kind) -> None:
    failure = failed(*events)
    assert failure.kind is kind
    assert "openai" in failure.message.lower()
    assert "gpt-5" in failure.message


def test_an_error_event_whose_data_has_a_type_of_its_own_is_one() -> None:
    data = '{"type":"invalid_request_error","code":"context_length_exceeded","message":"x"}'
    with pytest.raises(Failure) as caught:
        kit.play(DIALECT, [("error", data)], at=AT)
    assert caught.value.kind is Kind.TOO_LONG


def test_the_wait_of_a_failed_response_is_kept() -> None:
    assert failed(*recorded("responses_failed.sse")).retry_after_s == 1.5


def test_data_that_is_no_json_is_a_failure() -> None:
    with pytest.raises(Failure) as caught:
        kit.play(DIALECT, [("message", "<html>")], at=AT)
    assert caught.value.kind is Kind.MALFORMED


def test_events_of_kinds_that_are_not_known_are_ignored() -> None:
    strange: list[Any] = [{"type": "response.new.thing", "output_index": 0}, {"type": 7}, {}]
    strange.append(item("added", 0, type="web_search_call"))
    assert heard(*strange, text("Yes.", 1), ended()).text == "Yes."


JSON = junk(
    "type delta item output_index item_id id call_id name arguments content text summary role "
    "encrypted_content phase response status output error code message usage input_tokens",
    "reasoning",
    "message",
    "function_call",
    "completed",
    "response.output_item.done",
    "response.completed",
)
PLACES = [
    (number, *path)
    for number, event in enumerate(recorded())
    for path in [
        (),
        *((key,) for key in event),
        *(("item", key) for key in event.get("item", {})),
        *(("response", key) for key in event.get("response", {})),
    ]
]


@settings(max_examples=300)
@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_in_an_answer_only_a_failure_is_raised(
    place: tuple[Any, ...], value: Any
) -> None:
    events = replaced(copy.deepcopy(recorded()), place, value)
    end = None
    with suppress(Failure):  # the one exception a reader may raise
        end = heard(*events).end
    assert end is None or end.reason
