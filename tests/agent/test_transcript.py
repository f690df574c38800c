"""Repairs of the transcript, as pairs of before and after, and as properties."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.agent import transcript
from crush_trio.agent.transcript import Cause, close_run, for_model, is_valid
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

SESSION, RUN = SessionId("s"), RunId("r")


def said(role: str, *parts: Part, name: str = "m") -> Message:
    return Message(MessageId(name), role, SESSION, parts, run_id=RUN)


def call(name: str, text: str = "{}", *, finished: bool = True) -> ToolCallPart:
    return ToolCallPart(name, "view", text, finished)


def result(name: str, text: str = "seen") -> ToolResultPart:
    return ToolResultPart(name, "view", text)


def brief(messages: tuple[Message, ...]) -> list[str]:
    """One word per thing: role, calls and results."""
    found = []
    for message in messages:
        words = [message.role[0]]
        words += [f"{c.id}={c.input}" for c in message.tool_calls()]
        words += [f"{r.tool_call_id}:{r.content[:8]}" for r in message.tool_results()]
        found.append(" ".join(words))
    return found


PROMPT = said("user", TextPart("go"))
PAIRS = [
    ("nothing to do", [PROMPT, said("assistant", TextPart("ok"))], ["u", "a"]),
    ("an orphaned result", [PROMPT, said("tool", result("x"))], ["u"]),
    (
        "a call without a result",
        [PROMPT, said("assistant", call("x"))],
        ["u", "a x={}", "t x:The call"],
    ),
    (
        "one of two results, and they come in the wrong order",
        [
            said("assistant", call("x"), call("y"), call("z")),
            said("tool", result("z")),
            said("tool", result("x")),
        ],
        ["a x={} y={} z={}", "t x:seen", "t y:The call", "t z:seen"],
    ),
    (
        "a result that comes after the next prompt",
        [said("assistant", call("x")), PROMPT, said("tool", result("x"))],
        ["a x={}", "t x:seen", "u"],
    ),
    ("an empty assistant message", [PROMPT, said("assistant", TextPart(" "))], ["u"]),
    ("a thought only", [PROMPT, said("assistant", ReasoningPart("hm"))], ["u"]),
    (
        "a call that was cut off",
        [said("assistant", call("x", '{"a', finished=False))],
        ["a x={}", "t x:The call"],
    ),
    (
        "arguments that are no object",
        [said("assistant", call("x", "[1]")), said("tool", result("x"))],
        ["a x={}", "t x:seen"],
    ),
    (
        "an id that occurs again",
        [
            said("assistant", call("x")),
            said("tool", result("x", "first")),
            said("assistant", call("x")),
            said("tool", result("x", "second")),
        ],
        ["a x={}", "t x:first", "a x_2={}", "t x_2:second"],
    ),
    (
        "an id that occurs twice in one message",
        [said("assistant", call("x"), call("x")), said("tool", result("x"))],
        ["a x={} x_2={}", "t x:seen", "t x_2:The call"],
    ),
    (
        "parts in the wrong role",
        [said("user", TextPart("go"), call("x"), result("y")), said("assistant", result("z"))],
        ["u"],
    ),
]


@pytest.mark.parametrize(("before", "after"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_history_is_repaired_before_a_model_sees_it(
    before: list[Message], after: list[str]
) -> None:
    """R55, G7."""
    repaired = for_model(before)
    assert brief(repaired) == after
    assert is_valid(repaired)
    assert brief(for_model(repaired)) == after


ids = st.sampled_from(["x", "y", "x_2"])
parts = st.one_of(
    st.builds(TextPart, st.sampled_from(["", " ", "hello"])),
    st.builds(ReasoningPart, st.just("hm")),
    st.builds(
        ToolCallPart,
        ids,
        st.just("view"),
        st.sampled_from(["", "{}", '{"a":1}', '{"a', "[]"]),
        st.booleans(),
    ),
    st.builds(ToolResultPart, ids, st.just("view"), st.just("seen")),
    st.builds(FinishPart, st.just("stop"), st.just(0)),
)
messages = st.lists(
    st.builds(
        lambda role, some: said(role, *some),
        st.sampled_from(["user", "assistant", "tool", "system", "other"]),
        st.lists(parts, max_size=4),
    ),
    max_size=8,
)


@given(messages)
def test_whatever_the_history_what_a_model_sees_is_valid(history: list[Message]) -> None:
    """G7: and every user's text is still there."""
    sent = for_model(history)
    assert is_valid(sent)
    assert [m.text() for m in sent if m.role == "user"] == [
        m.text() for m in history if m.role == "user"
    ]
    for message in sent:
        for each in message.tool_calls():
            assert each.finished
            assert each.input.startswith("{")


def test_validity_is_what_it_says() -> None:
    """G7: each call has one result, right after its message, in order."""
    a, x, y = said("assistant", call("x"), call("y")), result("x"), result("y")
    assert is_valid([PROMPT, a, said("tool", x), said("tool", y), PROMPT])
    for wrong in (
        [a],
        [a, said("tool", y), said("tool", x)],
        [a, said("tool", x), PROMPT, said("tool", y)],
        [said("tool", x)],
        [a, said("tool", x), said("tool", y), a, said("tool", x), said("tool", y)],
    ):
        assert not is_valid(wrong)


# --- closing ------------------------------------------------------------------------------


def closed(run: list[Message], cause: Cause, *started: str) -> list[Message]:
    """The run's transcript after `close_run` has been written into it."""
    written = close_run(
        run,
        cause=cause,
        started_calls=frozenset(started),
        empty=said("assistant", name="new"),
        now_s=7,
        details="why",
    )
    known = {m.id: i for i, m in enumerate(run)}
    after = list(run)
    for message in written:
        if message.id in known:
            after[known[message.id]] = message
        else:
            after.append(message)
    return after


def finished(message: Message) -> Message:
    return attrs.evolve(message, parts=(*message.parts, FinishPart("tool_use", 1)))


@pytest.mark.parametrize("cause", list(Cause))
def test_an_open_message_is_closed_where_it_stands(cause: Cause) -> None:
    """R52, R53, R54: text kept, thought and calls closed, results written, reason given."""
    user = said("user", TextPart("go"), name="u")
    open_message = said(
        "assistant",
        ReasoningPart("hm", started_at=1),
        TextPart("half"),
        call("x", '{"a":1}'),
        call("y", '{"a', finished=False),
        call("z", '{"broken'),
        name="a",
    )
    after = closed([user, open_message], cause, "x")
    assert [m.role for m in after] == ["user", "assistant", "tool", "tool", "tool"]
    message = after[1]
    assert message.text() == "half"
    assert isinstance(message.parts[0], ReasoningPart)
    assert message.parts[0].finished_at == 7
    assert [c.input for c in message.tool_calls()] == ['{"a":1}', "{}", "{}"]
    finish = message.finish()
    assert finish is not None
    assert finish.reason == ("canceled" if cause is Cause.CANCELLED else "error")
    texts = [part.content for m in after for part in m.tool_results()]
    assert len(set(texts[1:])) == 1
    assert (texts[0] == texts[1]) == (cause is Cause.FAILED)
    if cause is Cause.CANCELLED:
        assert (finish.message, finish.details) == ("User canceled request", "")
        assert texts[:2] == ["context canceled", "Error: user cancelled assistant tool calling"]
    assert is_valid(after)


def test_a_run_without_an_answer_gets_one_that_says_why() -> None:
    """R52."""
    after = closed([said("user", TextPart("go"), name="u")], Cause.CANCELLED)
    assert after[-1].parts == (FinishPart("canceled", 7, "User canceled request"),)
    assert [m.role for m in closed([], Cause.FAILED)] == ["assistant"]


@pytest.mark.parametrize("cause", list(Cause))
def test_an_answer_that_was_finished_is_left_alone_unless_its_run_was_cancelled(
    cause: Cause,
) -> None:
    """R54, G4: then its text stays and its finish says so."""
    run = [said("user", name="u"), finished(said("assistant", TextPart("ok"), name="a"))]
    after = closed(run, cause)
    if cause is not Cause.CANCELLED:
        assert after == run
        return
    assert after[1].parts == (TextPart("ok"), FinishPart("canceled", 7, "User canceled request"))
    assert closed(after, cause) == after


def test_calls_of_a_finished_message_get_the_results_they_lack() -> None:
    """R53, G7: also when an earlier step used the same id."""
    run = [
        said("user", name="u"),
        finished(said("assistant", call("x"), name="a")),
        said("tool", result("x"), name="t"),
        finished(said("assistant", call("x"), call("y"), name="b")),
    ]
    after = closed(run, Cause.LOST, "x")
    assert [m.role for m in after[-4:]] == ["assistant", "tool", "tool", "assistant"]
    contents = [m.tool_results()[0].content for m in after[-3:-1]]
    assert "in part" in contents[0]
    assert contents[1].startswith("Not run")


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Message], set[str]]:
    """A run's messages at any moment, and the calls that were started without a result."""
    found = [said("user", TextPart("go"), name="u")]
    steps = draw(st.integers(0, 3))
    started: set[str] = set()
    for step in range(steps):
        names = [f"{step}-{n}" for n in range(draw(st.integers(0, 3)))]
        last = step == steps - 1
        is_open = last and draw(st.booleans())
        some = [call(n, finished=not is_open or draw(st.booleans())) for n in names]
        message = said("assistant", TextPart("text"), *some, name=f"a{step}")
        found.append(message if is_open else finished(message))
        if is_open:
            break
        done = draw(st.integers(0, len(names))) if last else len(names)
        found += [said("tool", result(n), name=f"t{n}") for n in names[:done]]
        started = set(names[done : done + 1])
        if not names:
            break
    return found, started


@given(runs(), st.sampled_from(Cause))
def test_however_far_a_run_has_come_closing_it_leaves_a_valid_transcript(
    run: tuple[list[Message], set[str]], cause: Cause
) -> None:
    """G7: and its last word is an assistant message that is finished."""
    after = closed(run[0], cause, *run[1])
    assert is_valid(after)
    assert all(m.finish() is not None for m in after if m.role == "assistant")
    answer = next(m for m in reversed(after) if m.role == "assistant")
    assert after.index(answer) + len(answer.tool_calls()) == len(after) - 1
    assert closed(after, cause) == after or answer.tool_calls()


def test_every_other_message_is_born_finished() -> None:
    """R10."""
    user = transcript.user_message(SESSION, RUN, (TextPart("go"),), 5)
    tool = transcript.tool_message(SESSION, RUN, result("x"), 5)
    for message in (user, tool):
        assert message.finish() == FinishPart("stop", 0)
        assert message.created_at == message.updated_at == 5


def test_repairing_a_long_conversation_looks_at_each_message_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = 200
    long = [PROMPT]
    for number in range(steps):
        long += [said("assistant", call(str(number))), said("tool", result(str(number)))]
    looks = 0
    look = Message.tool_results

    def counted(message: Message) -> tuple[ToolResultPart, ...]:
        nonlocal looks
        looks += 1
        return look(message)

    monkeypatch.setattr(Message, "tool_results", counted)
    assert len(for_model(long)) == len(long)
    assert looks <= 2 * len(long)  # with each pair it would be 40,000
