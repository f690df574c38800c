"""Cancelling in every window, what it leaves, and what a bad disk does to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import ToolContext, ToolResult
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session_life import delete_session
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.runs import CancelledBy, Outcome
from crush_trio.store.contract import DuplicateRunError
from tests.host import fakes
from tests.host.fakes import FakeTool, Gate, ask_for
from tests.host.world import ME, World, payload, quiet

NO_ROOM = StoreError("disk_full", "no room")


async def accepted(world: World) -> OpenRun:
    """The commit is queued and no more."""
    world.store.pause()
    return world.submit("hang")


async def before_the_assistant_record(world: World) -> OpenRun:
    """The run has begun; its first commit waits for the disk."""
    run = world.submit("hang")
    await run.accepted.wait()
    world.store.pause()
    await quiet()
    return run


async def streaming(world: World) -> OpenRun:
    """There is some text."""
    run = world.submit("hang")
    await world.kit.fake.asked.wait()
    await quiet()
    assert world.workspace.live_messages()
    return run


async def tool_running(world: World) -> OpenRun:
    """The second of three calls does not come back."""
    reached = trio.Event()

    async def stay(context: ToolContext) -> ToolResult:
        reached.set()
        await trio.sleep_forever()
        raise AssertionError

    async def look(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    world.kit.tools = (FakeTool("stay", stay), FakeTool("look", look))
    world.kit.fake.acts["tools"] = ask_for("look", "stay", "look")
    run = world.submit("tools")
    await reached.wait()
    return run


async def processes_closing(world: World) -> OpenRun:
    """The model has ended; what the run started is being ended."""
    world.kit.close_s = 2
    run = world.submit("hello")
    await world.kit.closing.wait()
    return run


Window = Callable[[World], Awaitable[OpenRun]]
WINDOWS: list[Window] = [
    accepted,
    before_the_assistant_record,
    streaming,
    tool_running,
    processes_closing,
]


@pytest.mark.parametrize("window", WINDOWS)
async def test_cancel_ends_the_run_in_every_window(
    clock: MockClock, world: World, window: Window
) -> None:
    """G4, G7, R52, R53: within 3 s, once, with a valid transcript; what comes after lives."""
    world.kit.fake.acts["hang"] = fakes.hang
    run = await window(world)
    began = trio.current_time()
    ticket = world.session.cancel(ME)
    again = world.session.cancel(CancelledBy("somebody else"))
    later = world.submit("after the cancel")
    world.store.resume()
    receipt = (await ticket.wait()).value
    assert [covered.run_id for covered in receipt.runs] == [run.id]
    assert receipt.watermark == run.row.record.accept_seq
    await again.wait()
    await run.ended.wait()
    assert trio.current_time() - began <= 3
    one, two = await world.ended(run, later)
    assert (one.outcome, two.outcome) == (Outcome.CANCELLED, Outcome.COMPLETED)
    assert one.cancelled_by == ME
    end = payload(next(e for e in await world.events() if e.kind == "run_complete"))
    assert (end["error"], end["cancelled"]) == ("context canceled", True)
    mine = [m for m in await world.messages() if m.run_id == run.id]
    assert mine[0].role == "user"
    assert mine[-1].role == "assistant"


async def test_a_cancelled_tool_call_and_those_after_it_get_results(
    clock: MockClock, world: World
) -> None:
    """G7, R53."""
    run = await tool_running(world)
    world.session.cancel(ME)
    await world.ended(run)
    results = [part for m in await world.messages() for part in m.tool_results()]
    assert [part.content for part in results] == [
        "seen",
        "context canceled",
        "Error: user cancelled assistant tool calling",
    ]


async def test_a_cancel_after_the_outcome_is_fixed_is_too_late(
    clock: MockClock, world: World
) -> None:
    """G4: and the run that was accepted before the cancel and waits is covered."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run, waiting = world.submit("gate"), world.submit("next")
    await gate.reached.wait()
    world.store.pause()
    gate.go.set()
    await quiet()
    ticket = world.session.cancel(ME)
    world.store.resume()
    receipt = (await ticket.wait()).value
    assert receipt.too_late == (run.id,)
    assert [covered.run_id for covered in receipt.runs] == [waiting.id]
    one, two = await world.ended(run, waiting)
    assert (one.outcome, two.outcome) == (Outcome.COMPLETED, Outcome.CANCELLED)
    assert one.cancelled_by is None


async def test_a_queued_run_that_is_cancelled_ends_at_once_with_its_prompt(
    clock: MockClock, world: World
) -> None:
    """G5, G7, R52: whatever runs before it."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, one, two = world.submit("hang"), world.submit("one"), world.submit("two")
    await quiet()
    world.session.cancel(ME, one.id)
    (record,) = await world.ended(one)
    assert record.outcome is Outcome.CANCELLED
    assert not running.ended.is_set()
    mine = [m for m in await world.messages() if m.run_id == one.id]
    assert [m.text() for m in mine] == ["one", ""]
    await world.session.clear(ME).wait()
    await world.ended(two)
    world.session.cancel(ME)
    await world.ended(running)


async def test_cancelling_an_idle_session_does_nothing(clock: MockClock, world: World) -> None:
    """G4, R49."""
    await world.ended(world.submit("hello"))
    before = await world.events()
    assert (await world.session.cancel(ME).wait()).value.runs == ()
    assert (await world.session.clear(ME).wait()).value.runs == ()
    assert await world.events() == before


@pytest.mark.parametrize("policy", ["cancel", "clear", "interrupt"])
async def test_a_full_disk_delays_the_ending_of_queued_runs_but_does_not_lose_it(
    clock: MockClock, world: World, policy: str
) -> None:
    """G1, G5: they have left the queue, so somebody must write that they ended."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, waiting = world.submit("hang"), world.submit("wait")
    await quiet()
    world.store.fail_next(NO_ROOM)
    if policy == "interrupt":
        newcomer = world.submit("new", "interrupt")
        with pytest.raises(StoreError):
            await newcomer.accepted.wait()
    else:
        ticket = world.session.clear(ME) if policy == "clear" else world.session.cancel(ME)
        with pytest.raises(StoreError):
            await ticket.wait()
    (record,) = await world.ended(waiting)
    assert record.outcome is Outcome.CANCELLED
    world.session.cancel(ME)
    await world.ended(running)
    assert not world.workspace.has_open_runs()


async def test_an_acceptance_that_fails_leaves_nothing(clock: MockClock, world: World) -> None:
    """G2, G5: also in a busy session, when nobody waits for the answer any more."""
    world.kit.fake.acts["hang"] = fakes.hang
    running = world.submit("hang")
    await quiet()
    world.store.fail_next(NO_ROOM)
    failed = world.submit("one")
    second = world.submit("two")
    await second.accepted.wait()
    await failed.ended.wait()
    assert world.host.open_run(failed.id) is None
    assert [run.id for run in world.session.waiting_runs()] == [second.id]
    again = world.submit("one", run_id=failed.id)
    assert (await again.accepted.wait()).value.receipt.position == 2
    world.session.withdraw(failed)  # by a request that wakes up late
    assert world.host.open_run(again.id) is again
    world.session.cancel(ME, running.id)
    await world.ended(running, second, again)


async def test_a_run_cancelled_before_its_acceptance_fails_never_was(
    clock: MockClock, world: World
) -> None:
    """G1, G2."""
    world.store.fail_next(NO_ROOM)
    failed = world.submit("one")
    receipt = (await world.session.cancel(ME).wait()).value
    assert [run.run_id for run in receipt.runs] == [failed.id]
    await failed.ended.wait()
    assert await world.store.run(failed.id) is None
    assert world.host.is_idle() or world.workspace.is_idle()


async def test_an_id_that_is_taken_starts_nothing(clock: MockClock, world: World) -> None:
    """G3: the store has the last word."""
    await world.ended(world.submit("one", run_id="mine"))
    twin = world.submit("one", run_id="mine")
    with pytest.raises(DuplicateRunError):
        await twin.accepted.wait()
    await twin.ended.wait()
    assert len(await world.all_runs()) == 1
    assert len(world.kit.fake.requests) == 1


async def test_runs_start_in_the_order_in_which_they_were_accepted(
    clock: MockClock, world: World
) -> None:
    """G5."""
    runs = [world.submit(f"number {n}") for n in range(20)]
    await world.ended(*runs)
    prompts = [fakes.prompt_of(request) for request in world.kit.fake.requests]
    assert prompts == [f"number {n}" for n in range(20)]
    users = [m.text() for m in await world.messages() if m.role == "user"]
    assert users == prompts


async def test_a_deletion_waits_for_endings_that_a_full_disk_has_delayed(
    clock: MockClock, world: World
) -> None:
    """G1: nothing of a run is written after its session is gone."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, waiting = world.submit("hang"), world.submit("wait")
    await quiet()
    world.store.fail_next(NO_ROOM)
    with pytest.raises(StoreError):
        await world.session.cancel(ME, waiting.id).wait()
    world.store.fail_next(NO_ROOM)  # the first attempt to write it again
    await quiet()
    assert not waiting.ended.is_set()
    await delete_session(world.workspace, world.session.id, ME)
    one, two = await world.ended(running, waiting)
    assert (one.outcome, two.outcome) == (Outcome.CANCELLED, Outcome.CANCELLED)
    assert one.deleted
    assert two.deleted


async def test_a_run_that_is_marked_before_it_has_a_scope_asks_nothing(
    clock: MockClock, world: World
) -> None:
    """G4: the entry check."""
    world.store.pause()
    run = world.submit("hello")
    run.run.mark = ME
    with trio.fail_after(1):
        end = await world.session._driver(run).drive()
    assert end.outcome is Outcome.CANCELLED
    assert not world.kit.fake.requests
    run.run.mark = None
    world.store.resume()
    await world.ended(run)
