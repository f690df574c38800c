"""Tool calls that arrive as text: found, read or refused, and never shown as the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio import limits
from crush_trio.models.dialects.chat.dialect import DIALECT
from crush_trio.models.dialects.chat.tool_text_parse import parse_block
from crush_trio.models.failures import Failure, Kind
from tests.models.dialects.kit import VIEW, Heard, fixture, play, request, sse, target

LOCAL = target(is_local=True)
VIEW_A = ("view", '{"file_path":"a.py"}')
BASH_LS = ("bash", '{"command":"ls"}')


def pieces(texts: Iterable[str], finish: str | None = "stop") -> str:
    """A stream whose content comes in these pieces."""
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return sse(*deltas, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})


def local(*texts: str, finish: str | None = "stop") -> Heard:
    return play(DIALECT, pieces(texts, finish), at=LOCAL)


def called(heard: Heard) -> list[tuple[str, str]]:
    return [call[1:] for call in heard.calls]


WRITTEN = {
    "hermes": '<tool_call>\n{"name": "view", "arguments": {"file_path": "a.py"}}\n</tool_call>',
    "hermes, arguments as text": (
        '<tool_call>{"name": "view", "arguments": "{\\"file_path\\": \\"a.py\\"}"}</tool_call>'
    ),
    "hermes, not closed": '<tool_call>\n{"name": "view", "arguments": {"file_path": "a.py"}}',
    "qwen3 coder": (
        "<tool_call>\n<function=view>\n<parameter=file_path>\na.py\n</parameter>\n"
        "</function>\n</tool_call>"
    ),
    "qwen3 coder, no closing tags": (
        "<tool_call>\n<function=view>\n<parameter=file_path>\na.py\n\n\n</tool_call>"
    ),
    "llama function": '<function=view>{"file_path": "a.py"}</function>',
    "mistral": '[TOOL_CALLS] [{"name": "view", "arguments": {"file_path": "a.py"}}]',
    "mistral, newer": '[TOOL_CALLS]view[ARGS]{"file_path": "a.py"}',
    "llama bare": '{"name": "view", "parameters": {"file_path": "a.py"}}',
    "llama bare, nested": (
        '{"type": "function", "function": {"name": "view", "parameters": {"file_path": "a.py"}}}'
    ),
    "llama token": '<|python_tag|>{"name": "view", "parameters": {"file_path": "a.py"}}<|eom_id|>',
    "fence": '```json\n{"name": "view", "arguments": {"file_path": "a.py"}}\n```',
    "fence after words": 'Look:\n```\n{"name": "view", "arguments": {"file_path": "a.py"}}\n```\n',
    "fence around a tag": (
        '```xml\n<tool_call>\n{"name": "view", "arguments": {"file_path": "a.py"}}\n'
        "</tool_call>\n```"
    ),
    "glm": (
        "<tool_call>view\n<arg_key>file_path</arg_key>\n<arg_value>a.py</arg_value>\n</tool_call>"
    ),
    "after a word on its line": (
        'Sure.<tool_call>{"name": "view", "arguments": {"file_path": "a.py"}}</tool_call>'
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_call_written_as_text_is_a_call_for_a_local_model(name: str, data: st.DataObject) -> None:
    """R-TEXTTOOL: however the text is cut into pieces."""
    text = WRITTEN[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    told = local(*parts)
    assert called(told) == [VIEW_A]
    assert told.end is not None
    assert told.end.reason == "tool_use"
    assert told.text.strip() in ("", "Look:", "Sure.")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_call_written_as_text_is_an_error_that_names_the_setting_elsewhere(name: str) -> None:
    """R-TEXTTOOL: it is reported, and is no silent success."""
    told = Heard()
    with pytest.raises(Failure) as caught:
        play(DIALECT, pieces([WRITTEN[name]]), heard=told)
    assert caught.value.kind is Kind.MALFORMED
    assert "--tool-call-parser" in caught.value.message
    assert "view" not in told.text
    assert told.calls == []
    by_quirk = play(DIALECT, pieces([WRITTEN[name]]), at=target(quirks=["text_tools"]))
    assert called(by_quirk) == [VIEW_A]


@pytest.mark.parametrize(
    ("name", "text", "calls"),
    [
        ("vllm_qwen3_coder_call_as_text.sse", "I look.\n\n", [VIEW_A]),
        ("vllm_hermes_calls_as_text.sse", "", [VIEW_A, BASH_LS]),
        ("vllm_llama3_bare_json_call_as_text.sse", "", [VIEW_A]),
        ("lmstudio_tool_request_as_text.sse", "", [VIEW_A]),
    ],
)
def test_recorded_calls_as_text_are_read(
    name: str, text: str, calls: list[tuple[str, str]]
) -> None:
    told = play(DIALECT, fixture(name), at=LOCAL)
    assert (told.text, called(told)) == (text, calls)
    with pytest.raises(Failure):
        play(DIALECT, fixture(name))


PROSE = [
    "Models write `<tool_call>` before a call.",
    "The <tool_call> tag begins a call.",
    'So: `<tool_call>{"name": "view", "arguments": {}}</tool_call>` is how.',
    "See [the docs](https://x.test) and [TOOL_CALLS] too.",
    '```json\n{"name": "my-package", "version": "1.0"}\n```',
    '```json\n{"name": "view", "arguments": {"file_path": "a.py"}}\n```\nis how a call looks.',
    '```text\n<tool_call>{"name": "bash", "arguments": {"command": "rm -rf /"}}</tool_call>\n```',
    '{"name": "Ada", "age": 36}',
    "[1, 2, 3]",
    "```\n{ not json }\n```\n",
    "a < b and c `` d ``` e",
    "<function=> is odd",
    "Line one\n\n```python\nprint('<')\n```\n<",
    "[TOOL",
    "```",
    "<tool_call",
]


@pytest.mark.parametrize("text", PROSE)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_text_about_tools_stays_text_to_the_last_character(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    told = local(*parts)
    assert told.text == text
    assert told.calls == []
    assert told.end is not None
    assert told.end.reason == "end_turn"


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "view", "arguments": {"file_path": </tool_call>',
        "<tool_call>",
        "<function=view><parameter=file_path>a.py",
        '{"name": "view", "parameters": {"file_path": "a.py"',
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function",
        "<|tool_calls_section_begin|>x",
    ],
)
def test_a_call_that_cannot_be_read_is_an_error_even_locally(text: str) -> None:
    with pytest.raises(Failure) as caught:
        local("I look. ", text) if text[0] == "<" else local(text)
    assert caught.value.kind is Kind.MALFORMED


def test_a_call_that_the_limit_of_the_answer_cut_is_shown_as_it_is() -> None:
    told = local('<tool_call>{"name": "view"', finish="length")
    assert told.end is not None
    assert (told.end.reason, told.text) == ("max_tokens", '<tool_call>{"name": "view"')


def test_real_calls_make_what_looks_like_one_text() -> None:
    text = WRITTEN["hermes"]
    delta = {"tool_calls": [{"id": "c", "function": {"name": "bash", "arguments": "{}"}}]}
    stream = pieces([text]).replace('"delta":{}', f'"delta":{str(delta).replace(chr(39), chr(34))}')
    told = play(DIALECT, stream, at=LOCAL)
    assert (told.text, called(told)) == (text, [("bash", "{}")])


def test_without_tools_everything_is_text() -> None:
    told = play(DIALECT, pieces([WRITTEN["hermes"]]), asked=request(), at=LOCAL)
    assert told.text == WRITTEN["hermes"]


def test_what_is_written_around_calls_is_kept() -> None:
    told = local("First.\n", WRITTEN["hermes"], "\nThen.\n", WRITTEN["qwen3 coder"], "\nLast.")
    assert called(told) == [VIEW_A, VIEW_A]
    for word in ("First.", "Then.", "Last."):
        assert word in told.text
    assert "tool_call" not in told.text
    assert len({call[0] for call in told.calls}) == 2


def test_text_before_a_call_is_shown_at_once() -> None:
    told = Heard()
    reader = DIALECT.reader(request(tools=(VIEW,)), LOCAL, told.events.append)
    reader.feed("message", '{"choices":[{"delta":{"content":"Hello, "}}]}')
    assert told.text == "Hello, "


def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOOL_TEXT_CHARS", 1_000)
    told = Heard()
    reader = DIALECT.reader(request(tools=(VIEW,)), LOCAL, told.events.append)

    def say(text: str) -> None:
        reader.feed("message", json.dumps({"choices": [{"delta": {"content": text}}]}))

    say("```json\n")
    for _ in range(20):
        say(" " * 100)
    assert len(told.text) == 2008, "what cannot be decided is let go"
    say('\n```\n<tool_call>{"name": "view", "arguments": {"file_path": "')
    with pytest.raises(Failure) as caught:
        say("x" * 2_000)
    assert caught.value.kind is Kind.MALFORMED


THINKING = "Let me see: <tool_call> is a tag.\n"


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_thoughts_between_tags_are_found_however_they_are_cut(data: st.DataObject) -> None:
    tag = data.draw(st.sampled_from(["think", "thinking", "thought"]))
    text = f"\n<{tag}>{THINKING}</{tag}>\n\nFour."
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    told = local(*parts)
    assert (told.reasoning, told.text) == (THINKING, "Four.")


@pytest.mark.parametrize("text", ["A <think> tag", "<thin ice>", "<", " \n<thi", "x" * 99])
def test_what_only_looks_like_a_thought_is_the_answer(text: str) -> None:
    told = local(*text)
    assert (told.reasoning, told.text) == ("", text)


def test_calls_without_end_are_read_in_one_pass() -> None:
    call = "<function=view></function>"
    text = "<tool_call>" + call * ((limits.TOOL_TEXT_CHARS - 20) // len(call))
    before = time.process_time()
    found = parse_block(text, [VIEW], may_have_text=True)
    assert time.process_time() - before < 3  # seven seconds, if each looked for the end of all
    assert found is not None
    assert len(found[0]) == text.count(call)
