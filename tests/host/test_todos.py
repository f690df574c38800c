"""A to-do list is stored with the result that tells of it, and the next call finds it (CW 7.5)."""

from __future__ import annotations

import json

from trio.testing import MockClock

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCall,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.protocol.errors import StoreError
from crush_trio.tools.todos import TodosTool
from tests.host.world import World, payload


def listing(*statuses: str) -> str:
    todos = [{"content": "write", "status": each, "active_form": "Writing"} for each in statuses]
    return json.dumps({"todos": todos})


async def plan(request: ModelRequest, emit: Emit) -> StepEnd:
    """Write the list, and in the same step tick it off."""
    if request.step > 1:
        emit(TextDelta("done"))
        return StepEnd("end_turn")
    for number, status in enumerate(("in_progress", "completed")):
        emit(ToolCallStart(f"todos-{number}", "todos"))
        emit(ToolCallEnd(f"todos-{number}", listing(status)))
    return StepEnd("tool_use")


async def test_a_list_is_published_behind_its_result_and_found_by_the_next_call(
    clock: MockClock, world: World
) -> None:
    """CW 7.5: `session/updated`, also within one step."""
    world.kit.tools = (TodosTool(),)
    world.kit.fake.acts["plan"] = plan
    await world.ended(world.submit("plan"))
    found = await world.store.session(world.session.id)
    assert found is not None
    assert [todo.status for todo in found[1].todos] == ["completed"]
    told = [json.loads(r.metadata) for m in await world.messages() for r in m.tool_results()]
    assert [(each["is_new"], each.get("just_completed")) for each in told] == [
        (True, None),
        (False, ["write"]),
    ]
    shown = [payload(e) for e in await world.events() if e.kind == "session"]
    lists = ["".join(todo["status"] for todo in each.get("todos", ())) for each in shown]
    assert list(dict.fromkeys(lists)) == ["", "in_progress", "completed"]


async def test_a_list_and_its_result_are_one_commit(clock: MockClock, world: World) -> None:
    """G2: what a full disk holds back of them comes together."""

    class Failing(TodosTool):
        async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
            result = await super().run(call, context)
            if call.id == "todos-1":
                world.store.fail_next(StoreError("disk_full", "no room"))
            return result

    world.kit.tools = (Failing(),)
    world.kit.fake.acts["plan"] = plan
    (record,) = await world.ended(world.submit("plan"))
    assert record.error is not None
    assert record.error.code == "disk_full"
    found = await world.store.session(world.session.id)
    assert found is not None
    assert [todo.status for todo in found[1].todos] == ["completed"]
    results = [r for m in await world.messages() for r in m.tool_results()]
    assert [r.is_error for r in results] == [False, False]
