"""Hooks in the life of a run: cancelled in each phase, told of its end, and never in its way."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import (
    FileChange,
    PermissionAsk,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.transcript import is_valid
from crush_trio.limits import HOOKS_AT_END_S, KILL_TOTAL_S
from crush_trio.protocol.runs import Outcome, RunState
from tests.host import fakes
from tests.host.fakes import FakeTool, ask_for
from tests.host.slow_hooks import SlowHooks
from tests.host.sub_agent_kit import use
from tests.host.world import ME, World, quiet


async def writes(context: ToolContext) -> ToolResult:
    """Change a file."""
    await trio.lowlevel.checkpoint()
    return ToolResult("written", changes=(FileChange("/a", None, "new"),))


@pytest.mark.parametrize("phase", ["before", "after", "end"])
@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_cancel_ends_hooks_in_every_phase(
    clock: MockClock, world: World, phase: str, how: str
) -> None:
    """G4, G7; what the tool has changed is remembered, also if its hooks were still looking."""
    world.kit.tools = (FakeTool("write", writes),)
    world.kit.fake.acts["go"] = ask_for("write")
    hooks = world.kit.hooks_given = SlowHooks(phase)
    run = world.submit("go")
    await hooks.reached.wait()
    began = trio.current_time()
    if how == "cancel":
        await world.session.cancel(ME, run.id).wait()
    else:
        world.host.stop()
    (record,) = await world.ended(run)
    assert trio.current_time() - began <= KILL_TOTAL_S
    assert record.outcome is Outcome.CANCELLED
    messages = await world.messages()
    assert is_valid(messages)
    changed = [event for event in await world.events() if event.kind == "file"]
    assert bool(changed) == (phase != "before")
    assert len(hooks.ended) == (phase == "end")  # a cancelled run is not told of


async def test_a_run_ends_after_its_hooks_have_ended_and_as_it_was_going_to(
    clock: MockClock, world: World
) -> None:
    """G10: its terminal event comes after them; their failure and their silence change nothing."""
    hooks = world.kit.hooks_given = SlowHooks("end", seconds=2)
    run = world.submit("hello")
    await hooks.reached.wait()
    began = trio.current_time()
    await quiet()
    record = await world.record(run.id)
    assert (record.state, record.waiting_on) == (RunState.RUNNING, "hook")
    assert not world.kit.closing.is_set()  # its processes may still be started
    (record,) = await world.ended(run)
    assert trio.current_time() - began == pytest.approx(2)
    assert hooks.ended == [("completed", "answer to hello", "")]
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "answer to hello")
    world.kit.hooks_given = SlowHooks("end")
    began = trio.current_time()
    (record,) = await world.ended(world.submit("hello"))
    assert trio.current_time() - began == pytest.approx(HOOKS_AT_END_S, abs=1)
    assert record.outcome is Outcome.COMPLETED
    world.kit.hooks_given = SlowHooks("end", seconds=0, error=ExceptionGroup("", [KeyError()]))
    (record,) = await world.ended(world.submit("hello"))
    assert record.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("prompt", ["hello", "broken"])
async def test_a_server_killed_in_the_hooks_of_the_end_has_lost_no_text(
    clock: MockClock, world: World, prompt: str
) -> None:
    """G8: at most the last second of an open text is missing, and hooks may take longer."""
    world.kit.fake.acts["broken"] = fakes.broken
    hooks = world.kit.hooks_given = SlowHooks("end")
    run = world.submit(prompt)
    await hooks.reached.wait()
    await quiet()
    text = {"hello": "answer to hello", "broken": "half an"}[prompt]
    assert (await world.messages())[-1].text() == text
    record = await world.record(run.id)
    assert (record.state, record.waiting_on) == (RunState.RUNNING, "hook")
    await world.session.cancel(ME, run.id).wait()
    (record,) = await world.ended(run)
    assert record.text == text
    messages = await world.messages()
    assert is_valid(messages)
    last = messages[-1].finish()
    assert last is not None  # its own error came first, or the cancel did (G4)
    expected = {"hello": (Outcome.CANCELLED, "canceled"), "broken": (Outcome.FAILED, "error")}
    assert (record.outcome, last.reason) == expected[prompt]


async def test_what_tools_did_is_durable_before_the_hooks_of_the_end(
    clock: MockClock, world: World
) -> None:
    """Also if one of them stopped the turn, so that no other step made it durable."""

    async def stops(context: ToolContext) -> ToolResult:
        return ToolResult("done", stop_turn=True, changes=(FileChange("/a", None, "new"),))

    world.kit.tools = (FakeTool("write", stops),)
    world.kit.fake.acts["go"] = ask_for("write")
    hooks = world.kit.hooks_given = SlowHooks("end", seconds=5)
    run = world.submit("go")
    await hooks.reached.wait()
    assert (await world.messages())[-1].role == "tool"
    assert "file" in [event.kind for event in await world.events()]
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.COMPLETED
    ends = [message.finish() for message in await world.messages()]
    assert [end.reason for end in ends if end is not None] == ["stop", "end_turn", "stop"]


async def test_hooks_are_told_of_failures_and_of_no_run_but_a_prompts(
    clock: MockClock, world: World
) -> None:
    hooks = world.kit.hooks_given = SlowHooks()
    world.kit.fake.acts["broken"] = fakes.broken
    await world.ended(world.submit("broken"), world.submit("echo hi", kind="shell"))
    await world.ended(world.submit("", kind="summarize"))
    assert hooks.ended == [("failed", "half an", "The answer broke off.")]
    assert [place.run_id for place in world.kit.hook_places] == ["r1"]


async def test_a_cancel_that_came_first_keeps_the_hooks_of_the_end_from_running(
    clock: MockClock, world: World
) -> None:
    hooks = world.kit.hooks_given = SlowHooks()
    world.kit.fake.acts["rude"] = fakes.rude
    run = world.submit("rude")
    await quiet()
    await world.session.cancel(ME, run.id).wait()
    (record,) = await world.ended(run)
    assert (record.outcome, hooks.ended) == (Outcome.CANCELLED, [])


async def test_what_a_hook_allows_is_decided_as_if_everything_were_and_that_call_alone(
    clock: MockClock, world: World
) -> None:
    """R67: rules that deny are still looked at; the next call is decided as before."""

    async def asks(context: ToolContext) -> ToolResult:
        decision = await context.permission(PermissionAsk("write", "x", "", "/", None, "/a"))
        return ToolResult(str(decision.allowed))

    world.kit.tools = (FakeTool("write", asks),)
    for decision in ("allow", "none"):
        world.kit.fake.acts[decision] = ask_for("write")
        world.kit.hooks_given = SlowHooks(decision=decision)
        await world.ended(world.submit(decision, permission_mode="deny"))
    assert world.kit.modes == ["allow", "deny"]


async def test_the_tools_of_a_sub_agent_have_no_hooks(clock: MockClock, world: World) -> None:
    """CW 7.6: the call that begins it has; its own do not, and neither does its end."""
    world.kit.tools = (FakeTool("view", writes),)
    hooks = world.kit.hooks_given = SlowHooks()
    (record,) = await world.ended(use(world, "look at it", ask_for("view")))
    assert record.outcome is Outcome.COMPLETED
    assert [event.kind for event in await world.events()].count("run_complete") == 2
    assert hooks.asked == ["agent"]
    assert [outcome for outcome, *_ in hooks.ended] == ["completed"]
    assert [place.run_id for place in world.kit.hook_places] == [record.id]
