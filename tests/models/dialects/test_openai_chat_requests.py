"""What is asked of a Chat Completions server: address, headers, body, and the list of models."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest

from crush_trio.models.dialects.chat.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access, Choice, Target
from crush_trio.protocol.messages import (
    BinaryPart,
    ImageUrlPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tests.models.dialects.kit import ACCESS, VIEW, request, target, user
from tests.models.kit import message

PNG = "iVBORw0KGgo="
SHOWN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def body(*messages: Message, at: Target | None = None, **asked: Any) -> dict[str, Any]:
    """The body of a request with these messages."""
    call = DIALECT.call(attrs.evolve(request(*messages), **asked), at or target(), ACCESS)
    return dict(orjson.loads(orjson.dumps(call.body)))


def said(*parts: Part, model: str = "m-1") -> Message:
    """An answer of ours."""
    return attrs.evolve(message("assistant", *parts), provider="acme", model=model)


def result(call_id: str, content: str = "done", **more: Any) -> Message:
    return message("tool", ToolResultPart(call_id, "view", content, **more))


def test_a_request_asks_for_a_stream_with_usage() -> None:
    assert body(user("Hi"), system="Be kind.", tools=(VIEW,)) == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "view",
                    "description": "Does view.",
                    "parameters": VIEW.parameters,
                },
            }
        ],
    }


def test_calls_and_their_results_go_back_in_their_roles() -> None:
    call = ToolCallPart("call_1", "view", '{"file_path":"a.py"}', True)
    sent = body(user("Look"), said(TextPart("I look."), call), result("call_1"))["messages"]
    assert sent[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "view", "arguments": '{"file_path":"a.py"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]


def test_calls_without_words_have_no_content_but_an_empty_one_for_local_templates() -> None:
    history = (user("Look"), said(ToolCallPart("c", "view", "", True)), result("c", ""))
    remote, local = body(*history)["messages"], body(*history, at=target(is_local=True))["messages"]
    assert remote[1]["content"] is None
    assert local[1]["content"] == ""
    assert remote[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert remote[2]["content"] == "(no output)"


def test_an_error_of_a_tool_is_told_as_one() -> None:
    call = said(ToolCallPart("c", "view", "{}", True))
    sent = body(user("Look"), call, result("c", "no such file", is_error=True))["messages"]
    assert sent[-1]["content"] == "Error: no such file"


def test_prompts_that_follow_each_other_are_one() -> None:
    sent = body(user("One"), user("Two"), said(TextPart("Yes")), user("Three"))["messages"]
    assert [m["content"] for m in sent] == ["One\n\nTwo", "Yes", "Three"]


def test_a_thought_alone_is_not_sent() -> None:
    sent = body(user("One"), said(ReasoningPart("Hm.")), user("Two"))["messages"]
    assert [m["role"] for m in sent] == ["user"]


def test_images_of_a_prompt_go_along_as_data() -> None:
    prompt = message("user", TextPart("See"), BinaryPart("a.png", "image/png", PNG))
    url = message("user", ImageUrlPart("https://x.test/a.png", "low"))
    content = body(prompt, url)["messages"][0]["content"]
    low = {"url": "https://x.test/a.png", "detail": "low"}
    assert content == [
        {"type": "text", "text": "See"},
        SHOWN,
        {"type": "image_url", "image_url": low},
    ]


def test_a_model_without_eyes_is_told_that_there_was_an_image() -> None:
    """R55: images are not sent to a model that takes none."""
    blind = target(supports_attachments=False)
    prompt = message("user", TextPart("See"), BinaryPart("a.png", "image/png", PNG))
    content = body(prompt, at=blind)["messages"][0]["content"]
    assert "a.png" in content
    assert PNG not in content
    call = said(ToolCallPart("c", "view", "{}", True))
    seen = result("c", "an image", data=PNG, mime_type="image/png")
    assert PNG not in str(body(user("x"), call, seen, at=blind))


def test_attached_texts_are_part_of_the_prompt() -> None:
    prompt = message("user", TextPart("Read"), BinaryPart("n.txt", "text/plain", "aGVsbG8="))
    assert body(prompt)["messages"][0]["content"] == 'Read\n\n<file path="n.txt">\nhello\n</file>'


def test_images_from_tools_follow_all_results_as_a_prompt() -> None:
    calls = said(*(ToolCallPart(i, "view", "{}", True) for i in ("c1", "c2")))
    picture = result("c1", "shown", data=PNG, mime_type="image/png")
    history = (user("Look"), calls, picture, result("c2"), user("Well?"))
    sent = body(*history)["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[2]["content"] == "shown"
    texts = ["The image that view returned:", "Well?"]
    assert [part.get("text") or part for part in sent[4]["content"]] == [texts[0], SHOWN, texts[1]]
    mistral = body(*history[:-1], at=target(quirks=["mistral"]))["messages"]
    assert [m["role"] for m in mistral] == ["user", "assistant", "tool", "tool"]
    assert mistral[2]["content"] == [{"type": "text", "text": "shown"}, SHOWN]


@pytest.mark.parametrize(("quirk", "pattern"), [("mistral", 9), ("", 40)])
def test_call_ids_that_a_server_would_refuse_are_replaced_everywhere(
    quirk: str, pattern: int
) -> None:
    long = "toolu_" + "x" * 60
    call = said(ToolCallPart(long, "view", "{}", True))
    sent = body(user("x"), call, result(long), at=target(quirks=[quirk]))["messages"]
    made = sent[1]["tool_calls"][0]["id"]
    assert made == sent[2]["tool_call_id"]
    assert len(made) <= pattern
    assert quirk == "" or (len(made) == 9 and made.isalnum())


def test_what_openrouter_wants_back_goes_only_to_the_model_that_said_it() -> None:
    block = [{"type": "reasoning.text", "text": "Hm.", "signature": "abc"}]
    signed = ReasoningPart("Hm.", signature=orjson.dumps(block).decode())
    at = target(quirks=["openrouter"])
    own = body(user("x"), said(signed, signed, TextPart("Yes")), at=at)["messages"][1]
    assert own["reasoning_details"] == block
    for other in (target(quirks=["openrouter"], model="m-2"), target()):
        sent = body(user("x"), said(signed, TextPart("Yes")), at=other)["messages"][1]
        assert "reasoning_details" not in sent


def test_thoughts_go_back_in_words_where_a_server_wants_them() -> None:
    history = (user("x"), said(ReasoningPart("Hm."), TextPart("Yes")))
    wanting = body(*history, at=target(quirks=["send_reasoning"]))["messages"][1]
    assert wanting == {"role": "assistant", "content": "Yes", "reasoning_content": "Hm."}
    assert body(*history)["messages"][1] == {"role": "assistant", "content": "Yes"}
    other = body(*history, at=target(quirks=["send_reasoning"], model="m-2"))["messages"][1]
    assert "reasoning_content" not in other


def test_a_calls_signature_goes_back_with_it() -> None:
    call = ToolCallPart("c", "view", "{}", True, '{"google":{"thought_signature":"s"}}')
    sent = body(user("x"), said(call), result("c"))["messages"][1]["tool_calls"][0]
    assert sent["extra_content"] == {"google": {"thought_signature": "s"}}
    other = body(user("x"), said(call), result("c"), at=target(model="m-2"))["messages"][1]
    assert "extra_content" not in other["tool_calls"][0]


def test_the_choice_and_the_configuration_have_their_say_in_this_order() -> None:
    choice = Choice(
        reasoning_effort="high",
        max_tokens=500,
        temperature=0.0,
        top_p=0.9,
        top_k=40,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        options={"seed": 7, "temperature": 0.5},
    )
    at = target(choice=choice, extra_body={"seed": 8, "stream_options": {"x": 1}})
    sent = body(at=at)
    assert sent["stream_options"] == {"include_usage": True, "x": 1}
    expected = {
        "reasoning_effort": "high",
        "max_tokens": 500,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "seed": 8,
    }
    assert {key: sent[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("quirks", "model", "reasons", "name"),
    [
        (["openai"], "gpt-4.1", False, "max_tokens"),
        (["openai"], "o3", False, "max_completion_tokens"),
        (["openai"], "gpt-5-mini", False, "max_completion_tokens"),
        (["azure"], "my-deployment", True, "max_completion_tokens"),
        ([], "gpt-5", True, "max_tokens"),
        (["max_completion_tokens"], "m-1", False, "max_completion_tokens"),
    ],
)
def test_the_limit_of_the_answer_has_the_name_that_the_server_takes(
    quirks: list[str], model: str, reasons: bool, name: str
) -> None:
    at = target(quirks=quirks, model=model, can_reason=reasons, max_output_tokens=900)
    sent = body(at=at, max_output_tokens=100)
    assert {key: sent.get(key) for key in ("max_tokens", "max_completion_tokens")} == {
        "max_tokens": None,
        "max_completion_tokens": None,
        name: 100,
    }


@pytest.mark.parametrize(
    ("choice", "quirks", "local", "added"),
    [
        (Choice(reasoning_effort="low"), ["openrouter"], False, {"reasoning": {"effort": "low"}}),
        (Choice(think=False), ["openrouter"], False, {"reasoning": {"enabled": False}}),
        (Choice(think=False), [], True, {"chat_template_kwargs": {"enable_thinking": False}}),
        (Choice(think=True), [], False, {}),
    ],
)
def test_how_hard_to_think_is_said_in_the_servers_words(
    choice: Choice, quirks: list[str], local: bool, added: dict[str, Any]
) -> None:
    sent = body(at=target(choice=choice, quirks=quirks, is_local=local))
    keys = ("reasoning", "reasoning_effort", "chat_template_kwargs")
    assert {key: sent[key] for key in keys if key in sent} == added


def test_a_server_without_a_system_role_gets_the_system_prompt_as_a_prompt() -> None:
    sent = body(user("Hi"), system="Be kind.", at=target(quirks=["system_as_user"]))
    assert sent["messages"] == [{"role": "user", "content": "Be kind.\n\nHi"}]


def test_the_providers_prefix_stands_before_the_system_prompt() -> None:
    sent = body(user("Hi"), system="Be kind.", at=target(system_prompt_prefix="/no_think"))
    assert sent["messages"][0]["content"] == "/no_think\n\nBe kind."


def test_a_server_that_refuses_stream_options_gets_none() -> None:
    assert "stream_options" not in body(at=target(quirks=["no_stream_options"]))


CLOUD = "https://r.openai.azure.com"
DEPLOYED = f"{CLOUD}/openai/deployments/m-1/chat/completions?api-version="


@pytest.mark.parametrize(
    ("base_url", "quirks", "url"),
    [
        ("https://x.test/v1", [], "https://x.test/v1/chat/completions"),
        ("https://x.test/v1/", [], "https://x.test/v1/chat/completions"),
        ("https://x.test/v1/chat/completions", [], "https://x.test/v1/chat/completions"),
        ("https://x.test/v1/chat/completions/", [], "https://x.test/v1/chat/completions"),
        ("https://x.test/v1?key=a", [], "https://x.test/v1/chat/completions?key=a"),
        (CLOUD, ["azure"], DEPLOYED + "2024-10-21"),
        (f"{CLOUD}/", ["azure", "api-version=2025-01-01-preview"], DEPLOYED + "2025-01-01-preview"),
        (f"{CLOUD}/openai?api-version=9", ["azure"], DEPLOYED + "9"),
        (f"{CLOUD}/openai/deployments/m-1", ["azure"], DEPLOYED + "2024-10-21"),
        (f"{CLOUD}/openai/v1/", ["azure"], f"{CLOUD}/openai/v1/chat/completions"),
    ],
)
def test_the_address_is_made_of_the_base_url(base_url: str, quirks: list[str], url: str) -> None:
    access = Access(base_url, "k")
    assert DIALECT.call(request(), target(quirks=quirks), access).url == url


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        ([], {"authorization": "Bearer k"}),
        (["azure"], {"api-key": "k"}),
        (["openrouter"], {"authorization": "Bearer k", "x-title": "crush-trio"}),
    ],
)
def test_the_key_goes_where_the_server_looks_for_it(
    quirks: list[str], expected: dict[str, str]
) -> None:
    headers = DIALECT.call(request(), target(quirks=quirks), Access("https://x.test", "k")).headers
    names = ("authorization", "api-key", "x-title")
    assert {name: headers[name] for name in names if name in headers} == expected
    assert headers["content-type"] == "application/json"


def test_configured_headers_replace_ours_whatever_their_case() -> None:
    access = Access("https://x.test", "k", {"Authorization": "Basic x", "X-Team": "y"})
    headers = DIALECT.call(request(), target(), access).headers
    assert headers["authorization"] == "Basic x"
    assert headers["x-team"] == "y"
    without = DIALECT.call(request(), target(), Access("https://x.test")).headers
    assert "authorization" not in without


def test_neither_key_nor_conversation_is_in_what_is_logged_of_a_request() -> None:
    call = DIALECT.call(request(user("a secret plan")), target(), Access("https://x.test", "k3y"))
    assert "k3y" not in repr(call)
    assert "secret" not in repr(call)


def test_openrouter_is_asked_for_the_cost() -> None:
    assert body(at=target(quirks=["openrouter"]))["usage"] == {"include": True}


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ({"object": "list", "data": [{"id": "b"}, {"id": "a"}, {"id": "b"}]}, ("b", "a")),
        ([{"id": "a"}, {"name": "b"}, "c"], ("a", "b", "c")),
        ({"models": [{"name": "a", "model": "a"}]}, ("a",)),
        ({"object": "list", "data": None}, ()),
        ({"object": "list", "data": []}, ()),
        ({"data": [{"id": 3}, None, {"id": "a"}]}, ("a",)),
    ],
)
def test_lists_of_models_are_read_in_each_shape(answer: object, names: tuple[str, ...]) -> None:
    assert DIALECT.models(orjson.dumps(answer)) == names


@pytest.mark.parametrize("answer", [b"<html>", b"", b"{}", b'{"data": "x"}', b"17"])
def test_what_is_no_list_of_models_is_a_wrong_address(answer: bytes) -> None:
    with pytest.raises(Failure) as caught:
        DIALECT.models(answer)
    assert caught.value.kind is Kind.URL


def test_models_are_asked_for_beside_the_completions() -> None:
    call = DIALECT.models_call(Access("https://x.test/v1/chat/completions", "k"))
    assert (call.url, call.body) == ("https://x.test/v1/models", {})
    assert call.headers["authorization"] == "Bearer k"
    for base_url in (CLOUD, f"{CLOUD}/openai/v1", f"{CLOUD}/openai/deployments/m-1?api-version=9"):
        azure = DIALECT.models_call(Access(base_url, "k"))
        assert azure.url == f"{CLOUD}/openai/v1/models"
        assert azure.headers["api-key"] == "k"
