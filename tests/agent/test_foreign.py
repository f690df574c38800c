"""A session goes from model to model: what one wrote must be valid for any other (R55, G7)."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.agent import foreign
from crush_trio.agent.ports import ModelInfo
from crush_trio.agent.transcript import (
    for_model,
    is_valid,
    open_assistant,
    tool_message,
    user_message,
)
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
from tests.agent.turn_kit import RUN, SESSION

PLAIN = re.compile(r"[a-zA-Z0-9_-]{1,40}")
SEEING = ModelInfo("a", "one", supports_attachments=True)


def said(*names: str) -> list[Message]:
    """A step of the model a/one that thought, asked for tools, and got their results."""
    calls = [ToolCallPart(name, "look", "{}", True, "signed") for name in names]
    parts: tuple[Part, ...] = (ReasoningPart("hm", "signed"), TextPart("I look."), *calls)
    message = attrs.evolve(open_assistant(SESSION, RUN, "a", "one", 0), parts=parts)
    results = [ToolResultPart(name, "look", "seen") for name in names]
    return [message, *(tool_message(SESSION, RUN, part, 0) for part in results)]


@pytest.mark.parametrize("name", ["toolu_01A-b", "call_1", "x" * 40])
def test_an_id_that_everybody_takes_stays(name: str) -> None:
    assert foreign.call_id(name) == name


@given(st.lists(st.text(max_size=70), max_size=5))
def test_whatever_ids_calls_have_they_are_sent_as_valid_ones(names: list[str]) -> None:
    """G7: Anthropic's characters, OpenAI's length; call and result agree, and none comes twice."""
    sent = for_model(said(*names), SEEING)
    assert is_valid(sent)
    ids = [call.id for message in sent for call in message.tool_calls()]
    assert all(PLAIN.fullmatch(each) for each in ids)
    assert len(set(ids)) == len(names)


@given(st.text(max_size=80) | st.sampled_from(["view", "functions.view:0", "", "1st"]))
def test_whatever_tool_a_model_asked_for_its_name_is_sent_as_a_valid_one(name: str) -> None:
    """G7"""
    asked = attrs.evolve(said("a")[0], parts=(ToolCallPart("a", name, "{}", True),))
    answer = tool_message(SESSION, RUN, ToolResultPart("a", name, "Unknown tool"), 0)
    [call] = for_model([asked, answer], SEEING)[0].tool_calls()
    [result] = for_model([asked, answer], SEEING)[1].tool_results()
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}", call.name)  # what Gemini, too, takes
    assert result.name == call.name
    assert call.name == name or not re.fullmatch(r"[a-z]+", name)


def test_a_file_of_nothing_is_a_text_that_says_so() -> None:
    """G7: an empty image is refused."""
    empty = user_message(SESSION, RUN, (BinaryPart("a.png", "image/png", ""),), 0)
    assert for_model([empty], SEEING)[0].text() == "[The file a.png is empty]"


def test_the_same_id_is_replaced_by_the_same_one_each_time() -> None:
    """A provider's cache is a beginning of the request."""
    name = "functions.look:0|fc_" + "x" * 60
    messages = said(name)
    first = for_model(messages, SEEING)
    again = for_model([*messages, *said("other")], SEEING)
    assert first == again[: len(first)]
    assert foreign.call_id("a:b") != foreign.call_id("a;b")


@pytest.mark.parametrize(
    ("info", "thoughts", "signatures"),
    [(SEEING, 1, ["signed"]), (ModelInfo("a", "two"), 0, [""]), (ModelInfo("b", "one"), 0, [""])],
)
def test_thoughts_and_signatures_go_back_only_to_who_wrote_them(
    info: ModelInfo, thoughts: int, signatures: list[str]
) -> None:
    message = for_model(said("c"), info)[0]
    assert sum(isinstance(part, ReasoningPart) for part in message.parts) == thoughts
    assert [call.signature for call in message.tool_calls()] == signatures
    assert message.text() == "I look."


@pytest.mark.parametrize("known", [True, False, None])
def test_a_text_stands_for_each_image_if_the_model_takes_none(known: bool | None) -> None:
    """R55: and only if that is known."""
    image = BinaryPart("/x.png", "image/png", "QUJD")
    shown = ToolResultPart("c", "view", "", data="QUJD", mime_type="image/png")
    user = user_message(SESSION, RUN, (TextPart("see"), image, ImageUrlPart("http://x")), 0)
    messages = [user, said("c")[0], tool_message(SESSION, RUN, shown, 0)]
    info = attrs.evolve(SEEING, supports_attachments=known)
    first, _, last = for_model(messages, info)
    (result,) = last.tool_results()
    if known is not False:
        assert image in first.parts
        assert result.data == "QUJD"
        return
    assert "The image /x.png is not shown: this model takes no images" in first.text()
    assert not any(isinstance(part, BinaryPart | ImageUrlPart) for part in first.parts)
    assert (result.data, result.mime_type) == ("", "")
    assert "not shown" in result.content
    text = BinaryPart("/a.txt", "text/plain", "QUJD")
    (kept,) = for_model([user_message(SESSION, RUN, (text,), 0)], info)
    assert text in kept.parts
