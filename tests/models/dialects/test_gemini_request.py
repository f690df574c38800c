"""What is sent to Gemini for a conversation."""

from __future__ import annotations

import base64
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio import limits
from crush_trio.models.dialects.gemini.dialect import DIALECT
from crush_trio.models.dialects.gemini.messages import generation
from crush_trio.models.dialects.gemini.schema import parameters
from crush_trio.models.provider import Access, Choice, Target
from crush_trio.protocol.messages import (
    BinaryPart,
    FinishPart,
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

ACCESS = Access("https://generativelanguage.googleapis.com/v1beta", "test-key")
PNG = BinaryPart("/tmp/shot.png", "image/png", "iVBORw0=")


def at(model: str = "gemini-3-pro-preview", **more: Any) -> Target:
    return kit.target("gemini", provider="google", model=model, **more)


def answer(*parts: Part, model: str = "gemini-3-pro-preview", by: str = "google") -> Message:
    said = message("assistant", *parts, FinishPart("tool_use", 1))
    return attrs.evolve(said, model=model, provider=by)


def result(call: str, content: str, name: str = "view", **more: Any) -> Message:
    return message("tool", ToolResultPart(call, name, content, **more), FinishPart("stop", 0))


def body(*messages: Message, target: Target | None = None, **request: Any) -> Any:
    asked = attrs.evolve(kit.request(*messages), **request)
    return DIALECT.call(asked, target or at(), ACCESS).body


def turns(*messages: Message, target: Target | None = None) -> Any:
    return body(*messages, target=target)["contents"]


def test_a_whole_conversation_keeps_its_order_and_its_signatures() -> None:
    spoken = turns(
        message("user", TextPart("What is it?"), PNG),
        answer(
            ReasoningPart("Hm.", "", 1, 2),
            TextPart("I look."),
            ReasoningPart("", "text-sig", 1, 1),
            ToolCallPart("c1", "view", '{"file_path":"a"}', True, "call-sig"),
            ToolCallPart("c2", "bash", "{}", True),
        ),
        result("c1", "one"),
        result("c2", "broken", "bash", is_error=True),
        message("user", TextPart("And now?")),
    )
    assert spoken == [
        {
            "role": "user",
            "parts": [
                {"text": "What is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "I look.", "thoughtSignature": "text-sig"},
                {
                    "functionCall": {"id": "c1", "name": "view", "args": {"file_path": "a"}},
                    "thoughtSignature": "call-sig",
                },
                {"functionCall": {"id": "c2", "name": "bash", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "view", "response": {"output": "one"}}},
                {
                    "functionResponse": {
                        "id": "c2",
                        "name": "bash",
                        "response": {"error": "broken"},
                    }
                },
            ],
        },
        {"role": "user", "parts": [{"text": "And now?"}]},
    ]


def test_what_another_model_wrote_loses_its_signatures_and_its_thoughts() -> None:
    said = answer(
        ReasoningPart("secret", "foreign", 1, 2),
        TextPart("Text."),
        ToolCallPart("c1", "view", "{}", True, "foreign-call"),
        ToolCallPart("c2", "view", "{}", True),
        by="anthropic",
        model="claude",
    )
    spoken = turns(kit.user("go"), said, result("c1", "x"), result("c2", "y"))
    assert "secret" not in str(spoken)
    assert "foreign" not in str(spoken).replace("skip_thought_signature_validator", "")
    calls = spoken[1]["parts"][1:]
    assert calls[0]["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in calls[1]


def test_an_older_gemini_needs_no_signature_for_foreign_calls() -> None:
    said = answer(ToolCallPart("c1", "view", "{}", True), by="openai", model="gpt")
    spoken = turns(kit.user("go"), said, result("c1", "x"), target=at("gemini-2.5-flash"))
    assert "thoughtSignature" not in spoken[1]["parts"][0]


def test_a_signed_thought_goes_back_with_its_words() -> None:
    said = answer(ReasoningPart("Hm.", "sig", 1, 2), TextPart("Yes."))
    spoken = turns(kit.user("go"), said, kit.user("on"))
    assert spoken[1]["parts"] == [
        {"thought": True, "text": "Hm.", "thoughtSignature": "sig"},
        {"text": "Yes."},
    ]


@pytest.mark.parametrize(
    ("model", "inside"), [("gemini-3-pro-preview", True), ("gemini-2.5-pro", False)]
)
def test_the_image_of_a_result_is_inside_it_or_right_behind_it(model: str, inside: bool) -> None:
    said = answer(ToolCallPart("c1", "view", "{}", True), ToolCallPart("c2", "view", "{}", True))
    spoken = turns(
        kit.user("go"),
        said,
        result("c1", "", data="AAAA", mime_type="image/png"),
        result("c2", "text"),
        target=at(model),
    )
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    parts = spoken[2]["parts"]
    if inside:
        assert parts[0]["functionResponse"]["parts"] == [image]
        assert len(parts) == 2
    else:
        assert [next(iter(part)) for part in parts] == [
            "functionResponse",
            "functionResponse",
            "text",
            "inlineData",
        ]
        assert parts[3] == image


def test_attachments_become_what_the_model_can_read() -> None:
    text = base64.b64encode(b"x = 1").decode()
    given = message(
        "user",
        TextPart("see"),
        BinaryPart("/w/a.py", "text/x-python", text),
        BinaryPart("/w/a.zip", "application/zip", "AAAA"),
        PNG,
    )
    parts = turns(given, target=at(supports_attachments=False))[0]["parts"]
    assert [part["text"] for part in parts] == [
        "see",
        '<file path="/w/a.py">\nx = 1\n</file>',
        "[The attached file /w/a.zip (application/zip) is not shown: this model cannot read it]",
        "[The attached file /tmp/shot.png (image/png) is not shown: this model cannot read it]",
    ]


def test_the_first_turn_is_always_the_users() -> None:
    spoken = turns(answer(ToolCallPart("c1", "view", "{}", True)), result("c1", "x"))
    assert [turn["role"] for turn in spoken] == ["user", "model", "user"]


def test_prompts_in_a_row_are_one_turn() -> None:
    assert turns(kit.user("one"), kit.user("two")) == [
        {"role": "user", "parts": [{"text": "one"}, {"text": "two"}]}
    ]


def test_system_tools_limits_and_options_are_sent() -> None:
    choice = Choice(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_tokens=500,
        options={"safetySettings": [], "generationConfig": {"seed": 7}},
    )
    target = at(
        choice=choice,
        max_output_tokens=8192,
        system_prompt_prefix="First.",
        extra_body={"labels": {"team": "a"}},
    )
    sent = body(target=target, system="Then.", tools=(kit.VIEW,), max_output_tokens=200)
    assert sent["systemInstruction"] == {"parts": [{"text": "First.\n\nThen."}]}
    assert sent["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "view",
                    "description": "Does view.",
                    "parametersJsonSchema": kit.VIEW.parameters,
                }
            ]
        }
    ]
    assert sent["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "maxOutputTokens": 200,
        "seed": 7,
    }
    assert sent["safetySettings"] == []
    assert sent["labels"] == {"team": "a"}


@pytest.mark.parametrize(
    ("model", "choice", "config"),
    [
        ("gemini-3-pro-preview", Choice(), {"includeThoughts": True}),
        (
            "gemini-3-pro-preview",
            Choice(reasoning_effort="low"),
            {"includeThoughts": True, "thinkingLevel": "LOW"},
        ),
        (
            "gemini-3-flash",
            Choice(think=False),
            {"includeThoughts": True, "thinkingLevel": "MINIMAL"},
        ),
        (
            "gemini-2.5-pro",
            Choice(reasoning_effort="high"),
            {"includeThoughts": True, "thinkingBudget": 24_576},
        ),
        (
            "gemini-2.5-flash",
            Choice(think=False),
            {"includeThoughts": False, "thinkingBudget": 0},
        ),
        (
            "gemini-2.5-pro",
            Choice(think=False),
            {"includeThoughts": False, "thinkingBudget": 128},
        ),
    ],
)
def test_effort_is_a_level_or_a_budget_of_thinking(
    model: str, choice: Choice, config: dict[str, Any]
) -> None:
    sent = body(target=at(model, choice=choice, can_reason=True))
    assert sent["generationConfig"]["thinkingConfig"] == config
    assert "generationConfig" not in body(target=at(model, choice=choice))


def test_the_thinking_options_of_a_crush_json_are_sent_where_they_belong() -> None:
    given_ = {"thinking_config": {"thinking_budget": 99}, "generationConfig": {"seed": 1}}
    target = at(choice=Choice(reasoning_effort="low", options=given_), can_reason=True)
    sent = body(target=target)
    assert sent["generationConfig"] == {
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 99},
        "seed": 1,
    }
    assert "thinking_config" not in sent


def test_arguments_too_deep_to_be_written_again_are_left_out() -> None:
    deep = '{"a":' + "[" * 300 + "]" * 300 + "}"
    spoken = turns(kit.user("go"), answer(ToolCallPart("c1", "view", deep, True)), result("c1", ""))
    assert spoken[1]["parts"][0]["functionCall"]["args"] == {}


@pytest.mark.parametrize(
    ("base", "model", "url"),
    [
        ("https://g.test/v1beta/", "gemini-3-pro", "https://g.test/v1beta/models/gemini-3-pro"),
        ("https://g.test", "gemini-3-pro", "https://g.test/v1beta/models/gemini-3-pro"),
        ("http://p.test/gem", "models/x y", "http://p.test/gem/v1beta/models/x%20y"),
        ("http://p.test/v1/a/b/", "m", "http://p.test/v1/a/b/v1beta/models/m"),
        ("http://p.test/gem/v1alpha", "m", "http://p.test/gem/v1alpha/models/m"),
        ("http://p.test/v1/publishers/google", "m", "http://p.test/v1/publishers/google/models/m"),
        ("http://p.test/v1", "tunedModels/a", "http://p.test/v1/tunedModels/a"),
    ],
)
def test_the_address_names_the_model(base: str, model: str, url: str) -> None:
    call = DIALECT.call(kit.request(), at(model), Access(base, "k", {"X-Extra": "1"}))
    assert call.url == url + ":streamGenerateContent?alt=sse"
    assert call.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "x-goog-api-key": "k",
        "x-extra": "1",
    }
    assert "k" not in DIALECT.call(kit.request(), at(model), Access(base)).headers.values()


def test_the_generation_of_a_model_is_read_from_its_name() -> None:
    names = "gemini-2.5-pro gemini-3-flash models/gemini-10-x gemini-flash-latest gemma-3-27b-it"
    assert [generation(name) for name in names.split()] == [2, 3, 10, 3, 2]


# --- parameters of tools ------------------------------------------------------------------


def test_what_gemini_does_not_know_of_a_schema_is_left_out() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}},
        "type": "object",
        "properties": {
            "mode": {"const": "fast"},
            "when": {"type": "string", "format": "date-time", "default": "now"},
            "mail": {"type": ["string", "null"], "format": "email", "minLength": 3},
            "flag": {"enum": [True, False], "type": "boolean"},
            "at": {"$ref": "#/$defs/Point", "description": "Where."},
            "any": {"oneOf": [{"type": "string"}, {"type": "array", "items": {}}]},
            "default": {"allOf": [{"type": "object"}, {"$ref": "#/$defs/Point"}]},
            "rest": True,
        },
        "required": ["mode", "gone"],
        "additionalProperties": {"type": "string", "pattern": "x"},
    }
    assert parameters(schema) == {
        "type": "object",
        "properties": {
            "mode": {"enum": ["fast"]},
            "when": {"type": "string", "format": "date-time"},
            "mail": {"type": ["string", "null"]},
            "flag": {"type": "boolean"},
            "at": {
                "type": "object",
                "description": "Where.",
                "properties": {"x": {"type": "number"}},
            },
            "any": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
            "default": {"type": "object", "properties": {"x": {"type": "number"}}},
            "rest": {},
        },
        "required": ["mode"],
        "additionalProperties": {"type": "string"},
    }


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    made = parameters({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert made["properties"]["next"] == {}


def test_a_schema_that_doubles_at_each_step_stays_small() -> None:
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    made = parameters({"$ref": "#/$defs/d0", "$defs": twice})
    assert str(made).count("{") <= 2 * limits.TOOL_SCHEMA_PLACES


JSON = junk("type properties items anyOf allOf $ref enum const required format")


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_any_schema_becomes_one_of_an_object(schema: dict[str, Any]) -> None:
    made = parameters(schema)
    assert made["type"] == "object"
    assert isinstance(made["properties"], dict)
