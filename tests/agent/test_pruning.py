"""Old tool output goes before a summary does: in blocks, and the same in each later request."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio import limits
from crush_trio.agent import sizes
from crush_trio.agent.compaction import Fullness
from crush_trio.agent.pruning import Pruned, pruned
from crush_trio.agent.transcript import is_valid, tool_message
from crush_trio.protocol.messages import Message, ToolResultPart
from crush_trio.protocol.runs import Outcome
from tests.agent.test_window import earlier, looking, windowed
from tests.agent.turn_kit import RUN, SESSION
from tests.agent.windowed import Windowed

WINDOW = 4_096


def outputs(messages: tuple[Message, ...]) -> list[str]:
    """The results of tools: what is left out as a dash, anything else by its length."""
    found = [part.content for message in messages for part in message.tool_results()]
    return ["-" if text.startswith("[") else str(len(text)) for text in found]


def test_old_output_goes_and_the_last_steps_and_short_ones_stay() -> None:
    """R-COMPACT: what is left out says so, and how to see it again; nothing else changes."""
    messages = earlier(3_000, 900, 3_000, 900, 1_500, 1_200)
    sent = pruned(messages, 0, WINDOW)
    assert outputs(sent.messages) == ["-", "900", "-", "900", "1500", "1200"]
    assert sent.left_out == 2
    assert sent.tokens == sizes.of_messages(sent.messages) < sizes.of_messages(messages)
    assert is_valid(sent.messages)
    note = sent.messages[2].tool_results()[0]
    assert note.content.startswith("[3000 characters of output are left out")
    assert "repeat the call" in note.content
    assert sent.messages[-1] is messages[-1]
    assert pruned(messages, 0, 0).messages == tuple(messages), "a window nobody knows"
    assert pruned(messages, 0, 100_000).left_out == 0


def test_an_old_image_goes_with_its_result() -> None:
    messages = earlier(10, 3_000, 3_000, 3_000)
    image = ToolResultPart("before0", "look", "an image", data="QUJD", mime_type="image/png")
    messages[2] = attrs.evolve(tool_message(SESSION, RUN, image, 0))
    (part,) = pruned(messages, 0, WINDOW).messages[2].tool_results()
    assert (part.data, part.mime_type) == ("", "")
    assert part.content.startswith("[8 characters and an image of output are left out")


def test_a_small_block_is_not_worth_the_providers_cache() -> None:
    """It waits until there is more of it."""
    messages = earlier(1_600, 3_000, 3_000, 3_000)
    assert sizes.of_messages(messages[:-1]) > WINDOW * limits.PRUNE_SHARE
    assert pruned(messages[:-1], 0, WINDOW).left_out == 0
    assert pruned(messages, 0, WINDOW).left_out == 2


lengths = st.lists(st.sampled_from([10, 1_100, 2_000, 5_000]), max_size=25)


@settings(max_examples=60)
@given(lengths, st.sampled_from([0, 500]), st.sampled_from([4_096, 8_192]))
def test_each_request_begins_as_the_one_before_but_for_a_few_large_blocks(
    results: list[int], frame: int, window: int
) -> None:
    """What a provider keeps in its cache is a beginning; pruning must not spoil it in each step."""
    messages = earlier(*results)
    places = [at for at, message in enumerate(messages) if message.role == "assistant"]
    requests = [pruned(messages[:place], frame, window) for place in (*places, len(messages))]
    saved, blocks = 0, 0
    for before, now in pairwise(requests):
        assert now.left_out >= before.left_out
        if now.messages[: len(before.messages)] == before.messages:
            assert now.left_out == before.left_out
            continue
        whole = sizes.of_messages(now.messages[: len(before.messages)])
        block = sizes.of_messages(before.messages) - whole
        assert block >= window * limits.PRUNE_LEAST_SHARE
        saved, blocks = saved + block, blocks + 1
    assert saved == sizes.of_messages(messages) - sizes.of_messages(requests[-1].messages)
    assert blocks <= sizes.of_messages(messages) / (window * limits.PRUNE_LEAST_SHARE)
    for request in requests:
        _is_what_it_says(request, frame)


def _is_what_it_says(request: Pruned, frame: int) -> None:
    assert request.tokens == frame + sizes.of_messages(request.messages)
    assert is_valid(request.messages)
    tail = outputs(request.messages)[-(limits.PRUNE_KEPT_STEPS - 1) :]
    assert "-" not in tail


async def test_a_turn_leaves_old_output_out_and_says_so_before_it_summarises() -> None:
    """R63, R-COMPACT: an event with the size before and after; what is stored stays whole."""
    model = Windowed(steps=8)
    taken, journal = windowed(model, looking(*[1_800] * 8))
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert journal.summaries == []
    assert model.refused == []
    assert len(journal.prunings) == 2
    for before, after in journal.prunings:
        assert before - after >= WINDOW * limits.PRUNE_LEAST_SHARE
    sent = [outputs(request.messages) for request in model.requests]
    assert [shown.count("-") for shown in sent] == [0, 0, 0, 0, 0, 0, 3, 3, 5]
    stored = [part.content for message in journal.messages() for part in message.tool_results()]
    assert all(len(content) > 1_800 for content in stored)


async def test_what_a_run_left_out_the_next_one_leaves_out_without_a_word() -> None:
    """The session's count speaks of what was sent."""
    history = earlier(*[1_800] * 7)
    before = pruned(history[:-1], 0, WINDOW)
    assert before.left_out == 3
    model = Windowed(steps=0)
    counted = before.tokens + 10
    taken, journal = windowed(model, history=history, fullness=Fullness(WINDOW, counted, 3))
    assert (await taken.take()).outcome is Outcome.COMPLETED
    assert (journal.prunings, journal.summaries) == ([], [])
    assert outputs(model.requests[0].messages).count("-") == 3


async def test_where_nothing_may_be_left_out_all_is_sent() -> None:
    """R-COMPACT: `--no-compact` is honoured on every path."""
    named: dict[str, Any] = {"fullness": Fullness(0, allowed=False)}
    model = Windowed(steps=6, window=100_000)
    taken, journal = windowed(model, looking(*[1_800] * 6), **named)
    await taken.take()
    assert outputs(model.requests[-1].messages) == ["1801"] * 6
    assert journal.prunings == []
