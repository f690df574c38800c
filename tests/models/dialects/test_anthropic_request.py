"""What is sent to the Messages API: address, headers, and the body for every kind of history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio import limits
from crush_trio.agent.transcript import for_model
from crush_trio.models.dialects.anthropic.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access, Choice, Target
from crush_trio.protocol.messages import (
    BinaryPart,
    FinishPart,
    ImageUrlPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from tests.models.dialects.kit import ACCESS, BASH, VIEW, request, target
from tests.models.kit import message, user

Json = dict[str, Any]
AT = target("anthropic", provider="anthropic", model="claude-sonnet-4-5", max_output_tokens=32_000)
MARK = {"cache_control": {"type": "ephemeral"}}
PNG = "iVBORw0KGgo="


def said(*parts: Part, at: Target = AT) -> Message:
    """What the target's model has said."""
    made = message("assistant", *parts)
    return attrs.evolve(made, provider=at.info.provider, model=at.info.model)


def call(call_id: str, name: str = "view", given: str = "{}") -> ToolCallPart:
    """A complete call."""
    return ToolCallPart(call_id, name, given, finished=True)


def result(call_id: str, content: str = "ok", **fields: Any) -> Message:
    """What a tool answered."""
    return message("tool", ToolResultPart(call_id, "view", content, **fields))


def body(*messages: Message, at: Target = AT, system: str = "", **fields: Any) -> Json:
    """The body of a request with these messages, without anything that is not JSON."""
    asked = request(*messages, tools=fields.pop("tools", (VIEW, BASH)))
    made = DIALECT.call(attrs.evolve(asked, system=system, **fields), at, ACCESS).body
    plain: Json = orjson.loads(orjson.dumps(dict(made)))
    return plain


def turns(*messages: Message, at: Target = AT) -> list[Json]:
    """The turns of that, without marks."""
    sent: list[Json] = unmarked(body(*messages, at=at)["messages"])
    return sent


def unmarked(value: Any) -> Any:
    """Without any mark for the cache."""
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    if isinstance(value, dict):
        return {key: unmarked(item) for key, item in value.items() if key != "cache_control"}
    return value


def text(words: str) -> Json:
    """A block of text."""
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/messages/", "https://api.anthropic.com/v1/messages"),
        ("http://127.0.0.1:8080/anthropic", "http://127.0.0.1:8080/anthropic/v1/messages"),
        ("", "https://api.anthropic.com/v1/messages"),
    ],
)
def test_any_spelling_of_the_base_leads_to_the_messages(base: str, url: str) -> None:
    access = Access(base, "k")
    assert DIALECT.call(request(), AT, access).url == url
    listed = DIALECT.models_call(access)
    assert listed.url == url.removesuffix("messages") + "models?limit=1000"
    assert listed.headers["anthropic-version"] == "2023-06-01"


def headers(key: str = "sk-ant-api03-x", at: Target = AT) -> dict[str, str]:
    """The headers of a request with this key."""
    return dict(DIALECT.call(request(), at, Access(ACCESS.base_url, key)).headers)


def test_the_key_goes_where_the_server_looks_for_it() -> None:
    assert headers()["x-api-key"] == "sk-ant-api03-x"
    assert "authorization" not in headers()
    for made in (headers(at=target("anthropic", quirks=("bearer",))), headers("Bearer x")):
        assert made["authorization"].startswith("Bearer ")
        assert "x-api-key" not in made
    signed_in = headers("sk-ant-oat01-x")
    assert signed_in["authorization"] == "Bearer sk-ant-oat01-x"
    assert signed_in["anthropic-beta"] == "oauth-2025-04-20"
    assert {"x-api-key", "authorization"}.isdisjoint(headers(""))


def test_configured_headers_replace_ours_and_betas_add_up() -> None:
    over = {"Anthropic-Version": "x", "Anthropic-Beta": "mine"}
    access = Access(ACCESS.base_url, "sk-ant-oat01-x", over)
    made = DIALECT.call(request(), AT, access).headers
    assert made["Anthropic-Version"] == "x"
    assert made["Anthropic-Beta"] == "oauth-2025-04-20,mine"
    assert {"anthropic-version", "anthropic-beta"}.isdisjoint(made)


def test_a_plain_request_has_the_system_prompt_tools_and_three_marks() -> None:
    sent = body(user("Hi"), system="Be brief.")
    assert sent == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "stream": True,
        "system": [{**text("Be brief."), **MARK}],
        "tools": [
            {"name": "view", "description": "Does view.", "input_schema": VIEW.parameters},
            {"name": "bash", "description": "Does bash.", "input_schema": BASH.parameters, **MARK},
        ],
        "messages": [{"role": "user", "content": [{**text("Hi"), **MARK}]}],
    }


def test_what_a_provider_puts_before_the_system_prompt_is_a_block_of_its_own() -> None:
    sent = body(at=target("anthropic", system_prompt_prefix="You are a tool."), system="Be brief.")
    assert sent["system"] == [text("You are a tool."), {**text("Be brief."), **MARK}]


def test_a_server_without_a_cache_gets_no_marks() -> None:
    sent = body(user("Hi"), system="Be brief.", at=target("anthropic", quirks=("no_cache",)))
    assert b"cache_control" not in orjson.dumps(sent)


@pytest.mark.parametrize(
    ("chosen", "asked", "known", "sent"),
    [
        (5_000, None, 32_000, 5_000),
        (5_000, 700, 32_000, 700),
        (None, 7_000, 32_000, 7_000),
        (None, 64_000, 32_000, 32_000),
        (None, None, 32_000, 32_000),
        (None, None, 0, limits.ANSWER_TOKENS_DEFAULT),
        (None, 0, 0, 1),
    ],
)
def test_an_answer_always_has_a_limit(
    chosen: int | None, asked: int | None, known: int, sent: int
) -> None:
    at = target("anthropic", choice=Choice(max_tokens=chosen), max_output_tokens=known)
    assert body(at=at, max_output_tokens=asked)["max_tokens"] == sent


def test_a_claude_that_no_catalogue_knows_may_answer_as_long_as_all_of_them() -> None:
    sent = [
        body(at=target("anthropic", model=name), max_output_tokens=None)["max_tokens"]
        for name in ("claude-opus-9", "claude-3-5-haiku-latest")
    ]
    assert sent == [limits.ANSWER_TOKENS_CLAUDE, limits.ANSWER_TOKENS_DEFAULT]
    at = target("anthropic", model="claude-opus-9")
    assert body(at=at, max_output_tokens=40)["max_tokens"] == 40


def test_prompt_and_answer_fit_the_window_together() -> None:
    at = target("anthropic", max_output_tokens=64_000, context_window=200_000)
    assert body(user("x" * 1_000), at=at)["max_tokens"] == 64_000
    assert 30_000 < body(user("x" * 480_000), at=at)["max_tokens"] < 40_000
    assert body(user("x" * 900_000), at=at)["max_tokens"] == limits.ANSWER_TOKENS_MIN
    picture = BinaryPart("a.png", "image/png", "A" * 900_000)
    assert body(message("user", TextPart("See"), picture), at=at)["max_tokens"] == 64_000


def test_results_of_two_calls_come_in_one_turn_before_what_a_person_says() -> None:
    sent = turns(
        user("Read both."),
        said(TextPart("Yes."), call("t1", given='{"file_path":"a"}'), call("t2")),
        result("t1", "AAA"),
        result("t2", "no such file", is_error=True),
        user("And hurry."),
    )
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [
        text("Yes."),
        {"type": "tool_use", "id": "t1", "name": "view", "input": {"file_path": "a"}},
        {"type": "tool_use", "id": "t2", "name": "view", "input": {}},
    ]
    bad: Json = {"type": "tool_result", "tool_use_id": "t2", "is_error": True}
    assert sent[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": [text("AAA")]},
        {**bad, "content": [text("no such file")]},
        text("And hurry."),
    ]


def test_the_ends_of_the_last_two_turns_of_the_user_are_marked() -> None:
    history = [user("1"), said(call("a")), result("a"), said(call("b")), result("b")]
    sent = body(*history, system="S")["messages"]
    assert "cache_control" not in sent[0]["content"][-1]
    assert [sent[place]["content"][-1]["cache_control"]["type"] for place in (2, 4)] == [
        "ephemeral",
        "ephemeral",
    ]


def test_images_go_along_in_prompts_and_results() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    sent = turns(
        message("user", TextPart("What is it?"), BinaryPart("a.png", "image/png", PNG)),
        said(call("t1")),
        result("t1", "", data=PNG, mime_type="image/png"),
        message("user", ImageUrlPart("https://example.test/a.png"), BinaryPart("x", "a/b", PNG)),
        message("user", ImageUrlPart(f"data:image/jpg;base64,{PNG}")),
    )
    image = {"type": "image", "source": source}
    assert sent[0]["content"] == [text("What is it?"), image]
    answer, linked, unreadable, inline = sent[2]["content"]
    assert answer["content"] == [image]
    assert linked["source"] == {"type": "url", "url": "https://example.test/a.png"}
    assert "not shown" in unreadable["text"]
    assert inline["source"] == {**source, "media_type": "image/jpeg"}


def test_an_image_that_the_api_refuses_for_its_size_is_named_instead() -> None:
    """G7: else each later request of the session would be refused, too."""
    most = limits.ANTHROPIC_IMAGE_CHARS
    for size, shown in ((most, True), (most + 4, False)):
        sent = turns(
            message("user", TextPart("Look."), BinaryPart("a.png", "image/png", "A" * size)),
            said(call("t1")),
            result("t1", "", data="A" * size, mime_type="image/png"),
        )
        blocks = [sent[0]["content"][1], sent[2]["content"][0]["content"][0]]
        assert [block["type"] == "image" for block in blocks] == [shown, shown]
        assert shown or "a.png" in blocks[0]["text"]
        assert shown or "too large" in blocks[1]["text"]


def test_a_model_that_takes_no_images_is_told_what_it_does_not_see() -> None:
    at = target("anthropic", supports_attachments=False)
    history = [
        message("user", BinaryPart("a.png", "image/png", PNG)),
        said(call("t1")),
        result("t1", "", data=PNG, mime_type="image/png"),
    ]
    sent = turns(*history, at=at)
    assert sent[0]["content"][0]["text"].startswith("[The attached file a.png (image/png)")
    assert sent[2]["content"][0]["content"] == [text("(no output)")]


def test_an_error_holds_nothing_but_text() -> None:
    bad = result("t1", " ", data=PNG, mime_type="image/png", is_error=True)
    assert turns(user("x"), said(call("t1")), bad)[2]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "content": [text("(no output)")],
            "is_error": True,
        }
    ]


def test_names_and_ids_of_other_providers_are_spelled_as_the_api_takes_them() -> None:
    sent = turns(
        user("x"),
        said(call("functions.bash:0", "fs.read"), call("functions_bash_0", "")),
        result("functions.bash:0", "one"),
        result("functions_bash_0", "two"),
    )
    calls = [(block["id"], block["name"]) for block in sent[1]["content"]]
    assert calls == [("functions_bash_0", "fs_read"), ("functions_bash_0_2", "unknown")]
    assert [block["tool_use_id"] for block in sent[2]["content"]] == [name for name, _ in calls]


@pytest.mark.parametrize("given", ["", "[1]", "{", '{"a":' + "[" * 300 + "]" * 300 + "}"])
def test_arguments_that_cannot_be_sent_are_sent_as_none(given: str) -> None:
    sent = turns(user("x"), said(call("t1", given=given)), result("t1"))
    assert sent[1]["content"][0]["input"] == {}


def test_a_conversation_that_begins_or_ends_with_the_model_is_completed() -> None:
    assert [turn["role"] for turn in turns(said(TextPart("Hi ")))] == ["user", "assistant", "user"]
    assert turns(message("user", TextPart(" "))) == [
        {"role": "user", "content": [text("Continue.")]}
    ]


def test_a_summary_and_the_prompt_after_it_are_one_turn() -> None:
    summary = attrs.evolve(user("We did this."), is_summary_message=True)
    assert turns(summary, user("Go on")) == [
        {"role": "user", "content": [text("We did this."), text("Go on")]}
    ]


def test_calls_in_a_history_need_tools_also_where_none_may_be_called() -> None:
    sent = body(user("x"), said(call("a"), call("b", "bash")), result("a"), result("b"), tools=())
    assert [tool["name"] for tool in sent["tools"]] == ["view", "bash"]
    assert sent["tool_choice"] == {"type": "none"}
    assert "tools" not in body(user("x"), tools=())


def test_sampling_is_sent_as_far_as_the_model_takes_it() -> None:
    choice = Choice(temperature=0.5, top_p=0.9, top_k=5, frequency_penalty=1.0)
    names = ("temperature", "top_p", "top_k", "frequency_penalty")

    def sampling(model: str) -> Json:
        sent = body(at=target("anthropic", model=model, choice=choice))
        return {name: sent[name] for name in names if name in sent}

    assert sampling("kimi-k2") == {"temperature": 0.5, "top_p": 0.9, "top_k": 5}
    assert sampling("claude-sonnet-4-5") == {"temperature": 0.5, "top_k": 5}
    assert sampling("claude-opus-4-7") == {}


def test_options_and_extra_body_count_over_everything() -> None:
    at = target(
        "anthropic",
        choice=Choice(max_tokens=10, options={"max_tokens": 20, "metadata": {"a": 1}}),
        extra_body={"metadata": {"user_id": "u"}, "service_tier": "auto"},
    )
    sent = body(at=at)
    assert sent["max_tokens"] == 20
    assert sent["metadata"] == {"a": 1, "user_id": "u"}
    assert sent["service_tier"] == "auto"


def test_the_models_of_a_list_are_named() -> None:
    listed = {"data": [{"id": "claude-a", "type": "model"}, {"id": 7}, None], "has_more": False}
    assert DIALECT.models(json.dumps(listed).encode()) == ("claude-a",)
    for wrong in (b"", b"<html>", b"[]", b'{"data": 1}', b"{}"):
        with pytest.raises(Failure) as caught:
            DIALECT.models(wrong)
        assert caught.value.kind is Kind.MALFORMED


# --- any history --------------------------------------------------------------------------

_WORDS = st.sampled_from(["", " ", "\n", "Hi", "Hi \n", "ä🎈", "  x"])
_GIVEN = st.sampled_from(["", "{}", '{"a": 1}', "[1]", "{", '{"a": {"b": [null]}}', "[" * 400])
_MIMES = st.sampled_from(["image/png", "image/jpg", "text/plain", "application/pdf", ""])
_IDS = st.sampled_from(["toolu_1", "a.b", "a_b", "é", "", "x" * 90, "call|fc~2", "toolu_2"])
_MODELS = st.sampled_from(["claude-sonnet-4-5", "claude-opus-4-7", "claude-sonnet-5-5", "other"])
_THOUGHTS = st.builds(ReasoningPart, _WORDS, st.sampled_from(["", "sig", "redacted_thinking:abc"]))
_ATTACHED = st.builds(BinaryPart, st.just("f"), _MIMES, st.sampled_from([PNG, "", "?"]))
_OTHER = st.sampled_from(
    [
        ImageUrlPart("https://e.test/a"),
        ImageUrlPart("data:x"),
        UnknownPart("z", {}),
        FinishPart("x", 1),
    ]
)
_CALLS = st.builds(ToolCallPart, _IDS, _IDS, _GIVEN, st.booleans())
_RESULTS = st.builds(
    ToolResultPart, _IDS, st.just("view"), _WORDS, st.just(""), st.booleans(),
    st.sampled_from(["", PNG]), _MIMES,
)  # fmt: skip
_TEXTS = st.builds(TextPart, _WORDS)


def _message(role: str, parts: Any) -> st.SearchStrategy[Message]:
    return st.builds(
        lambda made, provider, model: attrs.evolve(
            message(role, *made), provider=provider, model=model
        ),
        st.lists(parts, max_size=4),
        st.sampled_from(["anthropic", "other"]),
        _MODELS,
    )


_HISTORY = st.lists(
    _message("user", _TEXTS | _ATTACHED | _OTHER)
    | _message("assistant", _TEXTS | _THOUGHTS | _CALLS)
    | _message("tool", _RESULTS),
    max_size=8,
)


def _blocks(sent: Json) -> Iterator[tuple[str, Json]]:
    for turn in sent["messages"]:
        for block in turn["content"]:
            yield turn["role"], block


@settings(max_examples=150, deadline=None)
@given(_HISTORY, _MODELS, st.sampled_from([None, True, False]), st.booleans(), st.booleans())
def test_whatever_the_history_the_request_is_one_the_api_takes(
    history: list[Message], model: str, think: bool | None, images: bool, summary: bool
) -> None:
    at = target(
        "anthropic", provider="anthropic", model=model, choice=Choice(think=think),
        can_reason=True, supports_attachments=images, max_output_tokens=32_000,
    )  # fmt: skip
    tools = () if summary else (VIEW, BASH)
    sent = body(*for_model(history), at=at, system="S", tools=tools)
    made = sent["messages"]
    assert [turn["role"] for turn in made] == [
        "assistant" if place % 2 else "user" for place in range(len(made))
    ]
    assert len(made) % 2 == 1
    waiting: list[str] = []
    for turn in made:
        assert turn["content"]
        answers = [block for block in turn["content"] if block["type"] == "tool_result"]
        assert turn["content"][: len(answers)] == answers
        assert sorted(block["tool_use_id"] for block in answers) == sorted(waiting)
        waiting = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
    calls = [block for _, block in _blocks(sent) if block["type"] == "tool_use"]
    assert len({block["id"] for block in calls}) == len(calls)
    for block in calls:
        assert type(block["input"]) is dict
        assert set(block["id"] + block["name"]) <= _PLAIN
        assert 0 < len(block["id"]) <= 64
    for block in _texts(made):
        assert block["text"].strip()
    assert orjson.dumps(sent).count(b'"cache_control"') <= 4
    _check_thoughts(sent, model)
    if calls:
        assert sent["tools"]


_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def _texts(value: Any) -> Iterator[Json]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        if value.get("type") == "text":
            yield value
        for item in value.values():
            yield from _texts(item)


def _check_thoughts(sent: Json, model: str) -> None:
    thoughts = [block for _, block in _blocks(sent) if "thinking" in block["type"]]
    assert all(block.get("signature") == "sig" or block.get("data") == "abc" for block in thoughts)
    assert all("cache_control" not in block for block in thoughts)
    for turn in sent["messages"]:
        assert "thinking" not in turn["content"][-1]["type"]
    kind = sent.get("thinking", {}).get("type")
    if model.startswith("claude") and kind in (None, "disabled", "between_tools"):
        assert thoughts == []
    if kind == "enabled":
        assert sent["thinking"]["budget_tokens"] < sent["max_tokens"]
        assert "temperature" not in sent
