"""What a run is told of its sub-agents, and what it may use of its limits (CW 7.5)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome, Usage
from tests.host import fakes
from tests.host.fakes import FakeTool, ask_for
from tests.host.sub_agent_kit import (
    asking,
    calling,
    child_of,
    prepare,
    results,
    streaming,
    sub_agents,
    use,
)
from tests.host.world import World, quiet

ANA = CancelledBy("ana", "c1")


# --- what its caller is told --------------------------------------------------------------


async def test_how_a_sub_agent_ended_is_said_to_its_caller(clock: MockClock, world: World) -> None:
    """CW 7.5: `Failed to generate response` with the reason, and what it had said by then."""
    (record,) = await world.ended(use(world, "go", fakes.broken))
    assert record.outcome is Outcome.COMPLETED
    assert await results(world) == [
        (
            "Failed to generate response: The answer broke off.\n\n"
            "This is what it had said by then:\n\nhalf an",
            True,
        )
    ]
    notices = [event.run_id for event in await world.events() if event.kind == "agent_event"]
    assert notices == [record.id], "R58: nobody is told of an error that its caller deals with"


async def test_what_a_sub_agent_is_denied_makes_its_caller_end_denied(
    clock: MockClock, world: World
) -> None:
    """G13: no run with a refusal ends as if all was well."""
    asking(world)
    (record,) = await world.ended(use(world, "go", ask_for("view"), permission_mode="deny"))
    (inner,) = await sub_agents(world)
    assert (record.outcome, inner.outcome) == (Outcome.DENIED, Outcome.DENIED)
    assert await results(world) == [("done\n\n(1 tool call of the sub-agent was denied.)", False)]


async def test_a_person_who_says_no_to_a_sub_agent_stops_its_caller_too(
    clock: MockClock, world: World
) -> None:
    """R70: and what is allowed goes on; the request names the sub-agent's run and session."""
    asking(world)
    for action, outcome in (("allow", Outcome.COMPLETED), ("deny", Outcome.DENIED)):
        parent = use(world, "go", ask_for("view"), permission_mode="ask")
        await trio.sleep(0.2)
        (row,) = await world.store.pending_asks()
        assert row.run_id == (await child_of(world)).id
        echo = PermissionGrant(PermissionEcho(id=row.id), action)
        assert (await answer_permission(world.workspace.home.waiting, echo, "ana")).resolved
        (record,) = await world.ended(parent)
        assert (record.outcome, record.steps) == (outcome, 2 if action == "allow" else 1)


@pytest.mark.parametrize("granted_to", ["caller", "sub-agent"])
async def test_what_was_granted_to_a_session_was_granted_to_no_sub_agent_and_the_other_way_round(
    clock: MockClock, world: World, granted_to: str
) -> None:
    """R67: a grant covers as little as may have been meant."""
    asking(world)
    world.kit.fake.acts["look"] = ask_for("view")
    prepare(world, "go", ask_for("view"))
    asked = world.submit("look" if granted_to == "caller" else "call", permission_mode="ask")
    await trio.sleep(0.2)
    (row,) = await world.store.pending_asks()
    echo = PermissionGrant(PermissionEcho(id=row.id), "allow_session")
    await answer_permission(world.workspace.home.waiting, echo, "ana")
    await world.ended(asked)
    again = world.submit("call", permission_mode="ask")
    await trio.sleep(0.2)
    assert len(await world.store.pending_asks()) == 1
    world.session.cancel(ANA)
    await world.ended(again)


async def test_a_prompt_to_a_sub_agents_session_waits_there_and_has_its_own_life(
    clock: MockClock, world: World
) -> None:
    """G4, G5: it is a session like any other; the caller's cancel does not cover it."""
    pair = await streaming(world)
    session = await world.workspace.session(pair.child.session_id)
    steering = world.submit("mine", "steer", session=session)
    await quiet()
    world.session.cancel(ANA)
    record, inner, mine = await world.ended(pair.parent, pair.child, steering)
    assert [r.outcome for r in (record, inner)] == [Outcome.CANCELLED, Outcome.CANCELLED]
    assert (mine.outcome, mine.parent_run, mine.kind) == (Outcome.COMPLETED, None, "prompt")
    assert "agent" in [tool.name for tool in world.kit.fake.requests[-1].tools]


# --- limits -------------------------------------------------------------------------------


async def looping(request: ModelRequest, emit: Emit) -> StepEnd:
    """Call a tool in every step, each time with other words."""
    emit(TextDelta("x" * 40))
    emit(ToolCallStart(f"view-{request.step}", "view"))
    emit(ToolCallEnd(f"view-{request.step}", f'{{"n":{request.step}}}'))
    return StepEnd("tool_use", Usage(10, 10))


@pytest.mark.parametrize(
    ("wanted", "code", "used"),
    [
        (Limits(max_steps=4), "max_steps", 3),
        (Limits(max_tool_calls=3), "max_tool_calls", 3),
        (Limits(max_output_tokens=25), "max_output_tokens", 2),
        (Limits(max_cost_usd=100e-6), "max_cost_usd", 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_sub_agent_has_what_is_left_of_its_callers_limits(
    clock: MockClock, world: World, wanted: Limits, code: str, used: int
) -> None:
    """Contract 3: a limit is of the run with all that works for it."""

    async def view(_context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    world.kit.tools = (FakeTool("view", view),)
    (record,) = await world.ended(use(world, "go", looping, limits=wanted))
    (inner,) = await sub_agents(world)
    for each in (record, inner):
        assert (each.outcome, each.error and each.error.code) == (Outcome.LIMITED, code)
    assert inner.steps == used
    assert record.steps == 1, "its caller asks for nothing more"
    ((told, is_error),) = await results(world)
    assert told.startswith("Failed to generate response: The run ")
    assert is_error


@pytest.mark.parametrize(
    ("wanted", "code", "used"),
    [
        (Limits(max_steps=5), "max_steps", (2, 2)),
        (Limits(max_tool_calls=4), "max_tool_calls", (2, 2)),
    ],
)
async def test_what_one_sub_agent_has_used_the_next_has_not(
    clock: MockClock, world: World, wanted: Limits, code: str, used: tuple[int, int]
) -> None:
    """Contract 3: the first looks once and answers, the second looks until it must not."""

    async def view(_context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    world.kit.tools = (FakeTool("view", view),)
    world.kit.fake.acts["look"] = ask_for("view")
    parent = use(world, "go", looping, limits=wanted)
    world.kit.fake.acts["call"] = calling("look", "go")
    (record,) = await world.ended(parent)
    assert (record.outcome, record.error and record.error.code) == (Outcome.LIMITED, code)
    assert tuple(each.steps for each in await sub_agents(world)) == used


async def test_a_caller_without_a_step_left_begins_no_sub_agent(
    clock: MockClock, world: World
) -> None:
    """Contract 3."""
    (record,) = await world.ended(use(world, "go", limits=Limits(max_steps=1)))
    assert (record.outcome, record.steps) == (Outcome.LIMITED, 1)
    assert await sub_agents(world) == []
