"""A sub-agent is a run of its own, and never outlives the run that called it (CW 7.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelRequest,
    StepEnd,
    SubAgentTask,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.agent.transcript import is_valid
from crush_trio.host import commits
from crush_trio.host.session_life import delete_session
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome, RunState, Usage
from crush_trio.tools.agent import TITLE, AgentTool, run_sub_agent
from tests.host import fakes
from tests.host.fakes import FakeModel, FakeTool, Gate
from tests.host.sub_agent_kit import (
    WINDOWS,
    Pair,
    before_its_first_step,
    calling,
    child_of,
    endings,
    results,
    session_of,
    streaming,
    sub_agents,
    tool_running,
    use,
)
from tests.host.world import World, next_start, payload, quiet

ANA = CancelledBy("ana", "c1")
PARENTS = CancelledBy("ana", "c1", "parent")
INTERRUPTED = [("context canceled", True)]


def offered(name: str) -> FakeTool:
    """A tool that nobody calls."""

    async def never(_context: ToolContext) -> ToolResult:
        raise AssertionError

    return FakeTool(name, never)


async def test_a_sub_agent_is_a_run_of_its_own_in_a_session_below(
    clock: MockClock, world: World
) -> None:
    """CW 7.5, R58: its answer is the call's result; its cost counts for the caller (5.11)."""
    world.kit.tools = tuple(map(offered, ("bash", "grep", "question", "view", "write")))
    gate = Gate()
    parent = use(world, "gate it", gate, permission_mode="ask", deny_tools=("bash",))
    child = await child_of(world)
    await gate.reached.wait()
    assert (await world.record(parent.id)).waiting_on == "tool:agent"
    request = world.kit.fake.requests[-1]
    assert [tool.name for tool in request.tools] == ["grep", "view"]
    assert (request.sub_agent, request.step) == (True, 1)
    assert "You are a sub-agent" in request.system
    assert "reads nothing of your work" not in world.kit.fake.requests[0].system
    gate.go.set()
    record, inner = await world.ended(parent, child)
    message = next(m for m in await world.messages() if m.tool_calls())
    assert (inner.kind, inner.parent_run) == ("agent", parent.id)
    assert inner.session_id == f"{message.id}$$call-0"
    assert (child.row.request.permission_mode, child.row.request.deny_tools) == ("ask", ("bash",))
    below, top = await session_of(world, inner), await session_of(world, record)
    assert (below.title, below.parent_session_id) == (TITLE, top.id)
    assert await results(world) == [("waited", False)]
    assert await endings(world) == [inner.id, record.id]
    assert (record.outcome, record.steps, record.tool_calls) == (Outcome.COMPLETED, 2, 1)
    assert inner.cost_usd is not None
    assert record.usage == Usage(30, 12).plus(inner.usage)
    assert record.cost_usd == pytest.approx(30e-6 + 24e-6 + inner.cost_usd)
    assert below.cost == inner.cost_usd
    assert top.cost == record.cost_usd
    assert [s.id for s in await world.store.sessions(world.workspace.id)] == [top.id]
    notices = [e.run_id for e in await world.events() if e.kind == "agent_event"]
    assert notices == [parent.id], "nobody is notified of a sub-agent's end"


async def test_several_calls_have_a_sub_agent_each_and_a_strange_id_names_no_other_place(
    clock: MockClock, world: World
) -> None:
    """A session's id is the name of a folder, and a call's id a provider's invention."""
    parent = use(world, "one")
    world.kit.fake.acts["call"] = calling("one", "two", call_id="../{}/\\x00é")
    (record,) = await world.ended(parent)
    first, second = await sub_agents(world)
    assert await results(world) == [("answer to one", False), ("answer to two", False)]
    assert await endings(world) == [first.id, second.id, record.id]
    for each in (first, second):
        message_id, call = each.session_id.split("$$")
        assert (call.isalnum(), len(call), message_id.isalnum()) == (True, 32, True)
    assert first.session_id != second.session_id


async def test_a_sub_agent_gets_the_model_the_tools_and_the_files_that_its_task_names(
    clock: MockClock, world: World
) -> None:
    """CW 7.5: a sub-agent may have another model than its caller."""
    small = FakeModel()
    small.info = attrs.evolve(small.info, model="tiny", cost_per_1m_out=200.0)

    class WithSmaller(FakeModel):
        def smaller(self) -> Model | None:
            return small

    class Small(AgentTool):
        async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
            task = SubAgentTask(
                call.id,
                "short",
                "Small",
                frozenset({"hidden"}),
                small=True,
                instructions="Be terse.",
                project_files=False,
            )
            return await run_sub_agent(task, context)

    class Hidden(FakeTool):
        @property
        def spec(self) -> ToolSpec:
            return attrs.evolve(super().spec, for_sub_agents=True)

    (world.path / "AGENTS.md").write_text("ours alone")
    world.kit.context_paths = ("AGENTS.md",)
    model = WithSmaller(acts={"call": calling("x")})
    world.kit.fake = model
    world.kit.tools = (Small(), Hidden("hidden", offered("x").function))
    (record,) = await world.ended(world.submit("call"))
    (inner,) = await sub_agents(world)
    assert (inner.model, inner.provider, inner.cost_usd) == ("tiny", "fake", 10e-6 + 1000e-6)
    assert [tool.name for tool in small.requests[0].tools] == ["hidden"]
    assert "Be terse." in small.requests[0].system
    systems = [each.requests[0].system for each in (model, small)]
    assert ["ours alone" in system for system in systems] == [True, False]
    assert [tool.name for tool in model.requests[0].tools] == ["agent"]
    assert record.cost_usd == pytest.approx(30e-6 + 24e-6 + 1010e-6)


# --- cancelling ---------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_cancelled_run_ends_its_sub_agent_first_in_every_window(
    clock: MockClock, world: World, window: Callable[[World], Awaitable[Pair]]
) -> None:
    """G1, G4, G10: within three seconds, for whoever cancelled the caller."""
    pair = await window(world)
    follower = world.submit("follower")
    began = trio.current_time()
    ticket = world.session.cancel(ANA, pair.parent.id)
    world.store.resume()
    assert [covered.run_id for covered in (await ticket.wait()).value.runs] == [pair.parent.id]
    record, inner, after = await world.ended(pair.parent, pair.child, follower)
    assert trio.current_time() - began <= 3
    assert (record.outcome, record.cancelled_by) == (Outcome.CANCELLED, ANA)
    assert (inner.outcome, inner.cancelled_by) == (Outcome.CANCELLED, PARENTS)
    assert await endings(world) == [inner.id, record.id, after.id]
    assert await results(world) == INTERRUPTED
    assert after.outcome is Outcome.COMPLETED
    assert is_valid(world.kit.fake.requests[-1].messages)


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_cancelled_sub_agent_is_a_result_in_every_window_and_its_caller_goes_on(
    clock: MockClock, world: World, window: Callable[[World], Awaitable[Pair]]
) -> None:
    """G4: a cancel covers the runs of its session, and no other."""
    pair = await window(world)
    session = await world.workspace.session(pair.child.session_id)
    began = trio.current_time()
    ticket = session.cancel(ANA)
    world.store.resume()
    await ticket.wait()
    record, inner = await world.ended(pair.parent, pair.child)
    assert trio.current_time() - began <= 3
    assert (inner.outcome, inner.cancelled_by) == (Outcome.CANCELLED, ANA)
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "done")
    ((told, is_error),) = await results(world)
    assert told.startswith("Failed to generate response: The sub-agent was cancelled by ana."), told
    assert is_error


async def closed(world: World) -> str:
    """The workspace is closed for good."""
    await world.host.end(world.workspace.id, CancelledBy("ana", reason="workspace"))
    return "workspace"


async def stopped(world: World) -> str:
    """The server stops."""
    world.host.stop()
    return "shutdown"


async def interrupted(world: World) -> str:
    """Another prompt takes the session over."""
    world.submit("urgent", "interrupt")
    return "parent"


async def left(world: World) -> str:
    """The client goes on which the caller depends."""
    world.workspace.cancel_depending("c9")
    return "parent"


async def timed_out(world: World) -> str:
    """The caller's time is over."""
    await trio.sleep(5)
    return "parent"


@pytest.mark.parametrize("cause", [closed, stopped, interrupted, left, timed_out])
@pytest.mark.parametrize("window", [before_its_first_step, streaming, tool_running])
async def test_whatever_ends_a_run_ends_its_sub_agent_before_it(
    clock: MockClock,
    world: World,
    window: Callable[..., Awaitable[Pair]],
    cause: Callable[[World], Awaitable[str]],
) -> None:
    """G1, G10, G11: closing, shutting down, another prompt, a client that goes, a limit."""
    mine = {"client_id": "c9", "on_disconnect": "cancel"}
    pair = await window(world, limits=Limits(timeout_s=5), **mine)
    if cause is not timed_out:
        world.store.resume()
    reason = await cause(world)
    world.store.resume()
    await pair.parent.ended.wait()
    assert pair.child.ended.is_set()
    record, inner = await world.ended(pair.parent, pair.child)
    assert (await endings(world))[:2] == [inner.id, record.id]
    assert inner.outcome is Outcome.CANCELLED
    assert inner.cancelled_by is not None
    assert inner.cancelled_by.reason == reason
    if cause is timed_out:
        assert (record.outcome, record.error and record.error.code) == (Outcome.LIMITED, "timeout")
        assert inner.cancelled_by.principal == "server"
    else:
        assert record.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("whose", ["caller", "sub-agent"])
async def test_a_deleted_session_takes_the_sub_agents_below_it_along(
    clock: MockClock, world: World, whose: str
) -> None:
    """Contract 3: whole; to its caller a deleted sub-agent is one that was cancelled."""
    pair = await streaming(world)
    session_id = world.session.id if whose == "caller" else pair.child.session_id
    await delete_session(world.workspace, session_id, attrs.evolve(ANA, reason="session"))
    (record,) = await world.ended(pair.parent)
    assert await world.store.session(pair.child.session_id) is None
    assert (await world.record(pair.child.id)).deleted
    if whose == "caller":
        assert (record.deleted, record.outcome) == (True, Outcome.CANCELLED)
    else:
        assert record.outcome is Outcome.COMPLETED
        assert (await results(world))[0][1]


async def test_a_sub_agent_begun_while_its_session_is_being_deleted_is_deleted_with_it(
    clock: MockClock, world: World
) -> None:
    """Contract 3: nothing stays below a session that is gone."""
    reached, go = trio.Event(), trio.Event()

    class Late(AgentTool):
        async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
            reached.set()
            await go.wait()
            return await super().run(call, context)

    parent = use(world, "go", fakes.hang)
    world.kit.tools = (Late(),)
    await reached.wait()
    world.store.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delete_session, world.workspace, world.session.id, ANA)
        await quiet()
        go.set()
        await quiet()
        world.store.resume()
    assert (await world.record(parent.id)).deleted
    for record in await world.all_runs():
        assert await world.store.session(record.session_id) is None


async def test_a_sub_agent_whose_ending_is_decided_is_not_cancelled_and_still_ends_first(
    clock: MockClock, world: World
) -> None:
    """G4: too late for it, not for its caller."""
    gate = Gate()
    parent = use(world, "gate", gate)
    child = await child_of(world)
    await gate.reached.wait()
    world.store.pause()
    gate.go.set()
    await quiet()
    world.session.cancel(ANA)
    await trio.sleep(limits.SUB_AGENT_END_S + 1)
    assert not parent.ended.is_set(), "it waits for what is on its way to the disk"
    world.store.resume()
    record, inner = await world.ended(parent, child)
    assert (record.outcome, inner.outcome) == (Outcome.CANCELLED, Outcome.COMPLETED)
    assert await endings(world) == [inner.id, record.id]
    assert record.usage == Usage(10, 5).plus(inner.usage), "what it used counts all the same"


async def test_a_sub_agent_that_never_ends_holds_its_caller_for_a_bounded_time(
    clock: MockClock, world: World
) -> None:
    """G4: a model that shields itself keeps its own run, and no other."""
    free = trio.Event()

    async def shielded(request: ModelRequest, emit: Emit) -> StepEnd:
        with trio.CancelScope(shield=True):
            await free.wait()
        return StepEnd("end_turn")

    parent = use(world, "go", shielded)
    child = await child_of(world)
    await trio.sleep(0.2)
    world.session.cancel(ANA)
    try:
        with trio.fail_after(limits.SUB_AGENT_END_S + 0.1):
            (record,) = await world.ended(parent)
        assert record.outcome is Outcome.CANCELLED
        assert not child.ended.is_set()
    finally:
        free.set()
    (inner,) = await world.ended(child)
    assert (inner.outcome, inner.cancelled_by) == (Outcome.CANCELLED, PARENTS)


# --- after a kill -------------------------------------------------------------------------


@pytest.mark.parametrize("window", [before_its_first_step, streaming, tool_running])
@pytest.mark.parametrize("marked", [False, True])
async def test_after_a_kill_neither_goes_on_and_the_sub_agent_ends_first(
    clock: MockClock,
    world: World,
    window: Callable[[World], Awaitable[Pair]],
    marked: bool,
) -> None:
    """G1, G2: lost, or cancelled if that was promised to its caller; nobody waits for it now."""
    pair = await window(world)
    if marked:
        world.store.resume()
        await world.store.commit_nowait(
            world.workspace.id,
            lambda tx: commits.cancel_runs(tx, (), pair.parent.id, ANA),
        ).wait()
    async with next_start(world) as after:
        await after.all_ended()
        record, inner = [await after.record(run.id) for run in (pair.parent, pair.child)]
        assert {record.state, inner.state} == {RunState.FINISHED}
        expected = Outcome.CANCELLED if marked else Outcome.LOST
        assert (record.outcome, inner.outcome) == (expected, expected)
        assert inner.cancelled_by == (PARENTS if marked else None)
        assert await endings(after) == [inner.id, record.id]
        assert after.kit.fake.requests == [], "nothing is repeated"
        told = [payload(e) for e in await after.events() if e.kind == "run_complete"]
        assert all(each["outcome"] == expected for each in told)
    world.store.resume()
    world.session.cancel(ANA)
    await world.all_ended()
