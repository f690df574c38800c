"""A run's sandbox in the host: what tools get, what the record says, and never less than asked."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from crush_trio.agent.ports import ToolContext, ToolResult
from crush_trio.protocol.runs import Outcome
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import World


@pytest.mark.parametrize("asked", [None, "off", "read-only"])
async def test_a_runs_tools_and_record_have_the_sandbox_it_asked_for(
    clock: MockClock, world: World, asked: str | None
) -> None:
    seen = []

    async def look(context: ToolContext) -> ToolResult:
        seen.append(None if context.sandbox is None else context.sandbox.mode)
        return ToolResult("seen")

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake.acts["go"] = ask_for("look")
    (record,) = await world.ended(world.submit("go", sandbox=asked))
    wanted = asked or "off"
    assert (record.outcome, record.sandbox) == (Outcome.COMPLETED, wanted)
    assert seen == [None if wanted == "off" else wanted]


@pytest.mark.parametrize("kind", ["prompt", "shell"])
async def test_a_run_whose_sandbox_is_gone_when_it_begins_does_nothing(
    clock: MockClock, world: World, kind: str
) -> None:
    """It could be had when the run was accepted, and cannot be any more."""
    world.kit.has_sandbox = False
    (record,) = await world.ended(world.submit("echo", kind=kind, sandbox="workspace-write"))
    assert record.outcome is Outcome.FAILED
    assert record.error is not None
    assert record.error.code == "sandbox_unavailable"
    assert record.processes.started == 0
    assert not world.kit.fake.requests
