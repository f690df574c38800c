"""Limits of a run, each with its reason and what it leaves; and what a run says it waits for."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    PermissionAsk,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallStart,
    ToolContext,
    ToolInputDelta,
    ToolResult,
    UsageSoFar,
)
from crush_trio.protocol.runs import Limits, Outcome, Usage
from tests.host import fakes
from tests.host.cancel_windows import SEEN, Story, story
from tests.host.fakes import Act, FakeTool, ask_for
from tests.host.world import ME, World, payload

CUT = "Interrupted: the run had reached its limit; it may have run in part"
UNSTARTED = ["tool", "error: Not run: the run had reached its limit", "stop: "]


def ended_by(sentence: str) -> str:
    """The finish of a message that a limit ended."""
    return f"error: Limit reached{sentence}"


async def pour(request: ModelRequest, emit: Emit) -> StepEnd:
    """A token each tenth of a second, for ever."""
    while True:
        emit(TextDelta("abcd"))
        await trio.sleep(0.1)


async def ping(request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a word; then only report usage."""
    emit(TextDelta("so far"))
    while True:
        emit(UsageSoFar(Usage(7, 1)))
        emit(TextDelta(""))
        await trio.sleep(0.1)


async def write_arguments(request: ModelRequest, emit: Emit) -> StepEnd:
    """Arguments without an end."""
    emit(ToolCallStart("0", "look"))
    while True:
        emit(ToolInputDelta("0", '{"a":'))
        await trio.sleep(0.1)


def use(world: World, *names: str, look_s: float = 0.0) -> Act:
    """A model that asks for these tools first; ``stay`` does not come back."""

    async def stay(context: ToolContext) -> ToolResult:
        await trio.sleep_forever()
        raise AssertionError

    async def look(context: ToolContext) -> ToolResult:
        await trio.sleep(look_s)
        return ToolResult("seen")

    world.kit.tools = (FakeTool("stay", stay), FakeTool("look", look))
    return ask_for(*names)


USER = ["user", "go", "stop: "]
SILENT = ended_by("The model was silent for 3 s.")
TIMEOUT = ended_by("The run reached its time limit of 7 s.")
TOKENS = ended_by("The run reached its limit of 5 output tokens.")
COST = ended_by("The run reached its limit of $1e-05.")
LIMITS: list[tuple[Limits, Callable[[World], Act], float, Story]] = [
    (
        Limits(max_output_tokens=5),
        lambda _: pour,
        0.5,
        [USER, ["assistant", "abcd" * 6, TOKENS]],
    ),
    (
        Limits(max_output_tokens=5),
        lambda _: write_arguments,
        0.3,
        [USER, ["assistant", "look({})", TOKENS], UNSTARTED],
    ),
    (Limits(max_cost_usd=1e-5), lambda _: pour, 0.5, [USER, ["assistant", "abcd" * 6, COST]]),
    (Limits(idle_timeout_s=3), lambda _: ping, 3, [USER, ["assistant", "so far", SILENT]]),
    (Limits(idle_timeout_s=3), lambda _: fakes.silent, 3, [USER, ["assistant", SILENT]]),
    (Limits(idle_timeout_s=3), lambda _: fakes.rude, 3, [USER, ["assistant", SILENT]]),
    (Limits(timeout_s=7), lambda _: fakes.hang, 7, [USER, ["assistant", "so far", TIMEOUT]]),
    (Limits(timeout_s=7), lambda _: fakes.rude, 7, [USER, ["assistant", TIMEOUT]]),
    (
        Limits(timeout_s=7, idle_timeout_s=1),
        lambda world: use(world, "look", "stay", "look", look_s=5),
        7,
        [
            USER,
            ["assistant", "I look.", "look({})", "stay({})", "look({})", "tool_use: "],
            SEEN,
            ["tool", f"error: {CUT}", "stop: "],
            UNSTARTED,
            ["assistant", TIMEOUT],
        ],
    ),
    (
        Limits(max_tool_calls=2),
        lambda world: use(world, "look", "look", "look"),
        0,
        [
            USER,
            ["assistant", "I look.", "look({})", "look({})", "look({})", "tool_use: "],
            SEEN,
            SEEN,
            UNSTARTED,
            ["assistant", ended_by("The run reached its limit of 2 calls.")],
        ],
    ),
    (
        Limits(max_steps=1),
        lambda world: use(world, "look"),
        0,
        [
            USER,
            ["assistant", "I look.", "look({})", "tool_use: "],
            SEEN,
            ["assistant", ended_by("The run reached its limit of 1 steps.")],
        ],
    ),
]


@pytest.mark.parametrize(("limits", "act", "after_s", "left"), LIMITS)
async def test_each_limit_ends_the_run_with_its_name_and_keeps_what_there_is(
    clock: MockClock,
    world: World,
    limits: Limits,
    act: Callable[[World], Act],
    after_s: float,
    left: Story,
) -> None:
    """G1, G7, R54, contract 3 `limits`: mid-call, and the next run starts."""
    (code,) = [name for name, value in attrs.asdict(limits).items() if value is not None][:1]
    world.kit.fake.acts["go"] = act(world)
    run, follower = world.submit("go", limits=limits), world.submit("next")
    (record,) = await world.ended(run)
    assert trio.current_time() == pytest.approx(after_s, abs=0.01)
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.LIMITED, code.removesuffix("_s"))
    mine = tuple(m for m in await world.messages() if m.run_id == run.id)
    assert story(mine) == left
    assert record.text == mine[-1].text() or record.text == mine[1].text()
    assert record.waiting_on is None
    (followed,) = await world.ended(follower)
    assert followed.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("limits", [Limits(max_tool_calls=2), Limits(max_steps=2)])
async def test_a_run_that_just_keeps_to_its_limit_completes(
    clock: MockClock, world: World, limits: Limits
) -> None:
    """Contract 3: exactly."""
    world.kit.fake.acts["go"] = use(world, "look", "look")
    (record,) = await world.ended(world.submit("go", limits=limits))
    assert (record.outcome, record.tool_calls, record.steps) == (Outcome.COMPLETED, 2, 2)


async def test_a_model_is_not_idle_while_a_tool_runs_or_a_retry_sleeps(
    clock: MockClock, world: World
) -> None:
    """Contract 3: idle is no content from the model, while it is asked."""

    async def again(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(StreamReset(1, 3, 60.0, "529"))
        await trio.sleep(60)
        emit(TextDelta("ok"))
        return StepEnd("end_turn")

    first = use(world, "look", look_s=100)

    async def act(request: ModelRequest, emit: Emit) -> StepEnd:
        return await (first if request.step == 1 else again)(request, emit)

    world.kit.fake.acts["go"] = act
    (record,) = await world.ended(world.submit("go", limits=Limits(idle_timeout_s=1)))
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "ok")
    assert trio.current_time() == pytest.approx(160, abs=0.01)


async def test_the_time_limit_covers_the_wait_for_a_person(clock: MockClock, world: World) -> None:
    """Contract 3: wall time."""

    async def touch(context: ToolContext) -> ToolResult:
        await context.permission(PermissionAsk("touch", "write", "", "/w", {}, "/w"))
        raise AssertionError

    world.kit.tools = (FakeTool("touch", touch),)
    world.kit.fake.acts["go"] = ask_for("touch")
    limits = Limits(timeout_s=20, idle_timeout_s=1)
    run = world.submit("go", limits=limits, permission_mode="ask")
    await trio.sleep(19)
    assert (await world.record(run.id)).waiting_on == "permission"
    (record,) = await world.ended(run)
    assert trio.current_time() == pytest.approx(20, abs=0.01)
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.LIMITED, "timeout")


async def test_a_limited_run_that_is_cancelled_while_it_ends_is_cancelled(
    clock: MockClock, world: World
) -> None:
    """G4: only an error of its own comes before a mark."""
    world.kit.fake.acts["go"] = pour
    world.kit.close_s = 2
    run = world.submit("go", limits=Limits(max_output_tokens=5))
    await world.kit.closing.wait()
    world.session.cancel(ME)
    (record,) = await world.ended(run)
    assert (record.outcome, record.error, record.cancelled_by) == (Outcome.CANCELLED, None, ME)
    world.kit.close_s = 0


async def test_a_run_says_at_every_moment_what_it_waits_for(clock: MockClock, world: World) -> None:
    """Contract 3: each change is a `run` event before the wait is over."""

    async def last(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(StreamReset(1, 3, 5.0, "529"))
        await trio.sleep(8)
        emit(TextDelta("ok"))
        return StepEnd("end_turn")

    tools = use(world, "look", "list", look_s=5)
    look = world.kit.tools[1]
    assert isinstance(look, FakeTool)
    world.kit.tools += (FakeTool("list", look.function),)

    async def first(request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.sleep(5)
        return await (tools if request.step == 1 else last)(request, emit)

    async def hold(request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.sleep(5)
        emit(TextDelta("held"))
        return StepEnd("end_turn")

    world.kit.fake.acts |= {"hold": hold, "go": first}
    world.submit("hold")
    run = world.submit("go")
    seen: list[str | None] = []
    await trio.sleep(0.5)  # never when something changes
    while not run.ended.is_set():
        await trio.sleep(1)
        seen.append((await world.record(run.id)).waiting_on)
    expected: list[str | None] = []
    for what in ("queue", "model", "tool:look", "tool:list", "model", "retry"):
        expected += [what] * 5
    assert seen == [*expected[1:], "model", "model", "model", None]
    shown = [
        payload(e).get("waiting_on")
        for e in await world.events()
        if e.kind == "run" and e.run_id == run.id
    ]
    changes = [now for before, now in zip([None, *shown], shown, strict=False) if now != before]
    assert changes == [
        "queue",
        "model",
        "tool:look",
        "tool:list",
        "model",
        "retry",
        "model",
        None,
    ]
