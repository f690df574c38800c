"""Cancel in every window: the receipt, the record, the last event, the transcript, what follows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelRequest,
    PermissionAsk,
    StepEnd,
    TextDelta,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.transcript import is_valid
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import CancelledBy, CoveredRun, Limits, Outcome, RunState
from tests.host import fakes
from tests.host.cancel_windows import NO_ANSWER, WINDOWS, Opener, Window, hand_over, story
from tests.host.fakes import Gate, ask_for
from tests.host.world import World, next_start, payload, quiet

PROMPTER = CancelledBy("me", "prompter")
OTHER = CancelledBy("somebody", "other")


async def of_run(world: World, run: OpenRun) -> tuple[Message, ...]:
    """The messages a run has left."""
    return tuple(m for m in await world.messages() if m.run_id == run.id)


async def check_cancelled(world: World, window: Window, by: CancelledBy) -> None:
    """Record, last event and transcript say the same, literally."""
    record = await world.record(window.run.id)
    assert (record.state, record.outcome) == (RunState.FINISHED, Outcome.CANCELLED)
    assert (record.error, record.waiting_on, record.cancelled_by) == (None, None, by)
    messages = await of_run(world, window.run)
    assert story(messages) == window.story
    last = next(m for m in reversed(messages) if m.role == "assistant")
    assert (record.message_id, record.text) == (last.id, last.text())
    (end,) = [
        payload(e)
        for e in await world.events()
        if e.kind == "run_complete" and e.run_id == window.run.id
    ]
    assert end == {
        "session_id": window.run.session_id,
        "run_id": window.run.id,
        "outcome": "cancelled",
        "message_id": last.id,
        "error": "context canceled",
        "cancelled": True,
        "usage": end["usage"],
        "processes": end["processes"],
    } | ({"text": last.text()} if last.text() else {})
    shown = [
        payload(e)["parts"]
        for e in await world.events()
        if e.run_id == window.run.id and e.kind == "message" and payload(e)["id"] == last.id
    ]
    finishes = [
        part["data"]["reason"] for parts in shown for part in parts if part["type"] == "finish"
    ]
    assert finishes == ["canceled"], "nobody is shown an ending that was not"
    notices = [e for e in await world.events() if e.kind == "agent_event"]
    assert window.run.id not in {e.run_id for e in notices}, "R47: no error for the prompter"


async def check_next(world: World) -> None:
    """One more prompt is answered, and what its model is sent is valid."""
    after = world.submit("after")
    (record,) = await world.ended(after)
    assert record.outcome is Outcome.COMPLETED
    sent = world.kit.fake.requests[-1].messages
    assert is_valid(sent)
    prompts = [m.text() for m in await world.messages() if m.role == "user"]
    assert [m.text() for m in sent if m.role == "user"] == prompts
    assert all(m.text() or m.tool_calls() for m in sent if m.role == "assistant")


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_cancelled_run_ends_in_every_window_and_the_next_one_starts(
    clock: MockClock, world: World, window: Opener
) -> None:
    """G1, G4, G5, G7, R52, R53, R54, R55: by its prompter, and again by somebody else."""
    opened = await window(world)
    follower = world.submit("follower")
    began = trio.current_time()
    ticket = world.session.cancel(PROMPTER, opened.run.id)
    again = world.session.cancel(OTHER, opened.run.id)
    world.store.resume()
    receipt = (await ticket.wait()).value
    assert receipt.runs == (CoveredRun(opened.run.id, opened.was),)
    assert (receipt.too_late, receipt.watermark) == ((), follower.row.record.accept_seq)
    second = (await again.wait()).value
    assert second.runs == (receipt.runs if opened.was == "running" else ())
    await opened.run.ended.wait()
    assert trio.current_time() - began <= 3
    for each in opened.before:
        world.session.cancel(OTHER, each.id)
    (followed,) = await world.ended(follower)
    assert followed.outcome is Outcome.COMPLETED
    await check_cancelled(world, opened, PROMPTER)
    await check_next(world)


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_cancelled_session_ends_what_is_open_in_every_window_and_no_more(
    clock: MockClock, world: World, window: Opener
) -> None:
    """G4, R44, R45, R47: by another client, and again by the prompter."""
    opened = await window(world)
    waiting = world.submit("waiting")
    began = trio.current_time()
    ticket = world.session.cancel(OTHER)
    later = world.submit("later")
    again = world.session.cancel(PROMPTER, waiting.id)
    world.store.resume()
    receipt = (await ticket.wait()).value
    too_late = opened.before if window is hand_over else ()
    running = () if window is hand_over else opened.before
    assert receipt.too_late == tuple(run.id for run in too_late)
    assert receipt.runs == (
        *(CoveredRun(run.id, "running") for run in running),
        CoveredRun(opened.run.id, opened.was),
        CoveredRun(waiting.id, "queued"),
    )
    assert receipt.watermark == waiting.row.record.accept_seq
    assert (await again.wait()).value.runs == ()
    await opened.run.ended.wait()
    assert trio.current_time() - began <= 3
    (record,) = await world.ended(later)
    assert record.outcome is Outcome.COMPLETED
    await check_cancelled(world, opened, OTHER)
    unheard = Window(waiting, [["user", "waiting", "stop: "], NO_ANSWER])
    await check_cancelled(world, unheard, OTHER)
    await check_next(world)


async def test_a_cancel_after_the_outcome_was_fixed_is_too_late(
    clock: MockClock, world: World
) -> None:
    """G4: twice; the answer stays as it was."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run = world.submit("gate")
    await gate.reached.wait()
    world.store.pause()
    gate.go.set()
    await quiet()
    tickets = [world.session.cancel(OTHER, run.id), world.session.cancel(PROMPTER)]
    world.store.resume()
    for ticket in tickets:
        receipt = (await ticket.wait()).value
        assert (receipt.runs, receipt.too_late) == ((), (run.id,))
    (record,) = await world.ended(run)
    assert (record.outcome, record.cancelled_by) == (Outcome.COMPLETED, None)
    assert story(await of_run(world, run))[1:] == [["assistant", "waited", "end_turn: "]]
    await check_next(world)


# --- whose doing it was -------------------------------------------------------------------


@pytest.mark.parametrize("first", ["error", "cancel"])
async def test_of_an_error_and_a_cancel_in_one_moment_the_first_decides(
    clock: MockClock, world: World, first: str
) -> None:
    """G4: failed, if its own error came first; the mark is kept in neither case but one."""

    async def fail_now(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("half"))
        if first == "cancel":
            world.session.cancel(PROMPTER)
        else:  # in the same moment, but afterwards
            trio.lowlevel.current_trio_token().run_sync_soon(world.session.cancel, PROMPTER)
        raise ModelError("overloaded", "The provider is overloaded.")

    world.kit.fake.acts["go"] = fail_now
    run, follower = world.submit("go"), world.submit("follower")
    await quiet()
    (record,) = await world.ended(run)
    assert run.run.mark == PROMPTER, "the cancel came before the ending"
    expected = Outcome.FAILED if first == "error" else Outcome.CANCELLED
    assert record.outcome is expected
    finish = (await of_run(world, run))[-1].finish()
    assert finish is not None
    assert finish.reason == ("error" if first == "error" else "canceled")
    await world.ended(follower)
    await check_next(world)


async def test_a_cancel_the_disk_has_no_room_for_acts_and_says_so(
    clock: MockClock, world: World
) -> None:
    """G2, G4: the answer promises nothing about a kill, and hides nothing."""
    world.kit.fake.acts["go"] = fakes.hang
    run, waiting = world.submit("go"), world.submit("waiting")
    await quiet()
    world.store.fail_next(StoreError("disk_full", "the disk is full"))
    ticket = world.session.cancel(PROMPTER)
    with pytest.raises(StoreError) as refused:
        await ticket.wait()
    assert refused.value.code == "disk_full"
    assert str(refused.value) == (
        "The runs were told to stop and end cancelled, but that is not stored yet: the disk is full"
    )
    for record in await world.ended(run, waiting):
        assert (record.outcome, record.cancelled_by) == (Outcome.CANCELLED, PROMPTER)
    world.store.fail_next(StoreError("disk_full", "the disk is full"))
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        await world.session.cancel(PROMPTER).wait()
    await check_next(world)


# --- hand-over ----------------------------------------------------------------------------


def cut_off(world: World) -> tuple[fakes.Act, Callable[[], object]]:
    """A run that is cancelled."""
    return fakes.hang, lambda: world.session.cancel(PROMPTER, RunId("r1"))


def refused(world: World) -> tuple[fakes.Act, Callable[[], object]]:
    """A run whose tool may not."""

    async def touch(context: ToolContext) -> ToolResult:
        ask = PermissionAsk("touch", "write", "", "/w", {}, "/w")
        decision = await context.permission(ask)
        return ToolResult(decision.reason, is_error=True, denied=not decision.allowed)

    world.kit.tools = (fakes.FakeTool("touch", touch),)
    return ask_for("touch"), lambda: None


def full_disk(world: World) -> tuple[fakes.Act, Callable[[], object]]:
    """A run whose terminal commit has to be made twice."""
    gate = Gate()

    def end() -> None:
        world.store.fail_next(StoreError("disk_full", "the disk is full"))
        gate.go.set()

    return gate, end


ENDINGS: dict[str, Callable[[World], tuple[fakes.Act | None, Callable[[], object]]]] = {
    "completed": lambda _: (None, lambda: None),
    "failed": lambda _: (fakes.broken, lambda: None),
    "limited": lambda _: (fakes.hang, lambda: None),
    "cancelled": cut_off,
    "denied": refused,
    "store": full_disk,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_after_every_ending_the_waiting_runs_start_in_the_order_of_acceptance(
    clock: MockClock, world: World, ending: str
) -> None:
    """G5: by one loop, without a gap, and each is told of what was before it."""
    act, end = ENDINGS[ending](world)
    if act is not None:
        world.kit.fake.acts["first"] = act
    first = world.submit("first", permission_mode="deny", limits=Limits(timeout_s=1))
    others = [world.submit(f"number {n}") for n in range(5)]
    await quiet()
    end()
    records = await world.ended(first, *others)
    expected = Outcome.COMPLETED if ending == "store" else Outcome(ending)
    assert [r.outcome for r in records] == [expected, *[Outcome.COMPLETED] * 5]
    asked = [fakes.prompt_of(r) for r in world.kit.fake.requests]
    assert list(dict.fromkeys(asked)) == ["first", *(f"number {n}" for n in range(5))]
    started = [record.first_seq for record in records]
    assert started == sorted(started)
    notices = [e for e in await world.events() if e.kind == "agent_event"]
    assert all(payload(e)["run_id"] == e.run_id for e in notices)
    errors = [e.run_id for e in notices if payload(e)["type"] == "error"]
    assert errors == ([first.id] if ending in ("failed", "limited") else [])
    await check_next(world)


async def test_after_a_lost_run_the_waiting_ones_start_in_the_order_of_acceptance(
    clock: MockClock, world: World
) -> None:
    """G2, G5."""
    world.kit.fake.acts["first"] = fakes.hang
    first = world.submit("first")
    others = [world.submit(f"number {n}") for n in range(5)]
    await others[-1].accepted.wait()
    await quiet()
    async with next_start(world) as after:
        await after.all_ended()
        records = [await after.record(run.id) for run in (first, *others)]
        assert [r.outcome for r in records] == [Outcome.LOST, *[Outcome.COMPLETED] * 5]
        asked = [fakes.prompt_of(r) for r in after.kit.fake.requests]
        assert asked == [f"number {n}" for n in range(5)]
        assert all(is_valid(r.messages) for r in after.kit.fake.requests)
    world.session.cancel(PROMPTER)
    await world.all_ended()
