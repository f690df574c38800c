"""Answers of the servers that call themselves compatible, each with what it does differently.

The fixtures were written from the shapes that the servers' documentation and bug reports show.
"""

from __future__ import annotations

import orjson
import pytest

from crush_trio.agent.ports import ToolCallEnd, UsageSoFar
from crush_trio.models.dialects.chat.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.runs import Usage
from tests.models.dialects.kit import Heard, fixture, play, request, sse, target

VIEW_A = ("view", '{"file_path":"a.py"}')


def heard(name: str, *quirks: str, is_local: bool = False) -> Heard:
    """What the reader makes of a fixture that ends well."""
    at = target(quirks=quirks, is_local=is_local)
    stream = fixture(name)
    return play(DIALECT, [("message", stream)] if name.endswith(".json") else stream, at=at)


def reason(heard: Heard) -> str:
    assert heard.end is not None
    return heard.end.reason


def usage(heard: Heard) -> Usage | None:
    assert heard.end is not None
    return heard.end.usage


TEXTS = {
    "openai_chat_usage_only_last_chunk.sse": "Hello",
    "openai_chat_refusal.sse": "I cannot help with that.",
    "azure_prompt_filter_results_first.sse": "Hello",
    "groq_usage_in_x_groq.sse": "Hello",
    "javascript_proxy_cuts_emoji_in_two.sse": "Hi 😀!",
    "llamacpp_timings_instead_of_usage.sse": "Hello",
    "llamacpp_usage_in_each_chunk.sse": "Hello",
    "lmstudio_no_done.sse": "Hello",
    "localai_no_finish_reason.sse": "Hello",
    "proxy_several_objects_in_one_event.sse": "Hello",
    "vllm_chunks_without_choices.sse": "Hello",
    "xai_reasoning_tokens_beside_completion_tokens.sse": "Hello",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_whole_however_the_server_wraps_it(name: str) -> None:
    """G14 (user-asks 21): quirks of compatible servers do not damage an answer."""
    told = heard(name)
    assert (told.text, told.reasoning, told.calls) == (TEXTS[name], "", [])
    assert reason(told) == "end_turn"


THOUGHTS = {
    "deepseek_think_tags_in_content.sse": ("\nTwo and two.", "Four."),
    "mistral_content_parts.sse": ("Hm, two.", "Four."),
    "ollama_reasoning.sse": ("Okay, easy.", "Hello"),
    "vllm_both_reasoning_names.sse": ("Hm. ", "4"),
    "vllm_reasoning_content_then_content.sse": ("\nThe user greets.", "\n\nHello"),
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_thoughts_are_told_from_the_answer_by_whatever_name_they_come(name: str) -> None:
    told = heard(name)
    assert (told.reasoning, told.text) == THOUGHTS[name]
    assert told.signatures == [""], "the thought ends once, and nothing is to be sent back"
    assert reason(told) == "end_turn"


CALLS: dict[str, list[tuple[str | None, str, str]]] = {
    "gateway_whole_answer.json": [("call_1", *VIEW_A)],
    "llamacpp_content_null_and_tool_call_in_pieces.sse": [("abcDEF123", *VIEW_A)],
    "ollama_parallel_calls_all_with_index_0.sse": [
        ("call_x1", *VIEW_A),
        ("call_x2", "view", '{"file_path":"b.py"}'),
    ],
    "ollama_tool_calls_with_finish_stop.sse": [("call_x1", *VIEW_A)],
    "openai_chat_legacy_function_call.sse": [(None, *VIEW_A)],
    "openai_chat_parallel_tool_calls_interleaved.sse": [
        ("call_a", *VIEW_A),
        ("call_b", "bash", '{"command":"ls"}'),
    ],
    "gemini_compat_calls_without_index.sse": [
        (None, *VIEW_A),
        (None, "bash", '{"command":"ls"}'),
    ],
    "localai_tool_call_without_finish_reason_or_done.sse": [(None, *VIEW_A)],
    "openrouter_comments_reasoning_details_and_cost.sse": [
        ("toolu_1", "view", '{"file_path": "a.py"}')
    ],
    "proxy_arguments_as_object.sse": [(None, *VIEW_A)],
    "proxy_empty_object_before_arguments.sse": [("toolu_1", *VIEW_A)],
    "vllm_name_and_id_in_each_chunk.sse": [("chatcmpl-tool-1", "view", '{"file_path": "a.py"}')],
}


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_are_put_together_however_the_server_numbers_them(name: str) -> None:
    told = heard(name)
    found = told.calls
    assert [call[1:] for call in found] == [call[1:] for call in CALLS[name]]
    for (given, *_), (expected, *_) in zip(found, CALLS[name], strict=True):
        assert given == expected or (expected is None and given.startswith("call_"))
    assert len({call[0] for call in found}) == len(found), "no id is used twice"
    assert reason(told) == "tool_use"


def test_a_made_up_call_id_is_the_same_when_the_answer_is_read_again() -> None:
    name = "gemini_compat_calls_without_index.sse"
    assert heard(name).calls == heard(name).calls
    other = play(DIALECT, fixture(name), asked=request(step=2))
    assert {call[0] for call in other.calls}.isdisjoint({c[0] for c in heard(name).calls})


def test_what_google_wants_back_with_a_call_goes_with_it() -> None:
    told = heard("gemini_compat_calls_without_index.sse")
    first = next(event for event in told.events if isinstance(event, ToolCallEnd))
    assert orjson.loads(first.signature) == {"google": {"thought_signature": "CvcB"}}


FAILURES = {
    "deepseek_no_resources.sse": (Kind.OVERLOAD, "busy", "Ha"),
    "gateway_cut_off.sse": (Kind.TRUNCATED, "broke off", "Half an ans"),
    "gateway_fastapi_detail.sse": (Kind.SERVER, "model worker died", ""),
    "llamacpp_error_object_with_status.sse": (Kind.TOO_LONG, "Context size", ""),
    "lmstudio_context_overflow_event.sse": (Kind.TOO_LONG, "only 4096 tokens", ""),
    "lmstudio_error_event.sse": (Kind.SERVER, "crashed", "Hel"),
    "ollama_error_object_in_stream.sse": (Kind.SERVER, "unexpected EOF", "Hel"),
    "openrouter_error_in_choice.sse": (Kind.SERVER, "disconnected", "Half an ans"),
    "openrouter_error_inside_the_choice_only.sse": (Kind.RATE_LIMIT, "Rate limit reached", ""),
    "vllm_reasoning_only.sse": (Kind.EMPTY, "only thought", ""),
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_inside_of_a_stream_that_began_well_is_an_error(name: str) -> None:
    kind, words, text = FAILURES[name]
    told = Heard()
    with pytest.raises(Failure) as caught:
        play(DIALECT, fixture(name), heard=told)
    assert caught.value.kind is kind
    assert words in caught.value.message
    assert told.text == text


def test_a_wait_that_the_error_asks_for_is_taken_from_its_words() -> None:
    with pytest.raises(Failure) as caught:
        play(DIALECT, fixture("openrouter_error_inside_the_choice_only.sse"))
    assert caught.value.retry_after_s == 7.0


USAGES = {
    "gateway_whole_answer.json": Usage(5, 6),
    "gemini_compat_calls_without_index.sse": Usage(50, 35),
    "groq_usage_in_x_groq.sse": Usage(11, 2),
    "llamacpp_timings_instead_of_usage.sse": Usage(14, 35, 236),
    "llamacpp_usage_in_each_chunk.sse": Usage(10, 3),
    "openai_chat_usage_only_last_chunk.sse": Usage(176, 3, 1024),
    "openrouter_comments_reasoning_details_and_cost.sse": Usage(10, 20, 60, 30),
    "vllm_chunks_without_choices.sse": Usage(7, 2),
    "xai_reasoning_tokens_beside_completion_tokens.sse": Usage(20, 302),
    "lmstudio_no_done.sse": None,
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_is_counted_once_and_without_cached_tokens_in_the_input(name: str) -> None:
    assert usage(heard(name)) == USAGES[name]


def test_usage_in_each_chunk_is_shown_as_it_grows() -> None:
    told = heard("llamacpp_usage_in_each_chunk.sse")
    shown = [event.usage.output_tokens for event in told.events if isinstance(event, UsageSoFar)]
    assert shown == [1, 2, 3]


def test_only_openrouter_is_believed_about_costs() -> None:
    name = "openrouter_comments_reasoning_details_and_cost.sse"
    costly, other = heard(name, "openrouter").end, heard(name).end
    assert [end.cost_usd for end in (costly, other) if end] == [0.00114, None]


def test_openrouters_reasoning_details_are_one_signature_at_the_end() -> None:
    told = heard("openrouter_comments_reasoning_details_and_cost.sse", "openrouter")
    block = {
        "type": "reasoning.text",
        "text": "Let me look.",
        "format": "anthropic-claude-v1",
        "index": 0,
        "signature": "c2lnbmVk",
    }
    assert [orjson.loads(s) for s in told.signatures if s] == [[block]]


def test_a_filter_that_cuts_the_answer_leaves_what_was_said() -> None:
    told = heard("azure_content_filter_cuts_the_answer.sse")
    assert (told.text, reason(told)) == ("Take the", "content_filter")


def chunk(delta: object, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (sse(chunk({}, "content_filter")), Kind.FILTERED),
        (sse(chunk({"content": ""}, "stop")), Kind.EMPTY),
        (sse(chunk({"content": " \n"}, "stop")), Kind.EMPTY),
        (sse(), Kind.EMPTY),
        ("", Kind.TRUNCATED),
        (sse(chunk({"content": "I call."}, "tool_calls")), Kind.MALFORMED),
        (sse(chunk({"tool_calls": [{"function": {"arguments": "{}"}}]})), Kind.MALFORMED),
        (
            sse(
                chunk({"tool_calls": [{"function": {"name": "a", "arguments": '{"x'}}]}),
                done=False,
            ),
            Kind.TRUNCATED,
        ),
        ("data: {nonsense\n\n", Kind.MALFORMED),
        ("data: 17\n\n", Kind.MALFORMED),
        ("event: error\ndata: out of memory\n\n", Kind.SERVER),
        (
            sse({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
            Kind.QUOTA,
        ),
    ],
)
def test_a_broken_or_empty_answer_is_never_a_silent_success(stream: str, kind: Kind) -> None:
    """R-EMPTY: neither text nor tool call is an error with a reason."""
    with pytest.raises(Failure) as caught:
        play(DIALECT, stream)
    assert caught.value.kind is kind
    assert caught.value.message.startswith(("acme/m-1", "Acme", "The "))


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "end_turn"),
        ("eos", "end_turn"),
        ("length", "max_tokens"),
        ("model_length", "max_tokens"),
        ("content_filter", "content_filter"),
        ("something_new", "unknown"),
    ],
)
def test_finish_reasons_are_mapped(finish: str, expected: str) -> None:
    assert reason(play(DIALECT, sse(chunk({"content": "x"}, finish)))) == expected


def test_an_answer_whose_tokens_all_went_into_thoughts_says_so() -> None:
    told = play(DIALECT, sse(chunk({"reasoning": "Well, "}, "length")))
    assert (told.reasoning, reason(told)) == ("Well, ", "max_tokens")


def test_nothing_is_read_after_the_end_was_announced() -> None:
    events = [("message", orjson.dumps(chunk({"content": "x"}, "stop")).decode())]
    events += [("message", "[DONE]"), ("message", "{nonsense")]
    told = Heard()
    reader = DIALECT.reader(request(), target(), told.events.append)
    for event, data in events:
        reader.feed(event, data)
    assert reader.is_done
    assert (reader.end().reason, told.text) == ("end_turn", "x")


def call(name: str | None, arguments: str, **more: object) -> dict[str, object]:
    """A chunk with one entry of a call."""
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return chunk({"tool_calls": [{"function": function, **more}]})


A, B = '{"file_path":"a.py"}', '{"file_path":"b.py"}'


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([call("view", A, index=0), call("view", B, index=0)], [("view", A), ("view", B)]),
        ([call("view", A), call(None, B)], [("view", A), ("view", B)]),
        ([call("view", A, index=0, id="x"), call("view", A, index=0, id="x")], [("view", A)]),
        ([call("view", A, index=0), call(None, A, index=0)], [("view", A)]),
        (
            [call("view", A, id="x", index=0), call("view", B, id="x", index=1)],
            [("view", A), ("view", B)],
        ),
        (
            [call("view", "", id="x", index=0), call("bash", "{}", id="y", index=0)],
            [("view", "{}"), ("bash", "{}")],
        ),
        ([call("vi", "", index=0), call("ew", "", index=0), call(None, A, index=0)], [("view", A)]),
        ([call("view", A, index="0"), call(None, "\n", index="0")], [("view", A + "\n")]),
    ],
)
def test_entries_are_taken_for_the_calls_they_must_be(
    chunks: list[dict[str, object]], expected: list[tuple[str, str]]
) -> None:
    """R-COMPAT: missing or repeated indexes, ids, names and arguments."""
    told = play(DIALECT, sse(*chunks, chunk({}, "tool_calls")))
    assert [found[1:] for found in told.calls] == expected
    assert len({found[0] for found in told.calls}) == len(expected)


def test_a_whole_answer_needs_no_mark_of_its_end() -> None:
    assert heard("gateway_whole_answer.json").done


def test_other_choices_than_the_first_are_not_mixed_into_it() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}}]}
    assert play(DIALECT, sse(chunk({"content": "yes"}, "stop"), other)).text == "yes"


def test_a_usage_of_zeros_is_none_and_the_same_usage_is_said_once() -> None:
    zeros = {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    counted = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    answer = chunk({"content": "x"}, "stop")
    assert usage(play(DIALECT, sse(answer, zeros))) is None
    told = play(DIALECT, sse(counted, answer, counted, zeros))
    assert usage(told) == Usage(3, 1)
    assert sum(isinstance(event, UsageSoFar) for event in told.events) == 1
