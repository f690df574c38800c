"""``script/<file>`` plays what its file says: pieces, pace, faults and the choice of the step."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio

from crush_trio import limits
from crush_trio.agent.ports import (
    ModelError,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.models.script import ENDED
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import Usage
from tests.models.kit import play, request, script, script_of, text_of, user


async def test_text_comes_whole_or_cut_into_pieces() -> None:
    events, end = await play(
        script({"text": "hello"}, {"text": "world!", "piece_chars": 4}), request()
    )
    assert events == [TextDelta("hello"), TextDelta("worl"), TextDelta("d!")]
    assert end == StepEnd("end_turn", None, None)


async def test_a_thought_ends_with_its_signature() -> None:
    model = script({"reasoning": "hmm", "signature": "s1", "piece_chars": 2}, {"text": "ok"})
    events, _ = await play(model, request())
    assert events == [
        ReasoningDelta("hm"),
        ReasoningDelta("m"),
        ReasoningEnd("s1"),
        TextDelta("ok"),
    ]


async def test_several_tool_calls_of_one_step_have_different_ids_and_end_it_with_tool_use() -> None:
    model = script(
        {"tool": "view", "input": {"file_path": "a"}, "piece_chars": 10},
        {"tool": "ls"},
        {"tool": "bash", "raw_input": '{"command": ', "id": "mine"},
    )
    events, end = await play(model, request())
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    ends = [event for event in events if isinstance(event, ToolCallEnd)]
    assert [start.name for start in starts] == ["view", "ls", "bash"]
    assert len({start.id for start in starts}) == 3
    assert starts[2].id == "mine"
    assert [end.input for end in ends] == ['{"file_path":"a"}', "{}", '{"command": ']
    assert [start.id for start in starts] == [end.id for end in ends]
    pieces = [e.text for e in events if isinstance(e, ToolInputDelta) and e.id == starts[0].id]
    assert pieces == ['{"file_pat', 'h":"a"}']
    assert end.reason == "tool_use"


async def test_call_ids_differ_between_runs_and_steps_and_agree_when_asked_again() -> None:
    model = script_of({"actions": [{"tool": "ls"}]}, then="repeat")

    async def call_id(run: str, step: int) -> str:
        events, _ = await play(model, request(step=step, run_id=RunId(run)))
        start = events[0]
        assert isinstance(start, ToolCallStart)
        return start.id

    ids = [await call_id(run, step) for run in ("a", "b") for step in (1, 2)]
    assert len(set(ids)) == 4
    assert await call_id("a", 2) == ids[1]


async def test_usage_cost_and_finish_are_what_the_step_says() -> None:
    model = script(
        {"text": "x"},
        usage={"input_tokens": 3, "output_tokens": 5, "cache_read_tokens": 7},
        cost_usd=0.5,
        finish="max_tokens",
    )
    _, end = await play(model, request())
    assert end == StepEnd("max_tokens", Usage(3, 5, 7, 0), 0.5)


async def test_paced_pieces_keep_to_their_beat_although_the_listener_is_late(
    autojump_clock: trio.testing.MockClock,
) -> None:
    times: list[float] = []
    start = trio.current_time()

    def emit(_: ModelEvent) -> None:
        times.append(trio.current_time() - start)

    await script({"wait_ms": 500}, {"text": "a", "tokens": 4, "every_ms": 20}).stream(
        request(), emit
    )
    assert times == pytest.approx([0.5, 0.52, 0.54, 0.56])


async def test_a_reset_waits_its_delay_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    model = script(
        {"text": "lost"},
        {"reset": "status 429", "attempt": 2, "max_attempts": 5, "delay_ms": 3000},
        {"text": "kept"},
    )
    start = trio.current_time()
    events, _ = await play(model, request())
    assert events == [TextDelta("lost"), StreamReset(2, 5, 3.0, "status 429"), TextDelta("kept")]
    assert trio.current_time() - start == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("fault", "code", "retryable", "title"),
    [
        (
            {"error": "Too busy.", "code": "overloaded", "retryable": True, "title": "Busy"},
            "overloaded",
            True,
            "Busy",
        ),
        ({"error": "No."}, "provider_error", False, "Provider Error"),
        ({"cut": True}, "truncated", True, "Provider Error"),
    ],
)
async def test_a_fault_ends_the_step_with_its_own_error_after_what_came_before(
    fault: dict[str, Any], code: str, retryable: bool, title: str
) -> None:
    events: list[ModelEvent] = []
    with pytest.raises(ModelError) as caught:
        await script({"text": "partial"}, fault).stream(request(), events.append)
    assert events == [TextDelta("partial")]
    assert (caught.value.code, caught.value.retryable, caught.value.title) == (
        code,
        retryable,
        title,
    )


async def test_silence_lasts_until_it_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    events: list[ModelEvent] = []
    with trio.move_on_after(1_000_000) as scope:
        await script({"text": "and then"}, {"silence": True}).stream(request(), events.append)
    assert scope.cancelled_caught
    assert events == [TextDelta("and then")]


async def test_many_tokens_let_other_tasks_run_in_between() -> None:
    seen: list[int] = []
    count = 0

    def emit(_: ModelEvent) -> None:
        nonlocal count
        count += 1

    async def watch() -> None:
        while True:
            seen.append(count)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await script({"text": "word ", "tokens": 1000}).stream(request(), emit)
        nursery.cancel_scope.cancel()
    longest = max(after - before for before, after in pairwise([*seen, count]))
    # Trio shuffles the tasks of a round, so the watcher may be last in one and first in the next.
    assert longest <= 2 * limits.SCRIPT_CHECKPOINT_PIECES
    assert count == 1000


async def test_an_endless_script_can_be_cancelled_between_two_tokens() -> None:
    count = 0
    with trio.CancelScope() as scope:

        def emit(_: ModelEvent) -> None:
            nonlocal count
            count += 1
            if count == 100:
                scope.cancel()

        await script({"text": "x", "tokens": limits.SCRIPT_TOKENS_MAX}).stream(request(), emit)
    assert scope.cancelled_caught
    assert count <= 100 + limits.SCRIPT_CHECKPOINT_PIECES


async def test_a_token_costs_few_microseconds() -> None:
    model, asked, count = script({"text": "word ", "tokens": 50_000}), request(), 0

    def emit(_: ModelEvent) -> None:
        nonlocal count
        count += 1

    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        await model.stream(asked, emit)
        best = min(best, time.thread_time() - start)
    assert count == 250_000
    # 23,000 tokens a second through the whole server leave 43 µs for each; a tenth is for us.
    assert best / 50_000 < 4e-6


async def test_the_nth_request_of_a_run_plays_the_nth_step() -> None:
    model = script_of({"actions": [{"text": "one"}]}, {"actions": [{"text": "two"}]})
    for step, text in ((1, "one"), (2, "two"), (1, "one")):
        events, _ = await play(model, request(step=step))
        assert text_of(events) == text


async def test_a_script_that_runs_out_fails_unless_it_says_otherwise() -> None:
    steps: list[dict[str, Any]] = [{"actions": [{"text": "one"}]}, {"actions": [{"text": "two"}]}]
    with pytest.raises(ModelError) as caught:
        await play(script_of(*steps), request(step=3))
    assert caught.value.code == "script_exhausted"
    assert "/scripts/demo.json has 2 steps" in caught.value.message
    ended = [TextDelta(ENDED)], StepEnd("end_turn")
    assert await play(script_of(*steps, then="end"), request(step=3)) == ended
    events, _ = await play(script_of(*steps, then="repeat"), request(step=4))
    assert text_of(events) == "two"
    with pytest.raises(ModelError, match="has 0 steps"):
        await play(script_of(then="repeat"), request())


async def test_steps_are_chosen_by_what_the_prompt_is_contains_and_counts() -> None:
    model = script_of(
        {"when": {"prompt_contains": "weather"}, "actions": [{"text": "sunny"}]},
        {"when": {"prompt_is": "time?"}, "actions": [{"text": "noon"}]},
        {"when": {"prompt_number": 2, "prompt_contains": "more"}, "actions": [{"text": "second"}]},
        {"actions": [{"text": "always"}]},
    )
    first = user("hello", RunId("earlier"))
    for asked, text in (
        (request(user("the weather?")), "sunny"),
        (request(user("the weather?"), step=2), "always"),
        (request(user("time?")), "noon"),
        (request(user("time? now")), "always"),
        (request(user("more")), "always"),
        (request(first, user("more")), "second"),
    ):
        events, _ = await play(model, asked)
        assert text_of(events) == text


async def test_a_prompt_steered_into_the_run_does_not_change_the_steps() -> None:
    model = script_of(
        {"when": {"prompt_contains": "first"}, "actions": [{"text": "one"}]},
        {"when": {"prompt_contains": "first"}, "actions": [{"text": "two"}]},
    )
    events, _ = await play(model, request(user("first"), user("wait", RunId("other")), step=2))
    assert text_of(events) == "two"


async def test_the_model_says_of_itself_what_the_file_says() -> None:
    info = script_of(model={"name": "demo", "context_window": 9, "cost_per_1m_in": 1.5}).info
    assert (info.provider, info.model, info.name) == ("script", "/scripts/demo.json", "demo")
    assert (info.context_window, info.cost_per_1m_in, info.cost_per_1m_out) == (9, 1.5, None)
    assert script_of().info.name == "demo"


async def test_a_title_is_answered_only_if_the_script_has_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """CW 5.12."""
    assert script().titler() is None
    numbers = {"input_tokens": 3, "output_tokens": 2}
    titler = script_of(title={"text": "A name", "delay_ms": 500, "usage": numbers}).titler()
    assert titler is not None
    events, end = await play(titler, request())
    assert (text_of(events), end) == ("A name", StepEnd("end_turn", Usage(3, 2)))
    assert trio.current_time() == pytest.approx(0.5)
    broken = script_of(title={"error": "Too busy."}).titler()
    assert broken is not None
    with pytest.raises(ModelError, match="Too busy"):
        await play(broken, request())
    silent = script_of(title={"silence": True}).titler()
    assert silent is not None
    with trio.move_on_after(1e6) as scope:
        await play(silent, request())
    assert scope.cancelled_caught


async def test_a_summary_is_played_from_its_own_steps_and_counted_by_itself() -> None:
    """R65: the n-th request for one gets the n-th, further ones the last."""
    model = script_of(
        {"actions": [{"text": "step"}]},
        summary=[{"actions": [{"text": "first"}]}, {"actions": [{"text": "last"}]}],
    )
    for number, text in [(1, "first"), (2, "last"), (9, "last")]:
        asked = attrs.evolve(request(step=number), summary=True)
        assert text_of((await play(model, asked))[0]) == text
    assert text_of((await play(model, request()))[0]) == "step"
    with pytest.raises(ModelError, match="summary"):
        await play(script(), attrs.evolve(request(), summary=True))


async def test_a_summary_among_the_messages_is_not_counted_as_a_prompt() -> None:
    """R64: `prompt_number` speaks of what people wrote."""
    shown = attrs.evolve(user("what was said", run_id=None), is_summary_message=True)
    second = {"actions": [{"text": "second"}], "when": {"prompt_number": 2}}
    model = script_of(second, {"actions": [{"text": "first"}], "when": {"prompt_number": 1}})
    assert text_of((await play(model, request(shown, user("go"))))[0]) == "first"


async def test_a_sub_agent_plays_its_own_steps_and_nobody_else_does() -> None:
    """CW 7.5: its task is the prompt that `when` speaks of."""
    model = script_of(
        {"actions": [{"text": "mine"}]},
        sub_agents=[{"actions": [{"text": "found"}], "when": {"prompt_contains": "parser"}}],
    )
    asked = attrs.evolve(request(user("the parser")), sub_agent=True)
    assert text_of((await play(model, asked))[0]) == "found"
    assert text_of((await play(model, attrs.evolve(asked, sub_agent=False)))[0]) == "mine"
    for wrong, given in ((request(user("other")), model), (asked, script({"text": "mine"}))):
        with pytest.raises(ModelError, match="0 sub_agents for this prompt"):
            await play(given, attrs.evolve(wrong, sub_agent=True))
