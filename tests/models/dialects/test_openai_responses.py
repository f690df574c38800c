"""What is sent to the Responses API for a conversation, and what its errors mean."""

from __future__ import annotations

import base64
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.models.call_ids import session_mark
from crush_trio.models.dialects.responses.dialect import DIALECT
from crush_trio.models.dialects.responses.input_items import phase_signature, signature
from crush_trio.models.failures import Kind
from crush_trio.models.provider import Access, Choice, Target
from crush_trio.protocol.ids import SessionId
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
)
from tests.models.dialects import kit
from tests.models.dialects.junk import junk
from tests.models.kit import message

ACCESS = Access("https://api.openai.com/v1", "test-key")
PNG = BinaryPart("/tmp/shot.png", "image/png", "iVBORw0=")
THOUGHT = signature({"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAA"})


def at(**more: Any) -> Target:
    return kit.target("openai-responses", **{"provider": "openai", "model": "gpt-5", **more})


def answer(*parts: Part, model: str = "gpt-5", by: str = "openai") -> Message:
    said = message("assistant", *parts, FinishPart("tool_use", 1))
    return attrs.evolve(said, model=model, provider=by)


def result(call: str, content: str, **more: Any) -> Message:
    return message("tool", ToolResultPart(call, "view", content, **more), FinishPart("stop", 0))


def body(*messages: Message, target: Target | None = None, **request: Any) -> Any:
    asked = attrs.evolve(kit.request(*messages), **request)
    return DIALECT.call(asked, target or at(), ACCESS).body


def items(*messages: Message, target: Target | None = None) -> Any:
    return body(*messages, target=target)["input"]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text, **more}


def asked(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(content)}


def words(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def called(call: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call, "name": "view", "arguments": "{}"}


def test_a_whole_conversation_keeps_its_order_and_its_thoughts() -> None:
    sent = items(
        message("user", TextPart("What is it?"), PNG, ImageUrlPart("https://i.test/x.png", "low")),
        answer(
            ReasoningPart("Hm.", THOUGHT, 1, 2),
            ReasoningPart("", phase_signature("commentary"), 1, 1),
            TextPart("I look."),
            ToolCallPart("c1", "view", "{}", True),
            ToolCallPart("c2", "view", "{}", True),
        ),
        result("c1", "one", data="AAAA", mime_type="image/png"),
        result("c2", "broken", is_error=True),
        message("user", TextPart("Summary of before."), TextPart("And now?")),
    )
    assert sent == [
        asked(
            words("What is it?"),
            {
                "type": "input_image",
                "image_url": "data:image/png;base64,iVBORw0=",
                "detail": "auto",
            },
            {"type": "input_image", "image_url": "https://i.test/x.png", "detail": "low"},
        ),
        {
            "type": "reasoning",
            "id": "rs_1",
            "encrypted_content": "gAAA",
            "summary": [{"type": "summary_text", "text": "Hm."}],
        },
        said("I look.", phase="commentary"),
        called("c1"),
        called("c2"),
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [
                words("one"),
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,AAAA",
                    "detail": "auto",
                },
            ],
        },
        {"type": "function_call_output", "call_id": "c2", "output": "Error: broken"},
        asked(words("Summary of before."), words("And now?")),
    ]


@pytest.mark.parametrize(("by", "model"), [("azure", "gpt-5"), ("openai", "gpt-4.1")])
def test_thoughts_of_another_model_are_not_sent(by: str, model: str) -> None:
    other = answer(
        ReasoningPart("Hm.", THOUGHT, 1, 2),
        ReasoningPart("", phase_signature("commentary"), 1, 1),
        TextPart("Yes."),
        ToolCallPart("c1", "view", "{}", True, "sig"),
        by=by,
        model=model,
    )
    sent = items(kit.user("go"), other, result("c1", "x"))
    assert sent[1:3] == [said("Yes."), called("c1")]
    assert "gAAA" not in str(sent)


def test_a_thought_that_led_to_nothing_is_not_sent() -> None:
    cut = answer(TextPart("Yes."), ReasoningPart("Hm.", THOUGHT, 1, 2))
    assert items(kit.user("go"), cut, kit.user("on"))[1:] == [said("Yes."), asked(words("on"))]


@pytest.mark.parametrize("broken", ["not json", "[]", '{"id":"rs_1"}', "{}"])
def test_a_signature_of_an_unknown_kind_is_not_sent(broken: str) -> None:
    own = answer(ReasoningPart("Hm.", broken, 1, 2), TextPart("Yes."))
    assert items(kit.user("go"), own)[1:] == [said("Yes.")]


def test_a_call_id_that_is_too_long_is_shortened_in_both_places() -> None:
    long = "c" * 100
    sent = items(kit.user("go"), answer(ToolCallPart(long, "view", "{}", True)), result(long, "x"))
    assert sent[1]["call_id"] == sent[2]["call_id"]
    assert len(sent[1]["call_id"]) == 64


def test_attachments_become_what_the_model_can_read() -> None:
    text = base64.b64encode(b"x = 1").decode()
    given_ = message(
        "user",
        BinaryPart("/w/a.py", "text/x-python", text),
        BinaryPart("/w/d.pdf", "application/pdf", "AAAA"),
        PNG,
    )
    assert items(given_)[0]["content"][1] == {
        "type": "input_file",
        "filename": "d.pdf",
        "file_data": "data:application/pdf;base64,AAAA",
    }
    blind = items(given_, target=at(supports_attachments=False))[0]["content"]
    assert [part["type"] for part in blind] == ["input_text"] * 3
    assert blind[0]["text"] == '<file path="/w/a.py">\nx = 1\n</file>'


def test_the_request_is_stateless_and_streams() -> None:
    choice = Choice(temperature=0.5, top_p=0.9, options={"service_tier": "flex"})
    target = at(choice=choice, max_output_tokens=8192, extra_body={"user": "u"})
    sent = body(target=target, system="Be good.", tools=(kit.VIEW,))
    assert sent == {
        "model": "gpt-5",
        "input": [asked(words("go"))],
        "stream": True,
        "store": False,
        "instructions": "Be good.",
        "tools": [
            {
                "type": "function",
                "name": "view",
                "description": "Does view.",
                "parameters": kit.VIEW.parameters,
                "strict": False,
            }
        ],
        "max_output_tokens": 8192,
        "temperature": 0.5,
        "top_p": 0.9,
        "prompt_cache_key": session_mark(SessionId("session-1")),
        "service_tier": "flex",
        "user": "u",
    }


def test_a_limit_that_the_api_would_refuse_is_raised() -> None:
    assert body(max_output_tokens=3)["max_output_tokens"] == 16


@pytest.mark.parametrize(
    ("more", "reasoning"),
    [
        ({}, {"summary": "auto"}),
        ({"choice": Choice(reasoning_effort="high")}, {"effort": "high", "summary": "auto"}),
        ({"default_reasoning_effort": "low"}, {"effort": "low", "summary": "auto"}),
        ({"choice": Choice(think=False)}, {"effort": "none", "summary": "auto"}),
        (
            {"choice": Choice(think=False), "reasoning_levels": ("minimal", "low")},
            {"effort": "minimal", "summary": "auto"},
        ),
        ({"quirks": ["no_reasoning_summary"]}, {}),
    ],
)
def test_a_model_that_reasons_is_asked_for_what_must_go_back(
    more: dict[str, Any], reasoning: dict[str, Any]
) -> None:
    sent = body(target=at(can_reason=True, **more))
    assert sent["reasoning"] == reasoning
    assert sent["include"] == ["reasoning.encrypted_content"]
    assert not {"reasoning", "include"} & body(target=at(**more)).keys()


def test_the_options_of_a_crush_json_are_sent_where_they_belong() -> None:
    options = {"reasoning_effort": "high", "reasoning_summary": "detailed", "text_verbosity": "low"}
    sent = body(target=at(can_reason=True, choice=Choice(options=options)))
    assert sent["reasoning"] == {"effort": "high", "summary": "detailed"}
    assert sent["text"] == {"verbosity": "low"}
    assert not options.keys() & sent.keys()


@pytest.mark.parametrize(
    ("base", "quirks", "url"),
    [
        ("https://api.openai.com/v1/", (), "https://api.openai.com/v1/responses"),
        ("https://p.test/v1/responses", (), "https://p.test/v1/responses"),
        ("https://r.test", ("azure",), "https://r.test/openai/v1/responses"),
        ("https://r.test/openai/v1", ("azure",), "https://r.test/openai/v1/responses"),
        (
            "https://r.test/openai?api-version=preview",
            ("azure",),
            "https://r.test/openai/v1/responses?api-version=preview",
        ),
    ],
)
def test_the_address_and_the_key_are_those_of_the_surface(
    base: str, quirks: tuple[str, ...], url: str
) -> None:
    call = DIALECT.call(kit.request(), at(quirks=quirks), Access(base, "k", {"X-Org": "o"}))
    assert call.url == url
    assert call.headers["x-org"] == "o"
    if quirks:
        assert (call.headers["api-key"], call.headers.get("authorization")) == ("k", None)
    else:
        assert (call.headers["authorization"], call.headers.get("api-key")) == ("Bearer k", None)


def error(code: str, text: str = "words", kind: str = "invalid_request_error") -> bytes:
    return orjson.dumps({"error": {"message": text, "type": kind, "param": None, "code": code}})


HTML = b"<html><head><title>No</title></head></html>"


@pytest.mark.parametrize(
    ("status", "headers", "sent", "kind", "wait_s"),
    [
        (
            401,
            {},
            error("invalid_api_key", "Incorrect API key provided: sk-ab***yz."),
            "AUTH",
            None,
        ),
        (403, {}, HTML, "REFUSED", None),
        (404, {}, error("model_not_found", "The model does not exist"), "NO_MODEL", None),
        (404, {}, HTML, "URL", None),
        (429, {"retry-after-ms": "1500"}, error("rate_limit_exceeded"), "RATE_LIMIT", 1.5),
        (429, {"retry-after": "4"}, error("rate_limit_exceeded"), "RATE_LIMIT", 4.0),
        (429, {}, error("insufficient_quota", "You exceeded your current quota"), "QUOTA", None),
        (400, {}, error("context_length_exceeded", "Your input exceeds"), "TOO_LONG", None),
        (400, {}, error("content_filter", "filtered"), "FILTERED", None),
        (400, {}, error("unsupported_value", "Unsupported value: 'x'"), "REFUSED", None),
        (500, {}, error("server_error", "oh", "server_error"), "SERVER", None),
        (503, {}, HTML, "OVERLOAD", None),
        (502, {}, b"", "SERVER", None),
        (407, {}, b"", "PROXY", None),
    ],
)
def test_each_error_has_its_class_and_its_sentence(
    status: int, headers: dict[str, str], sent: bytes, kind: str, wait_s: float | None
) -> None:
    failure = DIALECT.failure(status, headers, sent, at())
    assert (failure.kind, failure.retry_after_s) == (Kind[kind], wait_s)
    assert "openai" in failure.message.lower()
    assert "sk-ab" not in failure.message


@given(
    st.integers(100, 599),
    junk("error message code type status details param", "server_error").map(orjson.dumps)
    | st.binary(max_size=60),
)
def test_any_answer_with_any_status_has_a_class(status: int, sent: bytes) -> None:
    assert DIALECT.failure(status, {}, sent, at()).message


def test_models_are_listed() -> None:
    assert DIALECT.models_call(ACCESS).url == "https://api.openai.com/v1/models"
    assert DIALECT.models(b'{"data":[{"id":"gpt-5"}]}') == ("gpt-5",)
