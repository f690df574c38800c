"""However a run ends, it ends once, its transcript is valid, and the next one starts."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import StepEnd, TextDelta, ToolContext, ToolResult
from crush_trio.host.session_life import delete_session
from crush_trio.protocol.errors import ConfigError, Refused, StoreError
from crush_trio.protocol.runs import Limits, Outcome, RunState
from tests.host import fakes
from tests.host.fakes import FakeTool, Gate, ask_for
from tests.host.world import ME, World, next_start, payload, quiet


async def test_a_run_completes_and_says_so_last(clock: MockClock, world: World) -> None:
    """G1, R56: the record, the transcript and the last event tell the same."""
    run = world.submit("hello there")
    receipt = (await run.accepted.wait()).value.receipt
    assert (receipt.disposition, receipt.position) == ("started", 0)
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.COMPLETED
    assert record.text == "answer to hello there"
    assert record.cost_usd == pytest.approx(20e-6)
    assert record.processes.started == 1
    assert record.first_seq == receipt.seq + 1
    user, assistant = await world.messages()
    assert (user.role, assistant.role, assistant.id) == ("user", "assistant", record.message_id)
    found = await world.store.session(world.session.id)
    assert found is not None
    assert (found[1].title, found[1].prompt_tokens) == ("hello there", 10)


ENDINGS = [
    ("hang", fakes.hang, Outcome.CANCELLED, "canceled"),
    ("silent", fakes.silent, Outcome.CANCELLED, "canceled"),
    ("stubborn", fakes.stubborn, Outcome.CANCELLED, "canceled"),
    ("rude", fakes.rude, Outcome.CANCELLED, "canceled"),
    ("broken", fakes.broken, Outcome.FAILED, "error"),
    ("buggy", fakes.buggy, Outcome.FAILED, "error"),
]


@pytest.mark.parametrize(("name", "act", "outcome", "finish"), ENDINGS)
async def test_the_queue_moves_on_after_every_kind_of_ending(
    clock: MockClock, world: World, name: str, act: fakes.Act, outcome: Outcome, finish: str
) -> None:
    """G1, G5, G7, R52, R53, R54."""
    world.kit.fake.acts[name] = act
    first, second = world.submit(name), world.submit("next")
    await quiet()
    began = trio.current_time()
    if outcome is Outcome.CANCELLED:
        receipt = (await world.session.cancel(ME, first.id).wait()).value
        assert [(run.run_id, run.was) for run in receipt.runs] == [("r1", "running")]
    one, two = await world.ended(first, second)
    assert trio.current_time() - began <= 3  # G4
    assert (one.outcome, two.outcome) == (outcome, Outcome.COMPLETED)
    transcript = await world.messages()
    assert [m.role for m in transcript] == ["user", "assistant"] * 2
    ended = transcript[1].finish()
    assert ended is not None
    assert ended.reason == finish
    assert one.message_id == transcript[1].id
    assert one.finished_at_ms is not None
    assert two.started_at_ms is not None
    assert one.finished_at_ms <= two.started_at_ms


async def test_a_run_that_fails_before_its_first_model_call_keeps_its_prompt(
    clock: MockClock, world: World
) -> None:
    """G1, G7: the user's text and an assistant message that says why."""
    world.kit.setup_error = ConfigError("crush.json: $.models: expected an object")
    (record,) = await world.ended(world.submit("hello"))
    assert record.outcome is Outcome.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.message[:10]) == ("configuration", "crush.json")
    assert not world.kit.fake.requests
    user, assistant = await world.messages()
    assert user.text() == "hello"
    assert assistant.finish() is not None


async def test_a_tool_that_cannot_be_stored_does_not_keep_the_run_from_ending(
    clock: MockClock,
    world: World,
) -> None:
    """G1: what the store cannot write gives way to an ending from what is stored."""

    async def unwritable(context: ToolContext) -> ToolResult:
        return ToolResult("", data="\ud800")

    world.kit.tools = (FakeTool("poison", unwritable),)
    world.kit.fake.acts["go"] = ask_for("poison")
    first, second = world.submit("go"), world.submit("next")
    one, two = await world.ended(first, second)
    assert (one.outcome, two.outcome) == (Outcome.FAILED, Outcome.COMPLETED)
    assert one.error is not None
    assert one.error.code == "internal"
    assert [m.role for m in await world.messages()][:4] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]


async def test_a_file_name_that_is_no_text_is_stored_with_replacements(
    clock: MockClock, world: World
) -> None:
    """G1."""

    async def listing(context: ToolContext) -> ToolResult:
        context.output("stdout", "caf\udce9\n")
        return ToolResult("caf\udce9", metadata={"path": "caf\udce9"})

    world.kit.tools = (FakeTool("ls", listing),)
    world.kit.fake.acts["go"] = ask_for("ls")
    (record,) = await world.ended(world.submit("go"))
    assert record.outcome is Outcome.COMPLETED
    (result,) = (await world.messages())[2].tool_results()
    assert (result.content, result.metadata) == ("caf?", '{"path":"caf?"}')


async def test_processes_that_cannot_be_closed_do_not_keep_the_run_from_ending(
    clock: MockClock,
    world: World,
) -> None:
    """G1."""
    world.kit.close_error = OSError("no such process")
    (record,) = await world.ended(world.submit("hello"))
    assert record.outcome is Outcome.COMPLETED
    world.kit.close_error = None


@pytest.mark.parametrize(
    ("limits", "act", "code"),
    [
        (Limits(timeout_s=7), fakes.hang, "timeout"),
        (Limits(idle_timeout_s=3), fakes.hang, "idle_timeout"),
        (Limits(max_steps=1), ask_for("look"), "max_steps"),
    ],
)
async def test_a_limit_ends_the_run_and_keeps_its_text(
    clock: MockClock, world: World, limits: Limits, act: fakes.Act, code: str
) -> None:
    """G1, G7."""

    async def look(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake.acts["go"] = act
    began = trio.current_time()
    (record,) = await world.ended(world.submit("go", limits=limits))
    assert record.outcome is Outcome.LIMITED
    assert record.error is not None
    assert record.error.code == code
    assert trio.current_time() - began == pytest.approx(
        limits.timeout_s or limits.idle_timeout_s or 0, abs=0.1
    )


async def test_a_denied_call_makes_the_outcome_denied_and_keeps_the_answer(
    clock: MockClock, world: World
) -> None:
    """G1: outcome denied carries a sentence, and the text."""

    async def refused(context: ToolContext) -> ToolResult:
        return ToolResult("no", is_error=True, denied=True)

    world.kit.tools = (FakeTool("rm", refused),)
    world.kit.fake.acts["go"] = ask_for("rm", "rm")
    (record,) = await world.ended(world.submit("go"))
    assert (record.outcome, record.text, record.denied) == (Outcome.DENIED, "done", 2)
    end = next(e for e in await world.events() if e.kind == "run_complete")
    assert "2 tool calls were denied" in payload(end)["error"]


async def test_a_session_that_goes_while_a_prompt_comes_does_not_take_it(
    clock: MockClock, world: World
) -> None:
    """G1, G2: nothing is accepted into a session that is gone, and nothing breaks."""
    stale = world.session
    await delete_session(world.workspace, stale.id, ME)
    with pytest.raises(Refused, match="deleted"):
        world.submit("too late", session=stale)
    stale.reopen()  # as a session object made by a reader of the moment before would be
    run = world.submit("too late", session=stale)
    with pytest.raises(Refused, match="no session"):
        await run.accepted.wait()
    await run.ended.wait()
    assert world.host.open_run(run.id) is None
    assert await world.store.run(run.id) is None
    world.session = await world.new_session()


async def test_a_session_is_kept_if_the_ending_of_its_run_could_not_be_stored(
    clock: MockClock, world: World
) -> None:
    """G1, G2: the next start has to end the run, and finds it whole."""
    world.kit.fake.acts["hang"] = fakes.hang
    world.kit.close_s = 1.0
    run = world.submit("hang")
    await quiet()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def deletion() -> None:
            with pytest.raises(StoreError, match="kept"):
                await delete_session(world.workspace, world.session.id, ME)

        await world.kit.closing.wait()
        world.host.stop()
        world.store.fail_next(StoreError("disk_full", "full"))
    async with next_start(world) as after:
        record = await after.record(run.id)
        assert (record.outcome, record.deleted) == (Outcome.CANCELLED, False)
        assert len(await after.store.messages(world.session.id)) == 2


async def test_deleting_a_session_ends_its_runs_first(clock: MockClock, world: World) -> None:
    """G1, G4: run records stay as tombstones; doing it twice is fine."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, waiting = world.submit("hang"), world.submit("hang")
    await quiet()
    await delete_session(world.workspace, world.session.id, ME)
    one, two = await world.ended(running, waiting)
    assert (one.outcome, two.outcome) == (Outcome.CANCELLED, Outcome.CANCELLED)
    assert (one.deleted, one.prompt, one.text) == (True, "", "")
    await delete_session(world.workspace, world.session.id, ME)
    with pytest.raises(Refused, match="no session"):
        await world.workspace.session(world.session.id)
    assert [e.kind for e in await world.events()][-1] == "session"


async def test_a_deletion_that_fails_leaves_the_session_as_it_was(
    clock: MockClock, world: World
) -> None:
    """G2, G14."""
    world.store.fail_next(StoreError("disk_full", "no room"))
    with pytest.raises(StoreError):
        await delete_session(world.workspace, world.session.id, ME)
    world.store.pause()
    with trio.move_on_after(1):
        await delete_session(world.workspace, world.session.id, ME)
    world.store.resume()
    await quiet()
    with pytest.raises(Refused):
        await world.workspace.session(world.session.id)


async def test_a_full_disk_delays_the_ending_but_does_not_lose_it(
    clock: MockClock, world: World
) -> None:
    """G1: the terminal commit is tried again until it fits."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    first, second = world.submit("gate"), world.submit("next")
    await gate.reached.wait()
    gate.go.set()
    world.store.fail_next(StoreError("disk_full", "no room"))
    one, two = await world.ended(first, second)
    assert (one.outcome, two.outcome) == (Outcome.COMPLETED, Outcome.COMPLETED)
    assert one.text == "waited"


async def test_a_full_disk_at_the_start_of_a_step_fails_the_run_with_its_transcript(
    clock: MockClock,
    world: World,
) -> None:
    """G1, G7: what was staged goes along with the terminal commit."""
    run = world.submit("hello")
    await run.accepted.wait()
    world.store.fail_next(StoreError("disk_full", "no room"))
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.FAILED
    assert record.error is not None
    assert record.error.code == "disk_full"
    assert [m.role for m in await world.messages()] == ["user", "assistant"]


async def test_an_overloaded_writer_delays_the_ending_only(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1, G5."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run = world.submit("gate")
    await gate.reached.wait()
    monkeypatch.setattr("crush_trio.limits.WRITER_QUEUE_MAX", 0)
    gate.go.set()
    await trio.sleep(5)
    assert not run.ended.is_set()
    monkeypatch.undo()
    monkeypatch.setattr("crush_trio.limits.WRITER_QUEUE_MAX", 100)
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.COMPLETED


async def test_a_dead_store_leaves_the_run_to_the_next_start(
    clock: MockClock, world: World
) -> None:
    """G2: nobody waits for ever for an ending that cannot be written."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run = world.submit("gate")
    await gate.reached.wait()
    gate.go.set()
    world.store.fail_next(StoreError("store_failed", "the disk is gone"))
    (record,) = await world.ended(run)
    assert record.state is RunState.RUNNING
    with pytest.raises(Refused, match="stopping"):
        world.session.queue.check_accept("enqueue")
    with pytest.raises(StoreError):
        await delete_session(world.workspace, world.session.id, ME)


async def test_open_text_is_at_most_a_second_behind(clock: MockClock, world: World) -> None:
    """G8."""
    spoken = 0

    async def slow(request: object, emit: object) -> StepEnd:
        nonlocal spoken
        assert callable(emit)
        while True:
            emit(TextDelta("x"))
            spoken += 1
            await trio.sleep(0.25)

    world.kit.fake.acts["slow"] = slow
    run = world.submit("slow")
    await trio.sleep(10)
    _, assistant = await world.messages()
    assert spoken - len(assistant.text()) <= 5
    live = world.workspace.live_messages()[assistant.id]
    assert len(live.text()) == spoken
    world.session.cancel(ME)
    (record,) = await world.ended(run)
    assert len(record.text) == spoken


async def test_the_last_answer_stays_visible_until_its_ending_is_on_its_way(
    clock: MockClock, world: World
) -> None:
    """G8: who joins while the run's processes are ended sees the whole answer."""
    world.kit.close_s = 2
    run = world.submit("hello")
    await world.kit.closing.wait()
    (live,) = world.workspace.live_messages().values()
    assert live.text() == "answer to hello"
    assert [held.session_ids for held in world.workspace.feed.held.values()]
    await world.ended(run)
    assert not world.workspace.live_messages()
    assert not world.workspace.feed.held


async def test_a_run_without_a_mode_uses_the_workspaces(clock: MockClock, world: World) -> None:
    """G12: the default mode never loosens a run that names its own."""
    from crush_trio.agent.ports import PermissionAsk

    async def asks(context: ToolContext) -> ToolResult:
        ask = PermissionAsk("t", "run", "", "", None, "x")
        return ToolResult(str((await context.permission(ask)).allowed))

    world.kit.tools = (FakeTool("t", asks),)
    world.kit.fake.acts["go"] = ask_for("t")
    world.workspace.default_mode = "allow"
    await world.ended(world.submit("go"), world.submit("go", permission_mode="deny"))
    assert world.kit.modes == ["allow", "deny"]
