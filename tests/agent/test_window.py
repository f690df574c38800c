"""Whatever a conversation and its model's window are, a turn gets on with it or says it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent import sizes
from crush_trio.agent.compaction import Fullness, answer_room, shortened
from crush_trio.agent.ports import ModelError, ToolContext, ToolResult
from crush_trio.agent.transcript import open_assistant, tool_message, user_message
from crush_trio.agent.turn import Turn
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import (
    BinaryPart,
    FinishPart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from crush_trio.protocol.runs import Limits, Outcome, Usage
from tests.agent.turn_kit import RUN, SESSION, ListJournal, SmallTool, turn_of
from tests.agent.windowed import Windowed

IMAGE = BinaryPart("/x.png", "image/png", "QUJD")


def looking(*lengths: int) -> SmallTool:
    """A tool whose results are so many characters long, one after the other."""
    left = list(lengths)

    def look(args: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        return ToolResult("r" * (left.pop(0) if left else 10) + str(args["n"]))

    return SmallTool("look", look)


def earlier(*lengths: int, run: str = "before") -> list[Message]:
    """A run of the session whose steps each got a result of so many characters."""
    found = [user_message(SESSION, RunId(run), (TextPart("begin"),), 0)]
    for number, length in enumerate(lengths):
        name = f"{run}{number}"
        asked = (ToolCallPart(name, "look", "{}", True), FinishPart("tool_use", 0))
        opened = open_assistant(SESSION, RunId(run), "fake", "small", 0)
        found.append(attrs.evolve(opened, parts=asked))
        found.append(
            tool_message(SESSION, RunId(run), ToolResultPart(name, "look", "x" * length), 0)
        )
    last = open_assistant(SESSION, RunId(run), "fake", "small", 0)
    said = (TextPart("so it was"), FinishPart("end_turn", 0))
    return [*found, attrs.evolve(last, parts=said)]


def windowed(
    model: Windowed, tool: SmallTool | None = None, **named: Any
) -> tuple[Turn, ListJournal]:
    """A turn of a model that says what its window is."""
    named.setdefault("fullness", Fullness(model.told))
    return turn_of(model, [tool or looking()], **named)


def texts(messages: tuple[Message, ...]) -> list[str]:
    """What is in them."""
    return [m.text() + "".join(r.content for r in m.tool_results()) for m in messages]


# --- counting -----------------------------------------------------------------------------


async def test_the_system_prompt_and_the_tools_are_part_of_a_conversation() -> None:
    """R63: opencode#6286."""
    for system, summaries in ((8_000, 1), (800, 0)):
        model = Windowed(steps=0, counts=False)
        taken, journal = windowed(model, history=earlier(5_000))
        given = attrs.evolve(taken.given, system="s" * system)
        assert (await Turn(given, journal).take()).outcome is Outcome.COMPLETED
        assert len(journal.summaries) == summaries
        assert model.refused == []


async def test_what_a_summary_would_not_make_shorter_is_left_to_the_provider() -> None:
    """A small window that is filled by tools and system prompt alone can still be used."""
    model = Windowed(steps=3)
    taken, journal = windowed(model, looking(*[50] * 3))
    given = attrs.evolve(taken.given, system="s" * 4 * 3_400)
    assert (await Turn(given, journal).take()).outcome is Outcome.COMPLETED
    assert (journal.summaries, model.refused) == ([], [])


@pytest.mark.parametrize("counts", [True, False])
async def test_a_large_result_is_dealt_with_before_the_request_that_would_fail(
    counts: bool,
) -> None:
    """R63, R-COMPACT: what came since the last count is counted in."""
    model = Windowed(steps=1, counts=counts)
    taken, journal = windowed(model, looking(20_000))
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert model.refused == []
    assert len(journal.summaries) == 1
    assert journal.summaries[0][1] > 4_096


async def test_a_large_prompt_is_dealt_with_before_it_is_sent() -> None:
    """R63: the session's count does not know of it."""
    model = Windowed(steps=0)
    taken, journal = windowed(model, history=earlier(6_000), fullness=Fullness(4_096, 1_700, 20))
    prompt = user_message(SESSION, RUN, (TextPart("p" * 8_000),), 0)
    given = attrs.evolve(taken.given, history=(*taken.given.history[:-1], prompt))
    assert (await Turn(given, journal).take()).outcome is Outcome.COMPLETED
    assert model.refused == []
    assert [request.summary for request in model.requests] == [True, False]


async def test_a_prompt_that_joins_and_fills_the_window_is_dealt_with_before_it_is_sent() -> None:
    """R63, R50: nothing was asked, and the record of it says so."""
    model = Windowed(steps=1)
    taken, journal = windowed(model, looking(8_000))
    joining = user_message(SESSION, RunId("other"), (TextPart("j" * 10_000),), 0)

    def look(args: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        journal.waiting.append(joining)
        return ToolResult("r" * 4_000)

    taken.given.tools[0].function = look  # type: ignore[attr-defined]
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert model.refused == []
    assert [request.summary for request in model.requests] == [False, True, False]
    assert taken.progress.steps == 3
    assert len(journal.resets) == 1


def test_a_conversation_is_what_was_counted_and_what_has_changed_since() -> None:
    """R63: what was added is estimated; what is left out is a share of what was counted."""
    full = Fullness(10_000, estimate=600)
    full.stepped(Usage(2_000, 100), 100)
    assert full.tokens() == 2_100
    full.estimate += 300
    assert full.tokens() == 2_400
    full.estimate = 350  # half of the 700 that were counted
    assert full.tokens() == 1_050


def test_a_sessions_count_speaks_of_what_its_last_answer_had_seen() -> None:
    """CW 5.11, R65: of a summary alone it says nothing of the tools; what came later is added."""
    history = earlier(10)
    size = sizes.of_messages(history)
    full = Fullness(10_000, 500, 20, frame=50)
    full.begin(history, 50 + size)
    full.estimate = 50 + size + 30
    assert full.tokens() == 520 + 30
    nobody = Fullness(10_000, 5, frame=50)  # the title was named, and no answer ever came
    nobody.begin(history[:1], 50 + size)
    nobody.estimate = 50 + size + 30
    assert nobody.tokens() == 50 + size + 30
    summary = attrs.evolve(history[0], is_summary_message=True)
    after = Fullness(10_000, 0, 20, frame=50)
    after.begin([summary], 50 + sizes.of_message(summary))
    after.estimate = 50 + sizes.of_message(summary) + 30
    assert after.tokens() == 20 + 50 + 30
    none = Fullness(10_000, 900, 20, frame=50)
    none.begin([], 50)
    none.estimate = 80
    assert none.tokens() == 80


def test_a_window_that_was_too_small_is_remembered_as_the_provider_counts() -> None:
    """R-COMPACT: also if our estimates are half of that."""
    full = Fullness(0, 5_900, 100, estimate=3_000, counted_at=3_000)
    full.refused()
    assert full.is_due()
    full.estimate = 2_900
    full.stepped(Usage(4_700, 100), 10)
    assert full.is_due(), "a fifth of 6,000 is left"
    full.estimate = 2_000
    full.stepped(Usage(3_000, 100), 10)
    assert not full.is_due()


def test_what_was_written_to_the_cache_was_sent_too() -> None:
    """CW 5.11: Anthropic's input does not count it."""
    full = Fullness(1_000)
    full.stepped(Usage(10, 5, 200, 600), 4)
    assert full.tokens() == 815
    assert full.is_due()


def test_sizes_are_estimated_from_what_is_sent() -> None:
    """CW 5.11: a token for each four characters; of bytes, so that Chinese is not a quarter."""
    assert sizes.of_text("abcde") == 2
    assert sizes.of_text("土撥鼠在睡覺") == 5
    assert sizes.of_text("\ud800") == 1
    message = user_message(SESSION, RUN, (TextPart("abcd"), IMAGE), 0)
    assert sizes.of_message(message) == limits.MESSAGE_TOKENS + 1 + limits.IMAGE_TOKENS
    tool = looking()
    assert sizes.of_frame("s" * 40, ()) == 10
    assert sizes.of_frame("", [tool.spec]) > 10


@pytest.mark.parametrize(
    ("window", "tokens", "usual", "room"),
    [
        (200_000, 100_000, 32_000, None),
        (200_000, 150_000, 64_000, 46_000),
        (0, 100, 64_000, None),
        (1_000, 100, 0, None),
        (1_000, 990, 500, None),
    ],
)
async def test_an_answer_is_given_no_more_room_than_there_is(
    window: int, tokens: int, usual: int, room: int | None
) -> None:
    """Providers refuse a request whose limit does not fit behind it."""
    assert answer_room(window, tokens, usual) == room


async def test_each_request_asks_for_no_longer_answer_than_has_room_behind_it() -> None:
    """Also one for a summary; a limit of the run that is smaller stays."""
    model = Windowed(steps=4, usual=2_000)
    taken, _ = windowed(model, looking(4_500, 4_500, 4_500, 10))
    await taken.take()
    rooms = [request.max_output_tokens for request in model.requests]
    assert rooms[0] is None
    assert any(request.summary for request in model.requests)
    for request, room in zip(model.requests, rooms, strict=True):
        limit = 2_000 if room is None else room
        assert sizes.of_messages(request.messages) + limit <= model.window
    narrow = {r.summary for r in model.requests if r.max_output_tokens is not None}
    assert narrow == {False, True}
    model = Windowed(steps=1, usual=2_000)
    taken, _ = windowed(model, looking(9_000), limits=Limits(max_output_tokens=50))
    await taken.take()
    assert model.requests[0].max_output_tokens == 50


# --- too long -----------------------------------------------------------------------------


async def test_the_answer_so_far_is_that_before_the_request_that_was_too_long() -> None:
    """R54: when nothing helps, the run's text is what the model said last."""
    model = Windowed(told=0, steps=9, words=40_000)
    taken, _ = windowed(model, looking(*[9_000] * 9))
    with pytest.raises(ModelError) as failed:
        await taken.take()
    assert failed.value.code == "context_overflow"
    assert taken.progress.text == "I look."


@pytest.mark.parametrize("told", [0, 100_000])
async def test_a_request_that_is_too_long_is_made_shorter(told: int) -> None:
    """R-COMPACT: also where nobody knows the window, or it is smaller than was said."""
    model = Windowed(told=told, steps=9)
    taken, journal = windowed(model, looking(*[2_500] * 9))
    end = await taken.take()
    assert end.outcome is Outcome.COMPLETED
    assert len(model.refused) >= 1
    assert [reset.cause for reset in journal.resets if "too many" in reset.cause]
    taken_back = [m for m in journal.messages() if (f := m.finish()) and f.message == "Too long"]
    assert [message.parts[:-1] for message in taken_back] == [()] * len(taken_back)
    assert taken.failure is None
    assert taken.progress.text == "done"
    asked = [request.step for request in model.requests if not request.summary]
    assert sorted(set(asked)) == list(range(1, 11)), "the steps are counted without those"
    assert taken.progress.tool_calls == 9
    assert len(model.refused) == 1, "from then on the window is known"


async def test_a_prompt_alone_that_is_too_long_ends_the_run_at_once() -> None:
    """R-COMPACT: there is nothing that could be left out."""
    model = Windowed(steps=0, window=100)
    taken, journal = windowed(model)
    given = attrs.evolve(taken.given, system="s" * 4_000)
    with pytest.raises(ModelError) as failed:
        await Turn(given, journal).take()
    assert failed.value.code == "context_overflow"
    assert len(model.requests) == 1


async def test_where_nothing_may_be_left_out_the_provider_has_the_last_word() -> None:
    """R-COMPACT: `--no-compact` is honoured on every path, and the error says what to do."""
    model = Windowed(steps=3)
    taken, journal = windowed(
        model, looking(9_000, 9_000), fullness=Fullness(0, allowed=False), history=earlier(2_000)
    )
    with pytest.raises(ModelError) as failed:
        await taken.take()
    assert failed.value.code == "context_too_long"
    assert journal.messages()[-1].text() == "half", "what it said before stays"
    assert "tokens are too many" in failed.value.message
    assert "--no-compact" in failed.value.message
    assert (journal.prunings, journal.summaries, len(model.refused)) == ([], [], 1)
    assert taken.failure is failed.value


async def test_a_summary_is_not_asked_for_with_more_than_the_window_takes() -> None:
    """R-COMPACT: opencode#15849; outputs, images and at last the oldest messages go."""
    model = Windowed(steps=0)
    history = [m for n in range(12) for m in earlier(9_000, run=f"r{n}-")]
    picture = attrs.evolve(history[0], parts=(IMAGE, TextPart("see")))
    taken, _ = windowed(model, history=[picture, *history[1:]])
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert model.refused == []
    assert model.requests[0].summary


def test_whatever_is_summarised_fits_at_last() -> None:
    """R-COMPACT: with long texts, images and many messages, and counted twice as large."""
    message = user_message(SESSION, RUN, (TextPart("x" * 100_000), IMAGE), 0)
    for count in (1, 3, 500):
        last = shortened([message] * count, limits.SUMMARY_TRIES - 1, 3_000)
        assert last
        assert sizes.of_messages(last) <= 1_500


conversations = st.fixed_dictionaries(
    {
        "window": st.sampled_from([1_000, 4_096]),
        "told": st.sampled_from([0, 1_000, 4_096, 32_000]),
        "chars": st.floats(2.0, 6.0),
        "steps": st.integers(0, 8),
        "counts": st.booleans(),
        "words": st.sampled_from([1, 200, 2_000, 40_000]),
    }
)


@settings(max_examples=70, deadline=None)
@given(
    conversations,
    st.lists(st.sampled_from([0, 300, 1_500, 5_000, 60_000]), max_size=8),
    st.lists(st.sampled_from([0, 900, 4_000, 30_000]), max_size=6),
    st.sampled_from([2, 3_000, 30_000]),
    st.integers(0, 6_000),
)
def test_whatever_the_window_a_turn_ends(
    facts: dict[str, Any], results: list[int], before: list[int], prompt: int, count: int
) -> None:
    """R-COMPACT: complete or `context_overflow`; after a refusal each request is smaller."""
    model = Windowed(**facts)
    taken, journal = windowed(
        model, looking(*results), history=earlier(*before), fullness=Fullness(model.told, count)
    )
    user = user_message(SESSION, RUN, (TextPart("p" * prompt),), 0)
    given = attrs.evolve(taken.given, history=(*taken.given.history[:-1], user))
    taken = Turn(given, journal)

    async def take() -> str:
        try:
            return (await taken.take()).outcome
        except ModelError as exc:
            return exc.code

    ended = trio.run(take, clock=MockClock(autojump_threshold=0))
    assert ended in ("completed", "context_overflow")
    asked = (facts["steps"] + 1) * (2 + limits.COMPACTION_ROUNDS * (1 + limits.SUMMARY_TRIES))
    assert len(model.requests) <= asked
    for place, size in model.refused:
        later = model.requests[place + 1 : place + 2]
        assert all(model.size(request) < size for request in later)
