"""A model that refuses what is too long for its window: what a run and its events say of it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolContext,
    ToolResult,
)
from crush_trio.protocol.runs import Outcome, Usage
from tests.agent.windowed import Windowed
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import ME, World, next_start, payload


def use(world: World, model: Windowed, length: int) -> Windowed:
    """The world's model from now on, with a tool whose results are so long."""

    async def look(context: ToolContext) -> ToolResult:
        number = len(model.requests)
        return ToolResult(f"{number:4}" + "x" * (length - 4))

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake = model  # type: ignore[assignment]
    return model


async def test_a_run_goes_on_after_a_request_that_was_too_long(
    clock: MockClock, world: World
) -> None:
    """G1, R-COMPACT: each thing that was done about it is an event, and the record counts it."""
    model = use(world, Windowed(told=0, steps=6), 2_600)
    run = world.submit("go")
    (record,) = await world.ended(run)
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "done")
    assert model.refused
    events = [event for event in await world.events() if event.run_id == run.id]
    retries = [payload(event) for event in events if event.kind == "retry"]
    assert [retry["delay_s"] for retry in retries] == [0.0] * len(model.refused)
    assert "tokens are too many" in retries[0]["cause"]
    notices = [payload(event) for event in events if event.kind == "agent_event"]
    done = [notice for notice in notices if notice["type"] in ("prune", "summarize")]
    assert done
    for notice in done:
        assert 0 < notice["tokens_after"] < notice["tokens_before"]
    assert record.steps == len(model.requests)
    finishes = [m.finish() for m in await world.messages() if m.role == "assistant"]
    refused = [f for f in finishes if f is not None and f.reason == "error"]
    assert [f.message for f in refused] == ["Too long"] * len(model.refused)


async def test_what_is_left_out_is_said_once_and_stays_left_out_in_the_next_run(
    clock: MockClock, world: World
) -> None:
    """R-COMPACT: also of the next server; nothing that is stored changes."""
    model = use(world, Windowed(steps=6), 2_000)
    await world.ended(world.submit("go"))
    pruned = [
        payload(event)
        for event in await world.events()
        if event.kind == "agent_event" and payload(event)["type"] == "prune"
    ]
    assert len(pruned) == 1
    assert pruned[0]["tokens_before"] > pruned[0]["tokens_after"]
    stored = [r.content for m in await world.messages() for r in m.tool_results()]
    assert [len(content) for content in stored] == [2_000] * 6
    last = left_out(model)
    assert last
    async with next_start(world) as after:
        again = use(after, Windowed(steps=0), 2_000)
        session = await after.workspace.session(world.session.id)
        (record,) = await after.ended(after.submit("more", session=session, run_id="more"))
        assert record.outcome is Outcome.COMPLETED
        assert left_out(again)[: len(last)] == last
        assert again.refused == []


def left_out(model: Windowed) -> list[str]:
    """The notes that stand for output in the model's last request."""
    results = [r for m in model.requests[-1].messages for r in m.tool_results()]
    return [part.content for part in results if part.content.startswith("[")]


@pytest.mark.parametrize("off", ["prompt", "configuration"])
async def test_where_nothing_may_be_left_out_the_run_fails_with_what_to_do(
    clock: MockClock, world: World, off: str
) -> None:
    """R-COMPACT, G14: `--no-compact` is honoured on every path."""
    model = use(world, Windowed(steps=9), 2_600)
    world.kit.auto_summarize = off != "configuration"
    compact = False if off == "prompt" else None
    (record,) = await world.ended(world.submit("go", compact=compact))
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.FAILED, "context_too_long")
    assert "tokens are too many" in record.error.message
    assert "--no-compact" in record.error.message
    assert len(model.refused) == 1
    assert not [request for request in model.requests if request.summary]
    last = [message for message in await world.messages() if message.role == "assistant"][-1]
    finish = last.finish()
    assert finish is not None
    assert (last.text(), finish.reason, finish.message) == ("half", "error", "Too long")


async def test_a_run_that_cannot_be_made_to_fit_says_so(clock: MockClock, world: World) -> None:
    """R-COMPACT: bounded, and its last words are kept."""
    model = use(world, Windowed(steps=9, words=40_000, told=0), 9_000)
    (record,) = await world.ended(world.submit("go"))
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.FAILED, "context_overflow")
    assert len(model.requests) < 20


async def test_a_cancel_after_a_refusal_ends_the_run(clock: MockClock, world: World) -> None:
    """G4: in the window between the request that was too long and the next one."""
    token = trio.lowlevel.current_trio_token()

    class Stopped(Windowed):
        async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
            try:
                return await super().stream(request, emit)
            except ModelError:
                token.run_sync_soon(world.session.cancel, ME)
                raise

    model = use(world, Stopped(told=0, steps=6), 2_600)
    (record,) = await world.ended(world.submit("go"))
    assert (record.outcome, len(model.refused)) == (Outcome.CANCELLED, 1)
    assert model.refused[0][0] == len(model.requests) - 1, "nothing was asked after it"


async def test_the_sessions_cost_is_what_is_known(clock: MockClock, world: World) -> None:
    """R-COST, CW 5.11: the run's is unknown as soon as one step's is; what was written to a cache
    is part of the prompt's size."""

    async def look(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    async def last(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("done"))
        return StepEnd("end_turn", Usage(1, 7, 20, 300))  # nobody knows what a cache costs here

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake.acts["go"] = ask_for("look", then=last)
    (record,) = await world.ended(world.submit("go"))
    assert (record.outcome, record.cost_usd) == (Outcome.COMPLETED, None)
    found = await world.store.session(world.session.id)
    assert found is not None
    assert found[1].cost == pytest.approx((10 + 5 * 2) / 1e6)
    assert (found[1].prompt_tokens, found[1].completion_tokens) == (321, 7)
