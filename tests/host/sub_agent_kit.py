"""A run whose tool call has started a sub-agent, and the moments in which something can happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
import trio

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    PermissionAsk,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.runs import RunRecord, Usage
from crush_trio.protocol.sessions import Session
from crush_trio.tools.agent import AgentTool
from tests.host import fakes
from tests.host.fakes import Act, FakeTool, ask_for
from tests.host.world import World, quiet


def calling(*prompts: str, call_id: str = "call-{}", tool: str = "agent") -> Act:
    """Ask for one sub-agent per prompt in the first step; afterwards say "done"."""

    async def act(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 1:
            emit(TextDelta("done"))
            return StepEnd("end_turn", Usage(20, 7))
        for number, prompt in enumerate(prompts):
            emit(ToolCallStart(call_id.format(number), tool))
            emit(ToolCallEnd(call_id.format(number), orjson.dumps({"prompt": prompt}).decode()))
        return StepEnd("tool_use", Usage(10, 5))

    return act


def prepare(world: World, task: str, act: Act | None = None) -> None:
    """From now on the prompt ``call`` asks for a sub-agent with this task, which does ``act``."""
    world.kit.tools = (*world.kit.tools, AgentTool())
    world.kit.fake.acts["call"] = calling(task)
    if act is not None:
        world.kit.fake.acts[task.split()[0]] = act


def use(world: World, task: str, act: Act | None = None, **named: Any) -> OpenRun:
    """Such a run, just accepted."""
    prepare(world, task, act)
    return world.submit("call", **named)


async def child_of(world: World) -> OpenRun:
    """The sub-agent's run, as soon as it is accepted."""
    with trio.fail_after(5):
        while True:
            for run in world.host.open_runs.values():
                if run.row.record.kind == "agent":
                    return run
            await trio.lowlevel.checkpoint()


async def sub_agents(world: World) -> list[RunRecord]:
    """The records of all sub-agents, oldest first."""
    return [record for record in reversed(await world.all_runs()) if record.kind == "agent"]


async def session_of(world: World, record: RunRecord) -> Session:
    """A run's session as it is stored."""
    found = await world.store.session(record.session_id)
    assert found is not None
    return found[1]


async def results(world: World) -> list[tuple[str, bool]]:
    """What the caller's model was told, and whether as an error."""
    return [(r.content, r.is_error) for m in await world.messages() for r in m.tool_results()]


async def endings(world: World) -> list[str | None]:
    """The runs in the order of their terminal events."""
    return [event.run_id for event in await world.events() if event.kind == "run_complete"]


# --- windows ------------------------------------------------------------------------------


@attrs.frozen
class Pair:
    """A run and its sub-agent, in one moment of the sub-agent's life."""

    parent: OpenRun
    child: OpenRun


async def accepted(world: World) -> Pair:
    """Its acceptance waits for the disk."""

    class Pausing(AgentTool):
        async def run(self, call: Any, context: ToolContext) -> ToolResult:
            world.store.pause()
            return await super().run(call, context)

    parent = use(world, "go")
    world.kit.tools = (Pausing(),)
    return Pair(parent, await child_of(world))


async def before_its_first_step(world: World, **named: Any) -> Pair:
    """It is queued in the store, and begun in memory."""
    parent = use(world, "go", **named)
    child = await child_of(world)
    await child.accepted.wait()
    world.store.pause()
    await quiet()
    return Pair(parent, child)


async def _at(world: World, act: Act, **named: Any) -> Pair:
    parent = use(world, "go", act, **named)
    child = await child_of(world)
    await trio.sleep(0.2)
    return Pair(parent, child)


async def silent(world: World) -> Pair:
    """Its model says nothing."""
    return await _at(world, fakes.silent)


async def streaming(world: World, **named: Any) -> Pair:
    """Its model is in the middle of its answer."""
    return await _at(world, fakes.hang, **named)


async def tool_running(world: World, **named: Any) -> Pair:
    """A tool of it does not come back."""

    async def stay(context: ToolContext) -> ToolResult:
        await trio.sleep_forever()
        raise AssertionError

    world.kit.tools = (FakeTool("view", stay),)
    return await _at(world, ask_for("view"), **named)


async def retry_wait(world: World) -> Pair:
    """Its provider is asked again in a minute."""

    async def again(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(StreamReset(1, 3, 60.0, "status 529"))
        await trio.sleep(60)
        raise AssertionError

    return await _at(world, again)


def asking(world: World) -> None:
    """Its tool `view` asks for permission."""

    async def view(context: ToolContext) -> ToolResult:
        decision = await context.permission(PermissionAsk("view", "read", "", "/w", {}, "/w/x"))
        return ToolResult(
            decision.reason or "seen",
            is_error=not decision.allowed,
            denied=not decision.allowed,
            stop_turn=decision.stop_turn,
        )

    world.kit.tools = (FakeTool("view", view),)


async def permission_waiting(world: World) -> Pair:
    """A call of it waits for a person."""
    asking(world)
    pair = await _at(world, ask_for("view"), permission_mode="ask")
    (ask,) = await world.store.pending_asks()
    assert (ask.run_id, ask.session_id) == (pair.child.id, pair.child.session_id)
    return pair


async def summarising(world: World) -> Pair:
    """Its conversation became too long, and is being summed up."""

    async def view(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    async def long(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(ToolCallStart(f"view-{request.step}", "view"))
        emit(ToolCallEnd(f"view-{request.step}", "{}"))
        return StepEnd("tool_use", Usage(19_500, 5))

    world.kit.fake.info = attrs.evolve(world.kit.fake.info, context_window=20_000)
    world.kit.tools = (FakeTool("view", view),)
    world.kit.fake.acts["SUMMARY"] = fakes.hang
    pair = await _at(world, long)
    assert world.kit.fake.requests[-1].summary
    return pair


async def processes_closing(world: World) -> Pair:
    """Its last word is said; what it has started is being ended."""
    world.kit.close_s = 2
    parent = use(world, "go")
    child = await child_of(world)
    await world.kit.closing.wait()
    world.kit.close_s = 0
    return Pair(parent, child)


async def deaf(world: World) -> Pair:
    """Its model takes two seconds to notice."""
    return await _at(world, fakes.stubborn)


WINDOWS: list[Callable[[World], Awaitable[Pair]]] = [
    accepted,
    before_its_first_step,
    silent,
    streaming,
    tool_running,
    retry_wait,
    permission_waiting,
    summarising,
    processes_closing,
    deaf,
]
