"""A run that waits for a person: every ending, once, in every window (I25, I27-I30)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import PermissionAsk, ToolContext, ToolResult
from crush_trio.host.asks.asking import Verdict
from crush_trio.host.asks.endings import end_ask
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session_life import delete_session
from crush_trio.protocol import codec
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant, Resolution
from crush_trio.protocol.runs import CancelledBy, Limits, Outcome
from crush_trio.store.contract import AskRow
from tests.host.asker import ANA, Asker, grant
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import ME, World, next_start, payload, quiet

NO_ROOM = StoreError("disk_full", "no room")


@pytest.fixture
async def asker(world: World) -> Asker:
    """A world whose tools ask."""
    return Asker(world)


async def test_an_allowed_call_runs_and_the_record_says_what_it_waited_for(
    world: World, asker: Asker
) -> None:
    """R67, R68, I25: row and event are one commit; one notification; the answer names who."""
    run, row = await asker.ask()
    assert (await world.record(run.id)).waiting_on == "permission"
    [event] = [e for e in await world.events() if e.kind == "permission_request"]
    assert payload(event) == codec.to_json(row.request)
    assert event.run_id == run.id
    assert not asker.done
    assert await asker.answer(row) == Resolution(True, "allowed", ANA)
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED
    assert asker.done == [f"{world.session.id} touch"]
    assert await asker.notices() == [(True, False)]
    waits = [payload(e)["waiting_on"] for e in await world.events() if e.kind == "run"]
    at = waits.index("permission")
    assert waits[at + 1].startswith("tool:")
    late = await asker.answer(row, "deny", by="somebody")
    assert (late.resolved, late.ending, late.decided_by) == (False, "allowed", ANA)


@pytest.mark.parametrize("message", ["", "not on a Friday"])
async def test_a_persons_denial_stops_the_turn(world: World, asker: Asker, message: str) -> None:
    """R70: the calls behind it are not run; the message goes to the model."""
    run, row = await asker.ask("both")
    told = attrs.evolve(grant(row, "deny"), message=message)
    assert (await answer_permission(asker.waiting, told, ANA)).resolved
    record = await asker.ended(run)
    assert (record.outcome, record.denied, record.steps) == (Outcome.DENIED, 1, 1)
    denied = f"User denied permission: {message}" if message else "User denied permission"
    assert await asker.results() == [denied, "Not run: the turn was stopped before this call"]
    assert asker.done == []
    assert await asker.notices() == [(False, True)]
    finish = [m for m in await world.messages() if m.role == "assistant"][-1].finish()
    assert finish is not None
    assert finish.reason == "end_turn"


async def test_nobodys_answer_is_a_denial_after_ten_minutes(
    clock: MockClock, world: World, asker: Asker
) -> None:
    """Its deadline ends a request; the silence of a model is not what it counts as."""
    run, row = await asker.ask(limits=Limits(idle_timeout_s=5))
    began = trio.current_time()
    record = (await world.ended(run))[0]
    assert trio.current_time() - began == pytest.approx(limits.ASK_DEADLINE_S, abs=1)
    assert record.outcome is Outcome.DENIED
    assert await asker.results() == ["Permission denied: nobody answered within 10 minutes"]
    assert await asker.notices() == [(False, True)]
    late = await asker.answer(row)
    assert (late.resolved, late.ending, late.decided_by) == (False, "expired", "server")


End = Callable[[World, OpenRun], Awaitable[object]]


async def cancel_run(world: World, run: OpenRun) -> object:
    return await world.session.cancel(ME, run.id).wait()


async def cancel_session(world: World, run: OpenRun) -> object:
    return await world.session.cancel(CancelledBy("another client")).wait()


async def close_workspace(world: World, run: OpenRun) -> object:
    await world.workspace.end_runs(CancelledBy("me", reason="workspace"))
    return run


async def interrupt(world: World, run: OpenRun) -> object:
    return await world.submit("later", if_busy="interrupt").accepted.wait()


async def stop(world: World, run: OpenRun) -> object:
    world.session.stop(CancelledBy("server", reason="shutdown"))
    return run


@pytest.mark.parametrize("end", [cancel_run, cancel_session, close_workspace, interrupt, stop])
async def test_the_end_of_a_run_withdraws_its_request_at_once(
    clock: MockClock, world: World, asker: Asker, end: End
) -> None:
    """R69, G4: also for who cancels another one's run; a late answer decides nothing."""
    run, row = await asker.ask()
    began = trio.current_time()
    await end(world, run)
    late = await asker.answer(row)
    assert (late.resolved, late.ending) == (False, "withdrawn")
    record = await asker.ended(run)
    assert trio.current_time() - began < 0.1
    assert (record.outcome, asker.done) == (Outcome.CANCELLED, [])
    assert await asker.notices() == [(False, True)]
    assert await asker.results() == ["context canceled"]
    assert await world.store.pending_asks() == ()


async def test_everybody_is_told_before_the_runs_processes_are_gone(
    clock: MockClock, world: World, asker: Asker
) -> None:
    """R69: a dialog closes at once, also if ending the run takes its time."""
    world.kit.close_s = 2
    run, _ = await asker.ask()
    world.session.cancel(ME)
    await trio.sleep(0.1)
    assert not run.ended.is_set()
    assert await asker.notices() == [(False, True)]
    assert await world.store.pending_asks() == ()
    await asker.ended(run)


async def test_a_time_limit_withdraws_too_and_says_that_nothing_ran(
    clock: MockClock, world: World, asker: Asker
) -> None:
    run, _ = await asker.ask(limits=Limits(timeout_s=30))
    record = (await world.ended(run))[0]
    assert (record.outcome, asker.done) == (Outcome.LIMITED, [])
    assert await asker.notices() == [(False, True)]
    assert await asker.results() == ["Not run: the run had reached its limit"]


async def test_deleting_the_session_ends_what_it_asks(world: World, asker: Asker) -> None:
    run, row = await asker.ask()
    with trio.fail_after(3):
        await delete_session(world.workspace, world.session.id, ME)
    assert (await world.record(run.id)).outcome is Outcome.CANCELLED
    assert await asker.answer(row) == Resolution(False)
    assert asker.done == []


Race = Callable[[Asker, OpenRun, AskRow], Awaitable[str]]


async def answer_then_cancel(asker: Asker, run: OpenRun, row: AskRow) -> str:
    pending = asker.waiting.find(row.id, "permission")
    assert pending is not None
    assert asker.waiting.decide(pending, Verdict("allowed", ANA))
    asker.world.session.cancel(ME)
    return "allowed"


async def cancel_then_answer(asker: Asker, run: OpenRun, row: AskRow) -> str:
    pending = asker.waiting.find(row.id, "permission")
    asker.world.session.cancel(ME)
    assert pending is not None
    assert not asker.waiting.decide(pending, Verdict("allowed", ANA))
    return "withdrawn"


async def answer_then_deadline(asker: Asker, run: OpenRun, row: AskRow) -> str:
    await trio.sleep(limits.ASK_DEADLINE_S - 1)
    asker.world.store.pause()
    pending = asker.waiting.find(row.id, "permission")
    assert pending is not None
    assert asker.waiting.decide(pending, Verdict("denied", ANA))
    await trio.sleep(10)
    return "denied"


async def deadline_then_answer(asker: Asker, run: OpenRun, row: AskRow) -> str:
    await trio.sleep(limits.ASK_DEADLINE_S - 1)
    asker.world.store.pause()
    await trio.sleep(10)
    pending = asker.waiting.find(row.id, "permission")
    assert pending is not None
    assert not asker.waiting.decide(pending, Verdict("allowed", ANA))
    return "expired"


async def deadline_then_cancel(asker: Asker, run: OpenRun, row: AskRow) -> str:
    ending = await deadline_then_answer(asker, run, row)
    asker.world.session.cancel(ME)
    return ending


RACES: list[Race] = [
    answer_then_cancel,
    cancel_then_answer,
    answer_then_deadline,
    deadline_then_answer,
    deadline_then_cancel,
]


@pytest.mark.parametrize("race", RACES)
async def test_whoever_comes_first_decides_and_nobody_else(
    clock: MockClock, world: World, asker: Asker, race: Race
) -> None:
    """I27: one ending, one notification; the loser is told how it had ended."""
    run, row = await asker.ask()
    ending = await race(asker, run, row)
    world.store.resume()
    record = await asker.ended(run)
    stored = await world.store.ask(row.id)
    assert stored is not None
    assert stored.ending == ending
    assert await asker.notices() == [(ending == "allowed", ending != "allowed")]
    assert (await asker.answer(row)).ending == ending
    assert asker.done == [], "a cancelled run starts nothing, whatever was allowed"
    marked = race in (answer_then_cancel, cancel_then_answer, deadline_then_cancel)
    assert record.outcome is (Outcome.CANCELLED if marked else Outcome.DENIED)


async def test_an_answer_is_given_when_it_is_durable_and_the_tool_starts_after_that(
    world: World, asker: Asker
) -> None:
    """G2, I27: a second answer meanwhile waits for the first, and is told of it."""
    run, row = await asker.ask()
    world.store.pause()
    answers: list[Resolution] = []

    async def give(action: str, by: str) -> None:
        answers.append(await asker.answer(row, action, by))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give, "allow", "first")
        await quiet()
        nursery.start_soon(give, "deny", "second")
        await quiet()
        assert (answers, asker.done) == ([], [])
        world.store.resume()
    assert sorted((a.resolved, a.ending, a.decided_by) for a in answers) == [
        (False, "allowed", "first"),
        (True, "allowed", "first"),
    ]
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED


async def test_sessions_wait_beside_each_other(
    clock: MockClock, world: World, asker: Asker
) -> None:
    """I28: answered in any order, cancelled alone; a third session works on."""
    second, third = await world.new_session(), await world.new_session()
    run_1, row_1 = await asker.ask()
    run_2, row_2 = await asker.ask(session=second)
    assert [row.id for row in await asker.pending(2)] == [row_1.id, row_2.id]
    free = world.submit("hello", session=third)
    assert (await asker.ended(free)).outcome is Outcome.COMPLETED
    assert (await asker.answer(row_2)).resolved
    assert (await asker.ended(run_2)).outcome is Outcome.COMPLETED
    assert [row.id for row in await asker.pending(1)] == [row_1.id]
    run_3, row_3 = await asker.ask(session=second)
    world.session.cancel(ME)
    assert (await asker.ended(run_1)).outcome is Outcome.CANCELLED
    assert (await asker.answer(row_3)).resolved
    assert (await asker.ended(run_3)).outcome is Outcome.COMPLETED


async def test_a_grant_covers_what_was_shown_in_its_session_and_nothing_else(
    world: World, asker: Asker
) -> None:
    """R68, I30: session, tool, action and path, as the server had them."""
    run, row = await asker.ask("two")
    assert (await asker.answer(row, "allow_session")).ending == "allowed_session"
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED
    assert len(asker.done) == 2, "the second call was not asked about"
    run, row = await asker.ask("both")
    assert isinstance(row.request, PermissionRequest)
    assert row.request.tool_name == "wipe"
    assert (await asker.answer(row)).resolved
    await asker.ended(run)
    other = await world.new_session()
    run, row = await asker.ask(session=other)
    assert (await asker.answer(row, "deny")).resolved
    await asker.ended(run)
    async with next_start(world) as later:
        again = Asker(later)
        later.session = await later.workspace.session(world.session.id)
        assert (await again.ended(later.submit("one", run_id="after"))).denied == 0
        assert len(again.done) == 1, "a grant outlives a restart, as its session does"


@pytest.mark.parametrize(
    "changed",
    [
        {"session_id": "other"},
        {"tool_call_id": "call-9"},
        {"tool_name": "bash"},
        {"description": "touch y"},
        {"action": "read"},
        {"params": {"file_path": "/etc/passwd"}},
        {"params": {"file_path": "x", "more": 1}},
        {"params": "x"},
        {"path": "/"},
    ],
    ids=str,
)
async def test_an_answer_to_something_else_decides_nothing(
    world: World, asker: Asker, changed: dict[str, Any]
) -> None:
    """I27: what was shown is what is allowed; the request still waits."""
    run, row = await asker.ask()
    with pytest.raises(Refused, match=f"permission.{next(iter(changed))}") as refused:
        await answer_permission(asker.waiting, grant(row, "allow", **changed), ANA)
    assert refused.value.code == "permission_changed"
    assert [each.id for each in await asker.pending()] == [row.id]
    assert (await asker.answer(row, "allow")).resolved
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("params", [None, {}, {"file_path": "x", "replace_all": False}], ids=str)
async def test_what_another_client_makes_of_params_is_still_the_same_request(
    world: World, asker: Asker, params: Any
) -> None:
    """CW 6.1: zero values come and go on the way through Crush's client."""
    run, row = await asker.ask()
    answer = grant(row, "allow", params=params)
    assert (await answer_permission(asker.waiting, answer, ANA)).resolved
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED


async def test_what_the_store_has_ended_is_not_allowed_by_anybody(
    world: World, asker: Asker
) -> None:
    """I27: whatever the memory says; a loser's grant leaves nothing."""
    run, row = await asker.ask()
    world.store.commit_nowait(
        world.workspace.id, lambda tx: end_ask(tx, row.id, "withdrawn", "somebody")
    )
    late = await asker.answer(row, "allow_session")
    assert (late.resolved, late.ending, late.decided_by) == (False, "withdrawn", "somebody")
    await asker.ended(run)
    assert asker.done == []
    assert await world.store.grants(world.session.id) == frozenset()


async def test_an_unknown_action_or_request_changes_nothing(world: World, asker: Asker) -> None:
    """G14."""
    run, row = await asker.ask()
    with pytest.raises(Refused, match="allow, allow_session, deny"):
        await answer_permission(asker.waiting, grant(row, "maybe"), ANA)
    with pytest.raises(Refused, match=r"permission\.id"):
        await answer_permission(asker.waiting, PermissionGrant(action="allow"), ANA)
    unknown = PermissionGrant(PermissionEcho("nobody"), "allow")
    assert await answer_permission(asker.waiting, unknown, ANA) == Resolution(False)
    await asker.answer(row)
    await asker.ended(run)


async def test_allowing_everything_does_not_release_what_waits(
    clock: MockClock, world: World, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    """R71, G12; the next call is not asked about, and everybody learns who changed that."""
    run, row = await asker.ask("two")
    await world.workspace.set_default_mode("allow", "me")
    assert [e.kind for e in await world.events()].count("config_changed") == 1
    assert f"me set the permission mode of {world.path} to allow" in caplog.text
    await trio.sleep(60)
    assert asker.done == []
    assert (await asker.answer(row)).resolved
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED
    assert (len(asker.done), await asker.notices()) == (2, [(True, False)])


async def test_a_request_that_cannot_be_stored_fails_the_run(world: World, asker: Asker) -> None:
    reached = trio.Event()
    go = trio.Event()

    async def late(context: ToolContext) -> ToolResult:
        reached.set()
        await go.wait()
        await context.permission(PermissionAsk("late", "write", "", "/w", {}, "/w/x"))
        raise AssertionError("it was allowed")

    world.kit.tools = (FakeTool("late", late),)
    world.kit.fake.acts["late"] = ask_for("late")
    run = world.submit("late")
    await reached.wait()
    await quiet()
    world.store.fail_next(NO_ROOM)
    go.set()
    record = await asker.ended(run)
    assert (record.outcome, record.error and record.error.code) == (Outcome.FAILED, "disk_full")
    assert await asker.notices() == []


async def test_a_decision_that_cannot_be_stored_starts_nothing(world: World, asker: Asker) -> None:
    """I27: the tool does not start; the run's ending withdraws the request, once."""
    run, row = await asker.ask()
    world.store.fail_next(NO_ROOM)
    with pytest.raises(StoreError, match="no room"):
        await asker.answer(row, "allow_session")
    record = await asker.ended(run)
    assert (record.outcome, asker.done) == (Outcome.FAILED, [])
    assert await asker.notices() == [(False, True)]
    assert (await asker.answer(row)).ending == "withdrawn"
    assert await world.store.grants(world.session.id) == frozenset()


async def test_a_withdrawal_that_cannot_be_stored_goes_with_the_runs_ending(
    world: World, asker: Asker
) -> None:
    """R69, G1: exactly one notification, also on a full disk."""
    run, row = await asker.ask()
    world.store.pause()
    ticket = world.session.cancel(ME)
    world.store.fail_next(NO_ROOM)
    await quiet()
    world.store.resume()
    with pytest.raises(StoreError):
        await ticket.wait()
    assert (await asker.ended(run)).outcome is Outcome.CANCELLED
    assert await asker.notices() == [(False, True)]
    assert (await asker.answer(row)).ending == "withdrawn"


async def test_a_restart_withdraws_what_nobody_can_answer_any_more(
    clock: MockClock, world: World, asker: Asker
) -> None:
    """G1, G7, I25: in the commit that ends the run as lost, and once, however often it starts."""
    run, row = await asker.ask()
    async with next_start(world) as later:
        record = await later.record(run.id)
        assert record.outcome is Outcome.LOST
        again = Asker(later)
        assert await again.notices() == [(False, True)]
        assert await again.results(world.session) == [
            "Not run: the server stopped before this call was started"
        ]
        late = await again.answer(row)
        assert (late.resolved, late.ending) == (False, "withdrawn")
        async with next_start(later) as latest:
            assert await Asker(latest).notices() == [(False, True)]
    world.session.cancel(ME)
    await asker.ended(run)
