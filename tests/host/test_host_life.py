"""Workspaces open, close, are purged and meet requests meanwhile; the host stops."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelRequest, StepEnd
from crush_trio.host.host import HostOptions
from crush_trio.host.session_life import delete_session
from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.protocol.runs import Outcome, RunState
from crush_trio.store.memory import MemoryStore
from tests.host import fakes
from tests.host.fakes import Gate
from tests.host.world import ME, World, next_start, quiet


async def test_stopping_ends_what_runs_and_keeps_what_waits(
    clock: MockClock, tmp_path: Path
) -> None:
    """G1, G2, G11: cancelled with reason shutdown; the next start goes on with the rest."""
    world = World(tmp_path)
    async with world.opened():
        await world.start()
        world.kit.fake.acts["stubborn"] = fakes.stubborn
        running, waiting = world.submit("stubborn"), world.submit("next")
        await quiet()
        world.host.stop()
        with pytest.raises(Refused):
            world.submit("too late")
        with pytest.raises(Refused, match="stopping"):
            await world.host.open(world.workspace.id)
    record = await world.record(running.id)
    assert record.outcome is Outcome.CANCELLED
    assert record.cancelled_by is not None
    assert record.cancelled_by.reason == "shutdown"
    assert (await world.record(waiting.id)).state is RunState.QUEUED
    async with next_start(world) as after:
        await after.all_ended(5)
        assert (await after.record(waiting.id)).outcome is Outcome.COMPLETED


async def test_a_full_disk_does_not_hold_up_the_stop(clock: MockClock, tmp_path: Path) -> None:
    """G11: the ending that does not fit is left to the next start."""
    world = World(tmp_path)
    async with world.opened():
        await world.start()
        world.kit.fake.acts["hang"] = fakes.hang
        run = world.submit("hang")
        await quiet()
        world.store.fail_next(StoreError("disk_full", "no room"))
        world.host.stop()
        await run.ended.wait()
    assert (await world.record(run.id)).state is RunState.RUNNING
    async with next_start(world) as after:
        assert (await after.record(run.id)).outcome is Outcome.LOST


async def test_an_unused_workspace_closes_and_opens_again(clock: MockClock, world: World) -> None:
    """G6: not while a run goes on, somebody follows or a request is pending."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run = world.submit("gate")
    await trio.sleep(2_000)
    assert world.host.find_open(world.workspace.id) is world.workspace
    gate.go.set()
    await world.ended(run)
    with world.host.subscribing(world.workspace, None):
        await trio.sleep(2_000)
    with world.host.using(world.workspace):
        await trio.sleep(2_000)
    await trio.sleep(599)
    assert world.host.find_open(world.workspace.id) is world.workspace
    await trio.sleep(2)
    assert world.host.find_open(world.workspace.id) is None
    assert world.workspace.closed.is_set()
    again = await world.host.open(world.workspace.id)
    assert again is not world.workspace
    assert again.last_accept == world.workspace.last_accept == 1
    world.workspace = again
    world.session = await again.session(world.session.id)
    (record,) = await world.ended(world.submit("hello"))
    assert record.accept_seq == 2


async def test_a_request_that_meets_a_closing_workspace_waits_and_opens_it_again(
    clock: MockClock, world: World
) -> None:
    """G5: deciding to close and leaving the index are one step."""
    world.kit.fake.acts["stubborn"] = fakes.stubborn
    run = world.submit("stubborn")
    await quiet()
    world.host.close(world.workspace)
    with pytest.raises(Refused) as refused:
        world.submit("late")
    assert refused.value.code == "workspace_closing"
    again = await world.host.open(world.workspace.id)
    assert world.workspace.closed.is_set()
    assert again is not world.workspace
    assert (await world.ended(run))[0].outcome is Outcome.CANCELLED
    world.workspace = again
    world.session = await again.session(world.session.id)
    await world.ended(world.submit("hello"))


async def test_many_who_open_at_once_get_one(
    clock: MockClock, world: World, tmp_path: Path
) -> None:
    """R22: also if the first of them goes away."""
    path = tmp_path / "sub"
    got = []

    async def open_it() -> None:
        got.append(await world.host.by_path(path))

    async def leave_early() -> None:
        with trio.move_on_after(1):
            await open_it()

    world.store.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_early)
        for _ in range(5):
            nursery.start_soon(open_it)
        await trio.sleep(2)
        world.store.resume()
    assert len(got) == 5
    assert len({id(each) for each in got}) == 1
    assert len([row for row in world.host.known.values() if row.path == str(path)]) == 1


class DeafStore(MemoryStore):
    """Cannot tell where a journal ends, so many times."""

    deaf = 0

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """Fail, or as ever."""
        await trio.lowlevel.checkpoint()
        if self.deaf:
            self.deaf -= 1
            raise StoreError("store_failed", "cannot be read")
        return await super().last_seq(workspace_id)


async def test_a_workspace_that_cannot_be_opened_tells_everybody_who_waits(
    clock: MockClock, tmp_path: Path
) -> None:
    """G6, G14: the others go on, and it can be tried again."""
    world = World(tmp_path)
    store = DeafStore(publish=lambda ws, events: world.journal.publish(ws, events))
    world.store = store
    async with world.opened():
        await world.start()
        store.deaf = 1
        failures: list[StoreError] = []

        async def open_it() -> None:
            try:
                await world.host.open(row.id)
            except StoreError as exc:
                failures.append(exc)

        row = await world.host._remember(tmp_path / "other")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(open_it)
        assert len(failures) == 3
        assert (await world.host.open(row.id)).path == tmp_path / "other"
        await world.ended(world.submit("hello"))
        await world.check()


async def test_purging_is_refused_while_runs_are_open_and_final_after(
    clock: MockClock, world: World
) -> None:
    """G14: its path then names a new workspace."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    run = world.submit("gate")
    await gate.reached.wait()
    with pytest.raises(Refused) as refused:
        await world.host.purge(world.workspace.id)
    assert refused.value.code == "open_runs"
    gate.go.set()
    await world.ended(run)
    old = world.workspace.id
    results = []

    async def again() -> None:
        await quiet()
        results.append(await world.host.by_path(world.path))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again)
        nursery.start_soon(again)
        await world.host.purge(old)
    assert results[0] is results[1]
    assert results[0].id != old
    with pytest.raises(Refused, match="no workspace"):
        await world.host.open(old)
    assert await world.store.run(run.id) is None
    world.workspace = results[0]
    world.session = await world.new_session()
    await world.ended(world.submit("hello"))


async def test_a_purge_meets_somebody_who_opens(clock: MockClock, world: World) -> None:
    """G2: what is open is closed first; nobody is left with half a workspace."""
    world.kit.close_s = 0
    await world.ended(world.submit("hello"))
    world.host.close(world.workspace)
    outcome: list[Workspace | Refused] = []

    async def reopen() -> None:
        try:
            outcome.append(await world.host.open(world.workspace.id))
        except Refused as exc:
            outcome.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reopen)
        nursery.start_soon(world.host.purge, world.workspace.id)
    assert len(outcome) == 1
    assert world.host.find_open(world.workspace.id) is None
    assert world.workspace.id not in world.host.known
    await world.start()


async def test_an_idle_host_says_so(clock: MockClock, world: World) -> None:
    """G6."""
    assert world.host.is_idle()
    world.kit.fake.acts["hang"] = fakes.hang
    run = world.submit("hang")
    assert not world.host.is_idle()
    world.session.cancel(ME)
    await world.ended(run)
    assert world.host.is_idle()


async def test_the_idle_time_can_be_chosen(clock: MockClock, tmp_path: Path) -> None:
    """G6."""
    world = World(tmp_path, options=HostOptions(idle_timeout_s=3))
    async with world.opened():
        await world.start()
        await trio.sleep(4)
        assert world.host.workspaces() == ()


async def test_a_run_that_resists_the_stop_still_gets_its_ending(
    clock: MockClock, tmp_path: Path
) -> None:
    """G1, G11: the drain task is shielded; what bounds it is the watchdog of the process."""

    async def resists(request: ModelRequest, emit: Emit) -> StepEnd:
        with trio.CancelScope(shield=True):
            await trio.sleep(limits.SHUTDOWN_RUNS_S + 3)
        await trio.sleep_forever()
        raise AssertionError

    world = World(tmp_path)
    async with world.opened():
        await world.start()
        world.kit.fake.acts["go"] = resists
        run = world.submit("go")
        await world.kit.fake.asked.wait()
    assert (await world.record(run.id)).outcome is Outcome.CANCELLED


async def test_a_run_whose_acceptance_is_on_its_way_when_the_server_stops_is_not_begun(
    clock: MockClock, tmp_path: Path
) -> None:
    """G2, G11: it was promised, and it is still queued."""
    world = World(tmp_path)
    async with world.opened():
        await world.start()
        world.store.pause()
        run = world.submit("hello")
        await quiet()
        world.host.stop()
        world.store.resume()
        await run.accepted.wait()
    assert (await world.record(run.id)).state is RunState.QUEUED
    assert not world.kit.fake.requests


async def test_who_meets_a_workspace_that_has_just_ended_is_still_answered(
    clock: MockClock, world: World
) -> None:
    """G2, G4: a handler that looked the session up meanwhile cancels durably, or is refused."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, waiting = world.submit("hang"), world.submit("next")
    await quiet()
    ended = world.workspace
    world.host.close(ended)
    await ended.closed.wait()
    assert (await world.record(running.id)).outcome is Outcome.CANCELLED
    receipt = (await world.session.cancel(ME).wait()).value
    assert [(each.run_id, each.was) for each in receipt.runs] == [(waiting.id, "queued")]
    assert (await world.record(waiting.id)).outcome is Outcome.CANCELLED
    with pytest.raises(StoreError, match="just closed"):
        await delete_session(ended, world.session.id, ME)
