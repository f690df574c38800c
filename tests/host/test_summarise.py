"""Automatic summaries inside a run, and what later runs see of them: the host in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelInfo,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.host.editing import edit
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.messages import FinishPart, Message
from crush_trio.protocol.runs import Limits, Outcome, RunRecord, Usage
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import StoredEvent
from crush_trio.store.memory import MemoryStore
from tests.host import fakes
from tests.host.fakes import FakeTool
from tests.host.world import ME, World, change, next_start, payload, quiet


@pytest.fixture
async def small(world: World) -> World:
    """A world whose model has a window of 4,096 tokens; "fill" fills it in its first step."""

    async def look(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    async def fill(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta(f"step {request.step}"))
        emit(ToolCallStart(f"c{request.step}", "look"))
        emit(ToolCallEnd(f"c{request.step}", "{}"))
        return StepEnd("tool_use", Usage(4000, 5))

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake.info = ModelInfo("fake", "m", context_window=4096, cost_per_1m_in=1.0,
                                    cost_per_1m_out=2.0)  # fmt: skip
    world.kit.fake.acts["fill"] = fill
    return world


async def session_of(world: World) -> Session:
    """The stored session."""
    found = await world.store.session(world.session.id)
    assert found is not None
    return found[1]


def shown(request: ModelRequest) -> list[str]:
    """What a model was shown."""
    return [message.text() for message in request.messages]


async def test_a_run_is_summarised_in_the_middle_and_ends_once(
    clock: MockClock, small: World
) -> None:
    """R63, R64, G1: it says what it waits for, and later runs begin with the summary."""
    run = small.submit("fill")
    await trio.sleep(0.2)
    assert (await small.record(run.id)).waiting_on == "summarize"
    live = small.session.live_message()
    assert live is not None
    assert live.is_summary_message
    (record,) = await small.ended(run)
    assert (record.outcome, record.steps) == (Outcome.COMPLETED, 3)
    assert record.usage == Usage(4000 + 100 + 10, 5 + 20 + 5)
    assert record.cost_usd == pytest.approx((4110 + 2 * 30) / 1e6)
    assert record.text.startswith("answer to The previous session was interrupted")
    session = await session_of(small)
    assert session.cost == pytest.approx(record.cost_usd)
    assert (session.prompt_tokens, session.completion_tokens) == (10, 5)
    (summary,) = [m for m in await small.messages() if m.is_summary_message]
    assert session.summary_message_id == summary.id
    assert summary.run_id == run.id
    events = [e for e in await small.events() if e.kind == "agent_event"]
    told = [payload(e) for e in events]
    assert [e["type"] for e in told] == ["summarize", "agent_finished"]
    assert told[0]["tokens_before"] == 4005 + 4 + 1, "the result of the tool, too"
    assert told[0]["tokens_after"] == 20
    pointed = [e for e in await small.events() if payload(e).get("summary_message_id")]
    finished = next(
        e
        for e in await small.events()
        if e.kind == "message" and payload(e)["id"] == summary.id and change(e) == "updated"
    )
    assert pointed[0].ts_ms == finished.ts_ms
    assert pointed[0].seq - finished.seq <= 2, "one commit"
    await small.ended(small.submit("next"))
    assert shown(small.kit.fake.requests[-1])[0] == "summary of 3"
    assert "fill" not in shown(small.kit.fake.requests[-1])[0]


async def fails(request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a little, then break off."""
    emit(TextDelta("half a"))
    raise ModelError("truncated", "It broke off.", title="Truncated")


@pytest.mark.parametrize("when", ["storing", "asking", "streaming", "whole"])
async def test_a_cancel_during_a_summary_ends_the_run_and_leaves_none(
    clock: MockClock, small: World, when: str
) -> None:
    """G4, W11: it never goes on; the summary goes with the terminal transaction."""

    async def whole(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("whole"))
        small.session.cancel(ME)
        return StepEnd("end_turn", Usage(10, 5))

    acts = {"storing": fakes.hang, "asking": fakes.silent, "streaming": fakes.hang, "whole": whole}
    small.kit.fake.acts["SUMMARY"] = acts[when]
    run = small.submit("fill")
    if when != "whole":
        with trio.fail_after(5):
            while not _is_summary(small):  # noqa: ASYNC110  # nothing tells that it has begun
                await trio.sleep(0.001)
        await trio.sleep(0.2 if when != "storing" else 0)
        small.session.cancel(ME)
    (record,) = await small.ended(run)
    assert record.outcome is Outcome.CANCELLED
    assert len(small.kit.fake.requests) <= 2, "nothing was asked after the cancel"
    session = await session_of(small)
    summaries = [m for m in await small.messages() if m.is_summary_message]
    assert [m.id for m in summaries] == [m for m in [session.summary_message_id] if m]
    assert summaries == [], "the cancel came before the commit"
    last = (await small.messages())[-1]
    assert last.finish() is not None
    assert last.finish().reason == "canceled"  # type: ignore[union-attr]
    ends = [e for e in await small.events() if e.run_id == run.id]
    assert ends[-1].kind == "run_complete"
    await small.ended(small.submit("next", compact=False))


async def test_a_cancel_after_a_summary_ends_the_run_and_keeps_the_whole_one(
    clock: MockClock, small: World
) -> None:
    """G4, I18: what was committed counts; the session is not full any more."""
    original, token = small.journal, trio.lowlevel.current_trio_token()

    class Watching:
        def publish(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
            original.publish(workspace_id, events)
            if any(e.kind == "agent_event" for e in events) and small.session.queue.current:
                token.run_sync_soon(small.session.cancel, ME)

    small.journal = Watching()  # type: ignore[assignment]
    (record,) = await small.ended(small.submit("fill"))
    assert record.outcome is Outcome.CANCELLED
    session = await session_of(small)
    (summary,) = [m for m in await small.messages() if m.is_summary_message]
    assert session.summary_message_id == summary.id
    assert (session.prompt_tokens, session.completion_tokens) == (0, 20)


def _is_summary(world: World) -> bool:
    live = world.session.live_message()
    return live is not None and live.is_summary_message


async def test_a_summary_that_fails_ends_the_run_with_its_error(
    clock: MockClock, small: World
) -> None:
    """R65: finish error, no pointer; the answer so far stays the run's."""
    small.kit.fake.acts["SUMMARY"] = fails
    (record,) = await small.ended(small.submit("fill"))
    assert record.error is not None
    assert (record.outcome, record.error.code, record.text) == (
        Outcome.FAILED,
        "truncated",
        "step 1",
    )
    last = (await small.messages())[-1]
    assert last.is_summary_message
    assert last.text() == "half a"
    finish = last.finish()
    assert finish is not None
    assert (finish.reason, finish.message) == ("error", "Summarization Error")
    assert (await session_of(small)).summary_message_id == ""
    small.kit.fake.acts.pop("SUMMARY")
    await small.ended(small.submit("next", compact=False))
    assert "half a" not in shown(small.kit.fake.requests[-1]), "no half summary is shown"


async def test_what_switches_it_off(clock: MockClock, small: World) -> None:
    """R63: the prompt's `compact`, the configuration, a window nobody knows."""
    fill = small.kit.fake.acts["fill"]

    async def twice(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step < 3:
            return await fill(request, emit)
        return StepEnd("end_turn", Usage(4000, 5))

    small.kit.fake.acts["fill"] = twice
    for off in ("prompt", "configuration", "window"):
        small.kit.auto_summarize = off != "configuration"
        if off == "window":
            small.kit.fake.info = attrs.evolve(small.kit.fake.info, context_window=0)
        await small.ended(small.submit("fill", compact=False if off == "prompt" else None))
    assert not [r for r in small.kit.fake.requests if r.summary]


async def test_a_kill_during_a_summary_leaves_no_pointer_to_half_of_it(
    clock: MockClock, small: World
) -> None:
    """G2, I18: the run is lost, its transcript valid, and the next run sees the whole history."""
    small.kit.fake.acts["SUMMARY"] = fakes.hang
    run = small.submit("fill")
    await trio.sleep(1.5)
    for marked in (False, True):
        if marked:
            await small.session.cancel(ME, run.id).wait()
        async with next_start(small) as after:
            record = await after.record(run.id)
            assert record.outcome is (Outcome.CANCELLED if marked else Outcome.LOST)
            stored = await after.store.messages(small.session.id)
            assert [m.is_summary_message for m in stored][-1] is not marked or marked
            if not marked:
                assert record.text == "step 1", "the summary is not the answer"
                assert stored[-1].text() == "so far"
            found = await after.store.session(small.session.id)
            assert found is not None
            assert found[1].summary_message_id == ""


async def test_the_sessions_counts_decide_before_the_first_step(
    clock: MockClock, small: World
) -> None:
    """R63: a prompt after a full turn; the prompt itself is shown as it was written."""

    async def full(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("long"))
        return StepEnd("end_turn", Usage(4000, 5))

    small.kit.fake.acts["full"] = full
    await small.ended(small.submit("full"))
    (record,) = await small.ended(small.submit("next"))
    assert (record.steps, record.text) == (2, "answer to next")
    assert shown(small.kit.fake.requests[-1]) == ["summary of 2", "next"]
    await small.ended(small.submit("third"))
    assert shown(small.kit.fake.requests[-1]) == ["summary of 2", "next", "answer to next", "third"]


async def test_what_was_moved_behind_a_summary_is_not_lost_from_the_history(
    clock: MockClock, small: World
) -> None:
    """I18, G7: messages are ordered by acceptance; a summary says which runs it does not cover."""
    small.kit.fake.acts["hang"] = fakes.hang
    await small.ended(small.submit("hello"))
    hang, early = small.submit("hang"), small.submit("early")
    summary = small.submit("", kind="summarize")
    await quiet()
    await edit(small.session, summary.id, None, 0).wait()
    small.session.cancel(ME, hang.id)
    await small.ended(hang, early, summary, small.submit("last"))
    texts = shown(small.kit.fake.requests[-1])
    assert texts[0].startswith("summary of ")
    assert texts[1:] == ["early", "answer to early", "last"]
    messages: tuple[Message, ...] = await small.messages()
    assert [m.text() for m in messages if m.run_id == early.id] == ["early", "answer to early"]
    (whole,) = [m for m in messages if m.is_summary_message]
    assert whole.leaves_out == (early.id,)
    assert isinstance(whole.parts[-1], FinishPart)


async def test_no_call_gets_the_id_of_one_behind_a_summary(clock: MockClock, small: World) -> None:
    """G7: models number their calls, and do not see those that were summarised."""

    async def look(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 2:
            emit(TextDelta("done"))
            return StepEnd("end_turn", Usage(10, 5))
        emit(ToolCallStart("c1", "look"))
        emit(ToolCallEnd("c1", "{}"))
        return StepEnd("tool_use", Usage(4000, 5))

    small.kit.fake.acts |= {"look": look, "The": look}
    await small.ended(small.submit("look"), small.submit("look"))
    messages = await small.messages()
    assert sum(message.is_summary_message for message in messages) == 4
    ids = [call.id for message in messages for call in message.tool_calls()]
    assert ids == ["c1", "c1_2", "c1_3", "c1_4"]


async def test_what_was_moved_behind_and_then_folded_in_is_covered_by_the_summary(
    clock: MockClock, small: World
) -> None:
    """G7: it is not shown a second time, as if nobody had answered it."""
    begun, go_on = trio.Event(), trio.Event()

    async def work(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step == 3:
            emit(TextDelta("done"))
            return StepEnd("end_turn", Usage(10, 5))
        begun.set()
        await go_on.wait()
        emit(ToolCallStart(f"c{request.step}", "look"))
        emit(ToolCallEnd(f"c{request.step}", "{}"))
        return StepEnd("tool_use", Usage(10 if request.step == 1 else 4000, 5))

    small.kit.fake.acts |= dict.fromkeys(("work", "moved", "The"), work)
    small.kit.fake.acts["hang"] = fakes.hang
    hang = small.submit("hang")
    moved = small.submit("moved", if_busy="steer", compact=True)
    run = small.submit("work", compact=True)
    await quiet()
    await edit(small.session, run.id, None, 0).wait()
    small.session.cancel(ME, hang.id)
    await begun.wait()
    go_on.set()
    (record, _) = await small.ended(moved, run)
    assert record.steered_into == run.id
    await small.ended(small.submit("last"))
    assert shown(small.kit.fake.requests[-1])[1:] == ["done", "last"]


async def test_a_summary_that_is_asked_for_again_with_less_does_not_wait_for_a_retry(
    clock: MockClock, small: World
) -> None:
    said: list[str | None] = []

    async def too_long_once(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step == 1:
            raise ModelError("context_too_long", "too long")
        await trio.sleep(1)
        said.append((await small.record("r2")).waiting_on)
        emit(TextDelta("short"))
        return StepEnd("end_turn")

    small.kit.fake.acts["SUMMARY"] = too_long_once
    await small.ended(small.submit("hello"), small.submit("", kind="summarize"))
    assert said == ["summarize"]


async def test_what_was_moved_behind_a_summary_is_left_out_after_a_restart_too(
    clock: MockClock, small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G2, G7: also when the next server needs a while to read the sessions of others."""
    small.kit.fake.acts["hang"] = fakes.hang
    other = await small.new_session()
    small.submit("hang")
    between = small.submit("between")
    small.submit("hang", session=other)
    small.submit("theirs", session=other)
    late, summary = small.submit("late"), small.submit("", kind="summarize")
    await quiet()
    await edit(small.session, summary.id, None, 1).wait()
    await small.session.cancel(ME, between.id).wait()
    read = MemoryStore.session

    async def slowly(
        store: MemoryStore, session_id: SessionId
    ) -> tuple[WorkspaceId, Session] | None:
        await trio.sleep(0.1)
        return await read(store, session_id)

    monkeypatch.setattr(MemoryStore, "session", slowly)
    async with next_start(small) as after:
        await after.all_ended()
        messages = await after.store.messages(small.session.id)
        (whole,) = [m for m in messages if m.is_summary_message]
        assert whole.leaves_out == (late.id,)


async def covers_of(world: World, session_id: SessionId) -> tuple[str, ...]:
    """What the session's summary covers behind it."""
    found = await world.store.session(session_id)
    assert found is not None
    messages = await world.store.messages(session_id)
    return next(m.covers for m in messages if m.id == found[1].summary_message_id)


async def test_what_was_moved_ahead_of_a_summary_is_not_shown_again(
    clock: MockClock, small: World
) -> None:
    """G7, I18: it stands behind the summary that tells of it; also for the next server."""
    small.kit.fake.acts["hang"] = fakes.hang
    hang, run = small.submit("hang"), small.submit("fill")
    ahead, gone = small.submit("ahead"), small.submit("gone")
    await quiet()
    await edit(small.session, ahead.id, None, 0).wait()
    await small.session.cancel(ME, gone.id).wait()
    small.session.cancel(ME, hang.id)
    await small.ended(ahead, run)
    asked = next(r for r in small.kit.fake.requests if r.summary)
    assert {"ahead", "answer to ahead", "gone"} <= set(shown(asked))
    assert await covers_of(small, small.session.id) == (ahead.id, gone.id)
    async with next_start(small) as after:
        session = await after.workspace.session(small.session.id)
        await after.ended(after.submit("last", session=session, run_id="next"))
        seen = shown(after.kit.fake.requests[-1])
    await small.ended(small.submit("last"))
    assert shown(small.kit.fake.requests[-1]) == seen
    assert [seen[0], seen[-1]] == ["summary of 8", "last"]
    assert len(seen) == 3, "in between is what the run answered after its summary"
    assert seen[1].startswith("answer to The previous session was interrupted")


async def test_a_summary_by_hand_covers_what_was_moved_ahead_of_it_after_a_restart_too(
    clock: MockClock, small: World
) -> None:
    """G2, G7: the order in which runs go is kept, and so is what the summary was shown."""
    small.kit.fake.acts["hang"] = fakes.hang
    small.submit("hang")
    summary, ahead = small.submit("", kind="summarize"), small.submit("ahead")
    await quiet()
    await edit(small.session, ahead.id, None, 0).wait()
    async with next_start(small) as after:
        await after.all_ended()
        assert (await after.record(summary.id)).outcome is Outcome.COMPLETED
        assert await covers_of(after, small.session.id) == (ahead.id,)
        session = await after.workspace.session(small.session.id)
        await after.ended(after.submit("last", session=session, run_id="next"))
        assert shown(after.kit.fake.requests[-1]) == ["summary of 3", "last"]


async def test_what_is_cancelled_while_a_summary_is_written_is_not_covered_by_it(
    clock: MockClock, small: World
) -> None:
    """G7: its text was not shown to the model that wrote the summary."""
    await small.ended(small.submit("hello"))
    summary, late = small.submit("", kind="summarize"), small.submit("late")
    await trio.sleep(0.2)
    await small.session.cancel(ME, late.id).wait()
    await small.ended(summary, small.submit("last"))
    assert await covers_of(small, small.session.id) == ()
    assert shown(small.kit.fake.requests[-1])[1] == "late"


async def test_a_second_summary_covers_what_the_first_one_covered(
    clock: MockClock, small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G7: both were written after it, and it stands behind the second one alone."""
    monkeypatch.setattr(limits, "LATER_RUNS_PAGE", 2)
    small.kit.fake.acts["hang"] = fakes.hang
    hang, second, a = small.submit("hang"), small.submit("", kind="summarize"), small.submit("a")
    first, b = small.submit("", kind="summarize"), small.submit("b")
    await quiet()
    await edit(small.session, second.id, None, 3).wait()
    small.session.cancel(ME, hang.id)
    await small.ended(a, first, b, second)
    assert await covers_of(small, small.session.id) == (a.id, first.id, b.id)
    await small.ended(small.submit("last"))
    assert shown(small.kit.fake.requests[-1]) == ["summary of 3", "last"]


async def test_runs_that_summarise_nothing_do_not_look_for_what_was_moved_ahead(
    clock: MockClock, small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    read = MemoryStore.runs

    async def counted(store: MemoryStore, **named: Any) -> tuple[RunRecord, ...]:
        asked.append(named["session_id"])
        return await read(store, **named)

    monkeypatch.setattr(MemoryStore, "runs", counted)
    await small.ended(small.submit("", kind="summarize"), small.submit("hello"))
    assert asked == []
    await small.ended(small.submit("", kind="summarize"))
    assert asked == [small.session.id]
    monkeypatch.undo()


async def test_a_summary_run_that_reaches_a_limit_leaves_the_pointer(
    clock: MockClock, small: World
) -> None:
    """Contract 3, limits; R65."""
    await small.ended(small.submit("hello"))
    small.kit.fake.acts["SUMMARY"] = fakes.hang
    (record,) = await small.ended(
        small.submit("", kind="summarize", limits=Limits(idle_timeout_s=3))
    )
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.LIMITED, "idle_timeout")
    last = (await small.messages())[-1]
    assert (last.is_summary_message, last.text(), record.text) == (True, "so far", "so far")
    assert (await session_of(small)).summary_message_id == ""
