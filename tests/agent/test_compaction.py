"""When a conversation is too long, and how a turn goes on from its summary (R63, R64)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio

from crush_trio import limits
from crush_trio.agent import compaction, sizes
from crush_trio.agent.budget import LimitReached
from crush_trio.agent.compaction import Fullness, history, interrupted, is_full, shortened
from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelInfo,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
)
from crush_trio.agent.transcript import is_valid, open_assistant, tool_message, user_message
from crush_trio.agent.turn import Turn
from crush_trio.protocol.ids import MessageId, RunId
from crush_trio.protocol.messages import BinaryPart, Message, TextPart, ToolResultPart
from crush_trio.protocol.runs import Limits, Outcome, Usage
from tests.agent.turn_kit import RUN, SESSION, ListJournal, answering, turn_of


@attrs.define(eq=False)
class Recorder:
    """Asks for a tool for so many ``steps``, then answers; each step has used ``used`` tokens.

    A summary says ``words``; the first ``too_long`` requests for one are refused as too long.
    """

    steps: int = 1
    used: Sequence[int] = (10,)
    words: str = "what was said"
    too_long: int = 0
    requests: list[ModelRequest] = attrs.field(factory=list)
    info: ModelInfo = attrs.field(
        factory=lambda: ModelInfo(
            "fake", "m", context_window=4096, cost_per_1m_in=0.0, cost_per_1m_out=0.0
        )
    )

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Do so."""
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if request.summary:
            if self.too_long:
                self.too_long -= 1
                emit(TextDelta("half of"))
                raise ModelError("context_too_long", "too long")
            emit(ToolCallStart("x", "look"))
            emit(ToolCallEnd("x", "{}"))
            for at in range(0, len(self.words), 40):
                emit(TextDelta(self.words[at : at + 40]))
                await trio.lowlevel.checkpoint()
            return StepEnd("end_turn", Usage(3000, len(self.words)), 0.5)
        used = self.used[min(request.step, len(self.used)) - 1]
        if request.step <= self.steps:
            emit(ToolCallStart(f"c{request.step}", "look"))
            emit(ToolCallEnd(f"c{request.step}", f'{{"n": {request.step}}}'))
            return StepEnd("tool_use", Usage(used, 5), 1.0)
        emit(TextDelta("done"))
        return StepEnd("end_turn", Usage(used, 5), 1.0)

    def summaries(self) -> list[ModelRequest]:
        """The requests for one."""
        return [request for request in self.requests if request.summary]


def turn(model: Recorder, *, full: int = 0, **named: Any) -> tuple[Turn, ListJournal]:
    """A turn in a window of 4,096 tokens that the session has filled with ``full``."""
    return turn_of(model, [answering("look")], fullness=Fullness(4096, full), **named)


@pytest.mark.parametrize(
    ("window", "tokens", "full"),
    [
        (0, 10**9, False),
        (4096, 3276, False),
        (4096, 3277, True),
        (200_000, 159_999, False),
        (200_000, 160_000, True),
        (200_001, 180_000, False),
        (200_001, 180_001, True),
        (1_000_000, 979_999, False),
        (1_000_000, 980_000, True),
    ],
)
def test_a_window_is_full_when_a_fifth_or_twenty_thousand_tokens_are_left(
    window: int, tokens: int, full: bool
) -> None:
    """R63."""
    assert is_full(window, tokens) is full


async def test_a_turn_goes_on_from_a_summary_when_a_step_has_filled_the_window() -> None:
    """R63, R64: a step of the run; the prompt comes back in backquotes, and one ending."""
    model = Recorder(used=(4000, 100))
    taken, journal = turn(model)
    end = await taken.take()
    assert end.outcome is Outcome.COMPLETED
    first, summary, second = model.requests
    assert (first.step, second.step) == (1, 2), "the script's steps do not count summaries"
    assert not summary.tools
    assert [m.role for m in summary.messages] == ["user", "assistant", "tool", "user"]
    assert is_valid(summary.messages)
    assert [(m.role, m.text()) for m in second.messages] == [
        ("user", "what was said"),
        ("user", interrupted(user_message(SESSION, RUN, (TextPart("go"),), 0)).text()),
    ]
    assert "`go`" in second.messages[1].text()
    progress = taken.progress
    assert (progress.steps, progress.cost_usd, progress.text) == (3, 2.5, "done")
    assert progress.usage == Usage(4000 + 3000 + 100, 5 + 13 + 5)
    seen = sizes.of_message(summary.messages[2])
    assert journal.summaries == [("what was said", 4005 + seen, 13)]
    (stored,) = [m for m in journal.messages() if m.is_summary_message]
    assert (stored.role, stored.tool_calls()) == ("assistant", ())


async def test_before_the_first_step_the_prompt_is_kept_as_it_is() -> None:
    """R63: the session's stored counts decide; what is summarised is what was before."""
    model = Recorder(steps=0)
    before = user_message(SESSION, RunId("earlier"), (TextPart("hello"),), 0)
    taken, journal = turn(model, full=4000, history=[before])
    await taken.take()
    summary, first = model.requests
    assert [m.text() for m in summary.messages[:-1]] == ["hello"]
    assert [m.text() for m in first.messages] == ["what was said", "go"]
    (stored,) = [m for m in journal.messages() if m.is_summary_message]
    assert stored.leaves_out == (RUN,), "the prompt stands before it, and is not part of it"


async def test_a_session_without_messages_has_nothing_to_summarise() -> None:
    """The counts alone do not keep a turn from its first step."""
    model = Recorder(steps=0)
    taken, _ = turn(model, full=4000)
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert model.summaries() == []


async def test_two_rounds_that_do_not_help_end_the_run() -> None:
    """R-COMPACT: never a loop; a step that fits begins the count anew."""
    model = Recorder(steps=9, used=(4000,))
    with pytest.raises(ModelError) as stopped:
        await turn(model)[0].take()
    assert stopped.value.code == "context_overflow"
    assert len(model.summaries()) == limits.COMPACTION_ROUNDS
    assert len(model.requests) == 2 * limits.COMPACTION_ROUNDS + 1
    model = Recorder(steps=7, used=(4000, 4000, 10, 4000, 4000, 10, 10, 10))
    assert (await turn(model)[0].take()).outcome is Outcome.COMPLETED
    assert len(model.summaries()) == 4


async def test_a_summary_as_long_as_what_it_sums_up_is_no_help_either() -> None:
    """R-COMPACT: the summary's own tokens count at once."""
    model = Recorder(words="x" * 4000, used=(4000,))
    with pytest.raises(ModelError) as stopped:
        await turn(model)[0].take()
    assert stopped.value.code == "context_overflow"
    assert [request.summary for request in model.requests] == [False, True, True]


async def test_a_summary_request_that_is_too_long_is_made_with_less() -> None:
    """R-COMPACT: outputs go first, then the oldest messages; bounded."""
    history = []
    for number in range(8):
        run = RunId(f"r{number}")
        history.append(user_message(SESSION, run, (TextPart(f"prompt {number}"),), 0))
    long = ToolResultPart("c", "look", "y" * 1000)
    history += [
        attrs.evolve(open_assistant(SESSION, RUN, "", "", 0), parts=(TextPart("a"),)),
        tool_message(SESSION, RUN, long, 0),
    ]
    model = Recorder(steps=0, too_long=3)
    taken, journal = turn(model, full=4000, history=history)
    assert (await taken.take()).outcome is Outcome.COMPLETED
    sizes = [sum(len(str(m.parts)) for m in r.messages) for r in model.summaries()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(journal.resets) == 3
    assert taken.progress.steps == 5, "each request is a step"
    model = Recorder(steps=0, too_long=99)
    with pytest.raises(ModelError) as stopped:
        await turn(model, full=4000, history=history)[0].take()
    assert stopped.value.code == "context_overflow"
    assert len(model.requests) == limits.SUMMARY_TRIES


async def test_limits_hold_while_summarising() -> None:
    """G4, contract 3: steps and cost of a summary count before the next step is asked."""
    end = await turn(Recorder(steps=9, used=(4000,)), limits=Limits(max_steps=2))[0].take()
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.LIMITED, "max_steps")
    end = await turn(Recorder(steps=9, used=(4000, 1)), limits=Limits(max_cost_usd=1.2))[0].take()
    assert end.error is not None
    assert end.error.code == "max_cost_usd"
    wordy = turn(Recorder(words="x" * 200, used=(4000,)), limits=Limits(max_output_tokens=20))[0]
    with pytest.raises(LimitReached):
        await wordy.take()
    assert wordy.progress.usage.output_tokens >= 20


async def test_an_empty_summary_is_an_error() -> None:
    """R65: a session is not to begin with nothing."""
    with pytest.raises(ModelError) as stopped:
        await turn(Recorder(words="", used=(4000,)))[0].take()
    assert (stopped.value.code, stopped.value.title) == ("empty_answer", "Summarization Error")


def said(
    name: str,
    run: str,
    *,
    summary: bool = False,
    leaves_out: tuple[str, ...] = (),
    covers: tuple[str, ...] = (),
) -> Message:
    """A small message."""
    return Message(
        MessageId(name),
        "assistant" if summary else "user",
        SESSION,
        (TextPart(name),),
        is_summary_message=summary,
        run_id=RunId(run),
        leaves_out=tuple(map(RunId, leaves_out)),
        covers=tuple(map(RunId, covers)),
    )


def test_history_begins_with_the_summary_and_drops_nothing_after_it() -> None:
    """R65, I18: unfinished summaries are not shown; what was moved behind it is."""
    stored = [
        said("a", "1"),
        said("old", "2", summary=True),
        said("moved", "3"),
        said("b", "4"),
        said("sum", "5", summary=True, leaves_out=("3",)),
        said("c", "6"),
        said("half", "7", summary=True),
        said("d", "8"),
    ]
    shown = history(stored, MessageId("sum"))
    assert [m.id for m in shown] == ["sum", "moved", "c", "d"]
    assert (shown[0].role, shown[0].run_id) == ("user", None)
    assert [m.id for m in history(stored, "")] == ["a", "moved", "b", "c", "d"]
    assert compaction.is_worth_it(shown)
    assert not compaction.is_worth_it(shown[:1])


def test_history_shows_nothing_twice_that_was_moved_ahead_of_the_summary() -> None:
    """R65, I18, G7: it stands behind the summary, which covers it."""
    stored = [
        said("a", "1"),
        said("sum", "2", summary=True, covers=("3", "5")),
        said("rest", "2"),
        said("ahead", "3"),
        said("answer", "3"),
        said("b", "4"),
        said("cancelled", "5"),
        said("c", "6"),
    ]
    assert [m.id for m in history(stored, MessageId("sum"))] == ["sum", "rest", "b", "c"]


def test_a_folded_prompt_goes_with_the_run_that_took_it_in() -> None:
    """G7: left out or covered with it, whenever it was itself accepted."""
    stored = [
        said("a", "1"),
        said("folded later", "9"),
        said("a2", "1"),
        said("sum", "4", summary=True, leaves_out=("1",), covers=("6",)),
        said("folded here", "8"),
        said("rest", "4"),
        said("b", "6"),
        said("folded earlier", "3"),
        said("b2", "6"),
        said("c", "7"),
    ]
    expected = ["1", "1", "1", "4", "4", "4", "6", "6", "6", "7"]
    assert list(compaction.places(stored)) == expected
    shown = [m.id for m in history(stored, MessageId("sum"))]
    assert shown == ["sum", "a", "folded later", "a2", "folded here", "rest", "c"]
    later = {RunId(run) for run in ("6", "7", "8", "9")}
    assert compaction.covered_behind(compaction.places(stored[:9]), later) == ("6",)


def test_a_quoted_prompt_keeps_its_attachments() -> None:
    """R64."""
    image = BinaryPart("/x.png", "image/png", "")
    quoted = interrupted(user_message(SESSION, RUN, (TextPart("see"), image), 0))
    assert image in quoted.parts
    assert "`see`" in quoted.text()
    assert quoted.run_id == RUN, "models find the run's prompt by it"


def test_less_and_less_is_left_to_summarise() -> None:
    """R-COMPACT: always something."""
    messages = [said(str(number), "r") for number in range(9)]
    assert [len(shortened(messages, tried)) for tried in range(7)] == [9, 9, 4, 2, 1, 1, 1]
    assert shortened(messages, 3)[-1].id == "8"
