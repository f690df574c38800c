"""Steering, the policies of a busy session, editing its queue, and random lives."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ToolContext, ToolResult
from crush_trio.host.editing import edit
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.errors import CrushError, Refused, StoreError
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome, RunState
from tests.host import fakes
from tests.host.fakes import FakeTool, Gate, ask_for
from tests.host.world import ME, World, change, payload, quiet

NO_ROOM = StoreError("disk_full", "no room")


# --- policies -----------------------------------------------------------------------------


async def test_interrupt_cancels_and_accepts_in_one_commit(clock: MockClock, world: World) -> None:
    """G4: what was open before is cancelled, with the reason; the newcomer is not."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, waiting = world.submit("hang"), world.submit("wait")
    await quiet()
    newcomer = world.submit("new", "interrupt")
    committed = await newcomer.accepted.wait()
    kinds = [
        (e.kind, e.run_id)
        for e in await world.events()
        if committed.first_seq <= e.seq <= committed.last_seq
    ]
    assert ("run_complete", waiting.id) in kinds
    assert kinds[-1] == ("run", newcomer.id)
    assert committed.value.receipt.seq == committed.last_seq - 1
    records = await world.ended(running, waiting, newcomer)
    assert [r.outcome for r in records] == [
        Outcome.CANCELLED,
        Outcome.CANCELLED,
        Outcome.COMPLETED,
    ]
    assert records[0].cancelled_by is not None
    assert records[0].cancelled_by.reason == "interrupt"


async def test_reject_and_a_full_queue_change_nothing(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G14."""
    monkeypatch.setattr(limits, "WAITING_RUNS_PER_SESSION", 2)
    world.kit.fake.acts["hang"] = fakes.hang
    world.submit("hang")
    await quiet()
    runs = [world.submit("wait"), world.submit("wait")]
    await quiet()
    before = await world.events()
    for policy, code in [("reject", "session_busy"), ("enqueue", "queue_full")]:
        with pytest.raises(Refused) as refused:
            world.submit("more", policy)
        assert refused.value.code == code
    assert await world.events() == before
    assert world.workspace.last_accept == 3
    world.session.cancel(ME)
    await world.ended(*runs)


async def steered(world: World, *, limits: Limits | None = None, mark: bool = False) -> OpenRun:
    """A prompt that steers into a run whose tool waits for it."""
    reached, go = trio.Event(), trio.Event()

    async def wait(context: ToolContext) -> ToolResult:
        reached.set()
        await go.wait()
        return ToolResult("seen")

    world.kit.tools = (FakeTool("wait", wait),)
    world.kit.fake.acts["tools"] = ask_for("wait")
    world.submit("tools")
    await reached.wait()
    run = world.submit("look left", "steer", limits=limits)
    await run.accepted.wait()
    if mark:
        world.session.cancel(ME, world.session.open_runs()[0].id)
    go.set()
    return run


async def test_a_steering_prompt_is_folded_at_the_next_step_in_one_commit(
    clock: MockClock, world: World
) -> None:
    """G1, R50: user message, `steered` ending and the step's start."""
    run = await steered(world)
    receipt = (await run.accepted.wait()).value.receipt
    assert (receipt.disposition, receipt.position) == ("steered", 1)
    (record,) = await world.ended(run)
    assert (record.outcome, record.steered_into) == (Outcome.STEERED, "r1")
    await quiet()
    transcript = await world.messages()
    assert [m.role for m in transcript] == ["user", "assistant", "tool", "user", "assistant"]
    assert transcript[3].text() == "look left"
    sent = world.kit.fake.requests[1].messages
    assert [m.role for m in sent] == ["user", "assistant", "tool", "user"]
    events = await world.events()
    end = next(e for e in events if e.kind == "run_complete" and e.run_id == run.id)
    same = [e for e in events if e.ts_ms == end.ts_ms]
    assert {e.run_id for e in same if e.kind == "message" and change(e) == "created"} >= {run.id}
    assert "error" not in payload(end) or not payload(end)["error"]


@pytest.mark.parametrize("other", ["limits", "mark"])
async def test_a_prompt_that_may_not_be_folded_becomes_a_turn_of_its_own(
    clock: MockClock, world: World, other: str
) -> None:
    """G5, R50: another limit, or a turn that is marked."""
    run = await steered(
        world, limits=Limits(max_steps=9) if other == "limits" else None, mark=other == "mark"
    )
    (record,) = await world.ended(run)
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "answer to look left")


async def test_a_prompt_that_steers_too_late_becomes_a_turn_of_its_own(
    clock: MockClock, world: World
) -> None:
    """G5: no further step comes."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    world.submit("gate")
    await gate.reached.wait()
    run = world.submit("look left", "steer")
    gate.go.set()
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("failing", [False, True])
async def test_folded_prompts_are_not_lost_when_the_step_is_cancelled_or_fails(
    clock: MockClock, world: World, failing: bool
) -> None:
    """G1, G4: the fold has ended them in memory; its commit or the terminal one says so."""
    run = await steered(world)
    world.store.pause()
    await quiet()  # the step's commit is queued now
    if failing:
        world.store.fail_next(NO_ROOM)
    cancelled = world.session.cancel(ME)
    world.store.resume()
    (record,) = await world.ended(run)
    assert (record.outcome, record.steered_into) == (Outcome.STEERED, "r1")
    receipt = (await cancelled.wait()).value
    assert [covered.run_id for covered in receipt.runs] == ["r1"]
    await quiet()
    assert (await world.record("r1")).outcome is Outcome.CANCELLED
    assert [m.text() for m in await world.messages()].count("look left") == 1


async def test_a_prompt_that_is_cancelled_while_another_is_folded_breaks_nothing(
    clock: MockClock, world: World
) -> None:
    """G4, G5: the fold waits for acceptances, and the queue changes meanwhile."""
    first = await steered(world)
    world.store.pause()
    second, third = world.submit("two", "steer"), world.submit("three", "steer")
    await quiet()
    world.session.cancel(ME, third.id)
    world.store.resume()
    records = await world.ended(first, second, third)
    assert records[2].outcome is Outcome.CANCELLED
    assert {r.outcome for r in records[:2]} <= {Outcome.STEERED, Outcome.COMPLETED}
    await quiet()
    assert (await world.record("r1")).outcome is Outcome.COMPLETED


async def test_a_prompt_with_patterns_of_its_own_is_not_folded_into_a_run_without(
    clock: MockClock, world: World
) -> None:
    """G12: folded, it would lose what it refused."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    world.submit("gate")
    await gate.reached.wait()
    run = world.submit("careful", "steer", deny_tools=("bash",))
    assert not world.session.queue.foldable()
    gate.go.set()
    await world.ended(run)


# --- editing ------------------------------------------------------------------------------


async def test_a_waiting_run_can_be_edited_moved_and_dropped(
    clock: MockClock, world: World
) -> None:
    """G2, G14."""
    world.kit.fake.acts["hang"] = fakes.hang
    running = world.submit("hang")
    one, two, three = (world.submit(name) for name in ("one", "two", "three"))
    await quiet()
    edited = (await edit(world.session, three.id, "three, better", 0).wait()).value
    assert edited.record.prompt == "three, better"
    world.session.cancel(CancelledBy("me", reason="drop"), one.id)
    with pytest.raises(Refused, match="not waiting"):
        edit(world.session, running.id, "x", None)
    with pytest.raises(Refused, match="not waiting"):
        edit(world.session, one.id, "x", 0)
    world.session.cancel(ME, running.id)
    records = await world.ended(running, two, three)
    assert [r.text for r in records[1:]] == ["answer to two", "answer to three, better"]
    prompts = [fakes.prompt_of(request) for request in world.kit.fake.requests]
    assert prompts == ["hang", "three, better", "two"]


async def test_editing_what_was_never_accepted_is_refused(clock: MockClock, world: World) -> None:
    """G14."""
    world.kit.fake.acts["hang"] = fakes.hang
    running = world.submit("hang")
    await quiet()
    world.store.fail_next(NO_ROOM)
    failed = world.submit("one")
    ticket = edit(world.session, failed.id, "two", None)
    with pytest.raises(Refused, match="not accepted"):
        await ticket.wait()
    world.session.cancel(ME)
    await world.ended(running)


async def test_an_edit_that_does_not_fit_on_the_disk_changes_nothing(
    clock: MockClock, world: World
) -> None:
    """G2, G14: neither the prompt nor the order."""
    world.kit.fake.acts["hang"] = fakes.hang
    running = world.submit("hang")
    one, two = world.submit("one"), world.submit("two")
    await quiet()
    world.store.fail_next(NO_ROOM)
    with pytest.raises(StoreError):
        await edit(world.session, two.id, "lost", 0).wait()
    await quiet()
    world.session.cancel(ME, running.id)
    await world.ended(running, one, two)
    prompts = [fakes.prompt_of(request) for request in world.kit.fake.requests]
    assert prompts == ["hang", "one", "two"]


# --- everything together ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_random_lives_keep_every_promise(clock: MockClock, world: World, seed: int) -> None:
    """G1, G4, G5, G7: prompts, cancels and a bad disk in any order; `world` checks the rest."""
    rng = random.Random(seed)
    fake = world.kit.fake

    async def look(context: ToolContext) -> ToolResult:
        await trio.sleep(rng.choice((0, 0, 1)))
        return ToolResult("seen")

    world.kit.tools = (FakeTool("look", look),)
    world.kit.close_s = rng.choice((0, 1))
    fake.acts |= {
        "hang": fakes.hang,
        "stubborn": fakes.stubborn,
        "broken": fakes.broken,
        "tools": ask_for("look", "look"),
        "long": ask_for("look", then=fakes.hang),
    }
    sessions = [world.session, await world.new_session()]
    runs: list[OpenRun] = []
    for _ in range(25):
        session = rng.choice(sessions)
        try:
            match rng.randrange(10):
                case 0 | 1 | 2 | 3 | 4:
                    prompt = rng.choice(("a", "hang", "stubborn", "broken", "tools", "long"))
                    policy = rng.choice(("enqueue", "steer", "steer", "interrupt", "reject"))
                    runs.append(world.submit(prompt, policy, session))
                case 5:
                    session.cancel(ME)
                case 6 if runs:
                    session.cancel(ME, rng.choice(runs).id)
                case 7:
                    session.clear(ME)
                case 8 if runs:
                    edit(session, rng.choice(runs).id, "a better prompt", rng.choice((None, 0)))
                case 9:
                    world.store.fail_next(NO_ROOM)
        except CrushError:
            continue
        await trio.sleep(rng.choice((0, 0, 0.1, 1.5)))
    for session in sessions:
        session.cancel(ME)
    with trio.fail_after(60):
        for run in runs:
            await run.ended.wait()
    states = {record.state for record in await world.all_runs()}
    assert states <= {RunState.FINISHED}
    assert not world.workspace.has_open_runs()


async def test_folded_prompts_end_even_if_the_step_cannot_be_written(
    clock: MockClock, world: World
) -> None:
    """G1, G7: the fold's commit also held what the store cannot write."""

    async def poison(context: ToolContext) -> ToolResult:
        run = world.submit("look left", "steer")
        await run.accepted.wait()
        return ToolResult("", data="\ud800")

    world.kit.tools = (FakeTool("poison", poison),)
    world.kit.fake.acts["go"] = ask_for("poison")
    first = world.submit("go")
    (one,) = await world.ended(first)
    await world.all_ended()
    two = await world.record("r2")
    assert (one.outcome, two.outcome) == (Outcome.FAILED, Outcome.STEERED)
    assert two.steered_into == one.id
    assert "look left" in [m.text() for m in await world.messages()]
