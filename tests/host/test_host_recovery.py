"""What a start owes to the runs that the last server left open."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from crush_trio.agent.ports import ToolContext, ToolResult
from crush_trio.agent.transcript import is_valid
from crush_trio.host import recovery
from crush_trio.host.host import HostOptions
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import RunId, WorkspaceId
from crush_trio.protocol.runs import LeftProcess, Outcome, RunState
from crush_trio.store.contract import Commit, StoredEvent, Ticket
from crush_trio.store.memory import MemoryStore
from tests.host import fakes
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import ME, World, fork, next_start, payload, quiet


async def busy(world: World) -> None:
    """r1 has streamed, r2 and r3 wait; in another session r4 is in a tool and marked."""

    async def stay(context: ToolContext) -> ToolResult:
        await trio.sleep_forever()
        raise AssertionError

    world.kit.tools = (FakeTool("stay", stay),)
    world.kit.close_s = 1
    world.kit.fake.acts |= {"hang": fakes.hang, "tools": ask_for("stay", "stay")}
    world.submit("hang")
    world.submit("two")
    world.submit("three")
    world.submit("tools", session=await world.new_session())
    await trio.sleep(1.5)


async def test_what_ran_is_lost_and_what_waited_goes_on(clock: MockClock, world: World) -> None:
    """G1, G2, G7: nothing that had begun is repeated; text and calls are kept."""
    await busy(world)
    async with next_start(world) as after:
        await after.all_ended()
        runs = {record.id: record for record in await after.all_runs()}
        outcomes = [runs[name].outcome for name in sorted(runs)]
        assert outcomes == [Outcome.LOST, Outcome.COMPLETED, Outcome.COMPLETED, Outcome.LOST]
        assert runs[RunId("r1")].text == "so far"
        assert runs[RunId("r1")].error == recovery.LOST
        assert [fakes.prompt_of(request) for request in after.kit.fake.requests] == ["two", "three"]
        (other,) = [s for s in await after.store.sessions(after.workspace.id) if "tools" in s.title]
        results = [p for m in await after.store.messages(other.id) for p in m.tool_results()]
        assert len(results) == 2
        assert all("may have run in part" in part.content for part in results)


async def test_a_promised_cancel_is_kept(clock: MockClock, world: World) -> None:
    """G2, G4: a marked run ends cancelled, by whom it was; a queued one had ended already."""
    await busy(world)
    world.kit.close_s = 2
    ticket = world.session.cancel(ME)
    await ticket.wait()
    async with next_start(world) as after:
        record = await after.record("r1")
        assert (record.outcome, record.cancelled_by) == (Outcome.CANCELLED, ME)
        assert (await after.record("r2")).outcome is Outcome.CANCELLED
        assert record.text == "so far"


async def test_a_run_cancelled_before_its_start_was_stored_stays_cancelled(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G2, G4: it had begun, but all that is stored is that it waits, and the mark."""
    reading = trio.Event()

    async def read(*_: object) -> tuple[()]:
        reading.set()
        await trio.sleep_forever()
        raise AssertionError

    marked: list[MemoryStore] = []
    publish = world.journal.publish

    def keep(workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        publish(workspace_id, events)
        if not marked and any(payload(e).get("cancelled_by") for e in events):
            marked.append(fork(world.store, world))

    monkeypatch.setattr(world.store, "messages", read)
    monkeypatch.setattr(world.journal, "publish", keep)
    run = world.submit("hello")
    await reading.wait()
    await world.session.cancel(ME).wait()
    monkeypatch.undo()
    await run.ended.wait()
    async with next_start(world, marked[0]) as after:
        record = await after.record(run.id)
        assert (record.outcome, record.cancelled_by) == (Outcome.CANCELLED, ME)
        assert not after.kit.fake.requests


async def test_a_run_that_waited_too_long_is_stale(clock: MockClock, world: World) -> None:
    """G2: with 0 nothing is ever taken up again."""
    await busy(world)
    world.options = HostOptions(requeue_within_s=0)
    async with next_start(world) as after:
        record = await after.record("r2")
        assert (record.outcome, record.error) == (Outcome.LOST, recovery.STALE)
        assert [m.text() for m in await after.store.messages(record.session_id)][-4:] == [
            "two",
            "",
            "three",
            "",
        ]


async def test_a_run_whose_directory_is_gone_fails(
    clock: MockClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """G2: code workspace_missing."""
    world = World(tmp_path_factory.mktemp("gone"))
    async with world.opened():
        await world.start()
        await busy(world)
        shutil.rmtree(world.path)
        after = World(world.path)
        after.store = fork(world.store, after)
        async with after.opened():
            after.workspace = world.workspace
            record = await after.record("r2")
            assert (record.outcome, record.error) == (Outcome.FAILED, recovery.MISSING)
            assert (await after.record("r1")).outcome is Outcome.LOST


async def test_processes_of_the_dead_server_are_ended_first_and_named(
    clock: MockClock, world: World
) -> None:
    """G10: those that outlived it stand in the record of their run."""
    await busy(world)
    mine = LeftProcess(11, "then", "sleep 1000")
    other = LeftProcess(12, "then", "sleep 2000")
    for take, process in zip(world.kit.on_live, (mine, other), strict=True):
        take((process,))
    await quiet()
    after = World(world.path)
    after.kit.left = (other,)
    after.store = fork(world.store, after)
    async with after.opened():
        assert set(after.kit.killed) == {mine, other}
        left = {name: (await after.record(name)).processes.left for name in ("r1", "r4")}
        assert sorted(left.values(), key=len) == [(), (other,)]


T = TypeVar("T")


class DyingStore(MemoryStore):
    """Takes so many commits, then dies."""

    commits_left: int

    def commit_nowait(
        self, workspace_id: WorkspaceId, commit: Commit[T], *, relaxed: bool = False
    ) -> Ticket[T]:
        """Count, then as ever."""
        self.commits_left -= 1
        if self.commits_left < 0:
            raise StoreError("store_failed", "killed")
        return super().commit_nowait(workspace_id, commit, relaxed=relaxed)


async def test_recovery_can_be_killed_between_any_two_endings(
    clock: MockClock, world: World
) -> None:
    """G1, G2: what is done stays done, the rest is done at the next start."""
    await busy(world)
    world.options = HostOptions(requeue_within_s=0)
    for survived in range(4):
        first = World(world.path, options=world.options)
        image = fork(world.store, first)
        dying = DyingStore(publish=lambda ws, events: None)
        dying._tables = image._tables
        dying.commits_left = survived
        first.store = dying
        with pytest.RaisesGroup(StoreError, flatten_subgroups=True):
            async with first.opened():
                raise AssertionError("it cannot start")
        open_runs = len(await dying.open_runs())
        assert open_runs == 4 - survived
        async with next_start(world, dying) as after:
            assert all(r.state is RunState.FINISHED for r in await after.all_runs())


async def test_a_kill_after_any_commit_is_recovered_from(clock: MockClock, tmp_path: Path) -> None:
    """G1, G2, G7: prompts, tools, steering, cancel and a hand-over; killed after each commit."""
    world = World(tmp_path)
    images: list[MemoryStore] = []

    def publish(workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        images.append(fork(world.store, world))
        world.journal.publish(workspace_id, events)

    world.store = MemoryStore(publish=publish)

    async def look(context: ToolContext) -> ToolResult:
        await trio.sleep(0.5)
        return ToolResult("seen", read_paths=("/x",))

    world.kit.tools = (FakeTool("look", look),)
    world.kit.fake.acts |= {"tools": ask_for("look", "look"), "hang": fakes.hang}
    async with world.opened():
        await world.start()
        images.clear()
        runs = [world.submit("tools"), world.submit("steer", "steer"), world.submit("hang")]
        await trio.sleep(3)
        runs += [world.submit("four"), world.submit("five", "interrupt")]
        await world.ended(*runs)
    assert len(images) >= 10
    for image in images:
        async with next_start(world, image) as after:
            known = await after.all_runs()
            await after.all_ended()
            for record in known:
                transcript = await after.store.messages(record.session_id)
                assert is_valid(transcript)
                assert any(m.run_id == record.id for m in transcript)
            for request in after.kit.fake.requests:
                assert is_valid(request.messages)


async def test_outputs_of_what_is_not_stored_any_more_go_at_a_start(
    clock: MockClock, world: World
) -> None:
    """Contract 3: as a kill between a deletion's commit and its files leaves them."""
    await world.start()
    workspace, session = world.workspace.id, world.session.id
    after = World(world.path, options=world.options)
    after.store = fork(world.store, after)
    gone = f"{workspace}/gone"
    after.kit.left_outputs = (workspace, f"{workspace}/{session}", gone, "purged", "purged/gone")
    after.kit.stuck_outputs = ("purged",)
    async with after.opened():
        await quiet()
        assert after.kit.forgotten == [gone, "purged/gone"]
