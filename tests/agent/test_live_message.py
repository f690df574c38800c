"""A message while it is written: what subscribers are shown adds up to what it is."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)


class Seen:
    """A subscriber that checks every offset and index it is shown."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []

    def show(self, index: int, part: str, offset: int, text: str, tool_call_id: str | None) -> None:
        if index == len(self.parts):
            assert offset == 0
            self.parts.append((part, "", tool_call_id))
        kind, before, call_id = self.parts[index]
        assert (kind, call_id, len(before)) == (part, tool_call_id, offset)
        self.parts[index] = (kind, before + text, call_id)
        self.texts.append(text)


def live(seen: Seen, *taken: str) -> LiveMessage:
    base = Message(MessageId("m"), "assistant", SessionId("s"), (), run_id=RunId("r"))
    return LiveMessage(base, seen.show, lambda: 0, frozenset(taken))


def written(*events: ModelEvent, taken: tuple[str, ...] = ()) -> tuple[Seen, LiveMessage]:
    seen = Seen()
    message = live(seen, *taken)
    for event in events:
        message.apply(event)
        if isinstance(event, StreamReset):
            seen.parts = shown(message.present())  # the journal shows the whole state then
    return seen, message


def shown(message: Message) -> list[tuple[str, str, str | None]]:
    """The parts as a subscriber of deltas knows them."""
    found: list[tuple[str, str, str | None]] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                found.append(("text", text, None))
            case ReasoningPart(thinking):
                found.append(("reasoning", thinking, None))
            case ToolCallPart(id, _, text):
                found.append(("tool_input", text, id))
    return found


ids = st.sampled_from(["x", "y", "gone"])
words = st.sampled_from(["", "\n", "\nhello", "é😀", '{"a":', "1}"])
events = st.lists(
    st.one_of(
        st.builds(TextDelta, words),
        st.builds(ReasoningDelta, words),
        st.builds(ReasoningEnd, st.sampled_from(["", "signed"])),
        st.builds(ToolCallStart, ids, st.just("view")),
        st.builds(ToolInputDelta, ids, words),
        st.builds(ToolCallEnd, ids, st.sampled_from(["", "{}", '{"a":1}', '{"a":1}1}'])),
    ),
    max_size=12,
)


@given(events)
def test_the_deltas_add_up_to_the_present_parts(pieces: list[ModelEvent]) -> None:
    """R51, G8: after every single piece."""
    seen = Seen()
    message = live(seen, "y")
    for piece in pieces:
        before, length = message.present().parts, message.length
        message.changed = False
        content = message.apply(piece)
        assert seen.parts == shown(message.present())
        assert message.changed == content
        assert content or (message.present().parts, message.length) == (before, length)
    names = sum(len(call.name) for call in message.calls())
    assert message.length == names + sum(len(text) for _, text, _ in seen.parts)


@given(events, events)
def test_a_reset_forgets_everything(before: list[ModelEvent], after: list[ModelEvent]) -> None:
    """R51: what comes then is as if it came first."""
    _, again = written(*before, StreamReset(1, 3, 0.0, "429"), *after)
    _, fresh = written(*after)
    assert again.present() == fresh.present()
    assert again.calls() == fresh.calls()


@given(events)
def test_a_finished_message_is_valid_and_closed(pieces: list[ModelEvent]) -> None:
    """R51: calls finished, input a JSON object, thoughts ended, one finish part, at the end."""
    _, message = written(*pieces)
    done = message.finish("end_turn")
    assert done.parts[-1] == FinishPart("end_turn", 0)
    for part in done.tool_calls():
        assert part.finished
        assert part.input in ("{}", '{"a":1}')
    assert message.present() is done
    assert len({call.id for call in done.tool_calls()}) == len(done.tool_calls())


def test_one_leading_newline_goes_and_no_more() -> None:
    """R51: whether it comes alone or with text."""
    for pieces in (("\n\nhi",), ("\n", "\nhi"), ("", "\n\nhi")):
        _, message = written(*(TextDelta(piece) for piece in pieces))
        expected = "\nhi" if pieces[0] else "\n\nhi"
        assert message.present().text() == expected


def test_text_after_a_thought_keeps_its_newline() -> None:
    """R51: the message has a part already."""
    _, message = written(ReasoningDelta("hm"), ReasoningEnd("signed"), TextDelta("\nhi"))
    thought, text = message.present().parts
    assert thought == ReasoningPart("hm", "signed", 0, 0)
    assert text == TextPart("\nhi")
    _, twice = written(ReasoningDelta("a"), ReasoningEnd(), ReasoningDelta("b"))
    assert [part.__class__ for part in twice.present().parts] == [ReasoningPart] * 2


def test_the_arguments_come_in_pieces_whole_or_both() -> None:
    """R51."""
    ways: list[list[ModelEvent]] = [
        [ToolInputDelta("x", '{"a"'), ToolInputDelta("x", ":1}"), ToolCallEnd("x", '{"a":1}')],
        [ToolInputDelta("x", '{"a"'), ToolCallEnd("x", '{"a":1}')],
        [ToolCallEnd("x", '{"a":1}'), ToolInputDelta("x", "late"), ToolCallEnd("x", "twice")],
        [ToolInputDelta("x", "wrong"), ToolCallEnd("x", '{"a":1}')],
    ]
    for pieces in ways:
        _, message = written(ToolCallStart("x", "view"), ToolCallStart("y", "ls"), *pieces)
        assert [c.input for c in message.calls()] == ['{"a":1}', ""]
        assert [c.finished for c in message.calls()] == [True, False]
        assert [c.input for c in message.finish("tool_use").tool_calls()] == ['{"a":1}', "{}"]


def test_an_id_that_the_session_has_used_is_made_unique() -> None:
    """G7: results are found by it."""
    seen, message = written(
        ToolCallStart("x", "view"), ToolInputDelta("x", "{}"), ToolCallEnd("x", "{}"),
        ToolCallStart("x_2", "view"), taken=("x", "x_3"),
    )  # fmt: skip
    assert [call.id for call in message.calls()] == ["x_2", "x_2_2"]
    assert seen.parts[0] == ("tool_input", "{}", "x_2")


def test_a_delta_for_a_call_that_was_not_started_is_ignored() -> None:
    seen, message = written(ToolInputDelta("x", "{}"), ToolCallEnd("x", "{}"))
    assert not seen.texts
    assert message.present().parts == ()


def test_a_model_that_asks_for_tools_without_end_costs_the_same_for_each() -> None:
    message, calls = live(Seen()), 5_000
    before = time.process_time()
    for number in range(calls):
        message.apply(ToolCallStart(str(number), "view"))
    assert time.process_time() - before < 0.5  # a second, if each looks at all
    assert len(message.calls()) == calls
