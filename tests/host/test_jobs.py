"""Background jobs in virtual time: who owns them, when they end, what is said of them (G10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ToolContext, ToolResult
from crush_trio.host.jobs.job import Job, _whole_characters
from crush_trio.host.jobs.jobs import Jobs
from crush_trio.host.jobs.run_jobs import RunJobs
from crush_trio.host.session_life import delete_session
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.jobs import JobState
from crush_trio.protocol.runs import LeftProcess, Outcome
from tests.host.fakes import FakeJob, FakeTool, ask_for, silent
from tests.host.world import ME, World, change, fork, next_start, payload, quiet

Show = Callable[[str, str], None]


def view(world: World, run: str = "r") -> RunJobs:
    """What a run of the world's session may do with jobs."""
    return RunJobs(jobs_of(world), (world.session.id,), RunId(run))


def jobs_of(world: World) -> Jobs:
    return world.workspace.home.jobs


async def start(jobs: RunJobs, command: str = "serve", on_output: Show | None = None) -> Job:
    return await jobs.start(
        command,
        description="",
        cwd=Path("/"),
        env={},
        call_id="call",
        on_output=on_output,
    )


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    """What the journal says of jobs."""
    await quiet()
    return [(change(e), payload(e)) for e in await world.events() if e.kind == "job"]


async def test_a_workspace_with_a_running_job_does_not_close_for_being_idle(
    world: World, clock: MockClock
) -> None:
    job = await start(view(world))
    await trio.sleep(3 * limits.IDLE_TIMEOUT_S)
    assert world.host.find_open(world.workspace.id) is world.workspace
    assert not world.host.is_idle()
    world.kit.jobs[0].exit.set()
    await job.ended.wait()
    await trio.sleep(2 * limits.IDLE_TIMEOUT_S)
    assert world.host.find_open(world.workspace.id) is None


async def test_a_job_is_told_of_when_it_begins_and_when_it_has_ended(
    world: World, clock: MockClock
) -> None:
    job = await start(view(world))
    world.kit.jobs[0].say("hello")
    world.kit.jobs[0].exit.set()
    await job.ended.wait()
    begun, ended = await told(world)
    assert (begun[0], begun[1]["state"], begun[1]["output_bytes"]) == ("created", "running", 0)
    assert (ended[0], ended[1]["state"], ended[1]["exit_code"]) == ("updated", "exited", 3)
    assert (ended[1]["output_bytes"], ended[1]["origin_run"]) == (5, "r")
    assert all(e.run_id is None for e in await world.events() if e.kind == "job")


async def test_one_job_too_many_is_refused_and_makes_room_for_itself_later(
    world: World, monkeypatch: pytest.MonkeyPatch, clock: MockClock
) -> None:
    monkeypatch.setattr(limits, "JOBS_RUNNING", 2)
    first, _ = await start(view(world)), await start(view(world, "other"))
    with pytest.raises(Refused) as refused:
        await start(view(world))
    assert refused.value.code == "too_many_jobs"
    await first.kill()
    third = await start(view(world))
    assert third.record.job_id == "003"


async def test_only_the_newest_ended_jobs_are_kept_and_the_others_are_said_to_be_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, clock: MockClock
) -> None:
    monkeypatch.setattr(limits, "JOBS_KEPT", 2)
    for _ in range(4):
        await (await start(view(world))).kill()
    running = await start(view(world))
    assert [r.job_id for r in jobs_of(world).records()] == ["003", "004", "005"]
    gone = [p["job_id"] for kind, p in await told(world) if kind == "deleted"]
    assert gone == ["001", "002"]
    assert view(world).find("001") is None
    monkeypatch.setattr(limits, "JOB_KEPT_S", -1.0)
    assert jobs_of(world).records() == (running.record,), "a running job is never too old"


async def test_a_command_that_cannot_be_started_was_never_a_job(
    world: World, clock: MockClock
) -> None:
    with pytest.raises(FileNotFoundError):
        await start(view(world), "broken")
    assert await told(world) == []
    assert jobs_of(world).records() == ()
    assert not jobs_of(world).is_running()
    assert await world.store.running_jobs() == ()


async def test_a_job_that_cannot_be_stored_does_not_go_on(world: World, clock: MockClock) -> None:
    await jobs_of(world).load()
    world.store.fail_next(StoreError("disk_full", "full"))
    job = await start(view(world))
    await job.ended.wait()
    assert job.record.state is JobState.KILLED
    assert not jobs_of(world).is_running()


async def test_a_command_is_its_runs_until_it_is_kept(world: World, clock: MockClock) -> None:
    jobs = view(world)
    shown: list[tuple[str, str]] = []
    mine = await start(jobs, on_output=lambda stream, text: shown.append((stream, text)))
    kept = await start(jobs, on_output=lambda stream, text: None)
    world.kit.jobs[0].say("hello")
    assert shown == [("stdout", "hello")]
    assert await told(world) == []
    assert [row.record.job_id for row in await world.store.running_jobs()] == ["001", "002"]
    assert kept.keep()
    assert kept.keep(), "again changes nothing"
    report = await jobs.aclose()
    assert (report.started, report.killed, report.left) == (2, 1, ())
    assert mine.settled
    assert not mine.keep(), "it is too late"
    assert [kind for kind, _ in await told(world)] == ["created"]
    assert [row.record.job_id for row in await world.store.running_jobs()] == ["002"]
    assert [job.record.job_id for job in jobs.known()] == ["002"]


async def test_a_command_that_is_told_to_end_cannot_become_a_job(
    world: World, clock: MockClock
) -> None:
    world.kit.job_close_s = 2.0
    jobs = view(world)
    job = await start(jobs, on_output=lambda stream, text: None)
    jobs.stop()
    assert not job.keep()
    await jobs.aclose()
    assert await told(world) == []


async def test_cancelling_a_run_ends_its_commands_and_leaves_its_jobs(
    world: World, clock: MockClock
) -> None:
    started: list[Job] = []
    both_run = trio.Event()

    async def both(context: ToolContext) -> ToolResult:
        assert isinstance(context.jobs, RunJobs)
        started.append(await start(context.jobs, "job"))
        started.append(await start(context.jobs, "command", context.output))
        both_run.set()
        await trio.sleep_forever()
        raise AssertionError

    world.kit.tools = (FakeTool("both", both),)
    world.kit.fake.acts = {"go": ask_for("both", then=silent)}
    run = world.submit("go")
    await both_run.wait()
    world.session.cancel(ME)
    [record] = await world.ended(run)
    assert record.outcome is Outcome.CANCELLED
    assert (record.processes.started, record.processes.killed) == (3, 1), "one is the fake host's"
    assert [job.settled for job in started] == [False, True]
    await started[0].kill()
    events = await world.events()
    assert [e.kind for e in events if e.run_id == run.id][-1] == "run_complete"
    assert events[-1].kind == "job"


async def test_a_run_that_must_end_before_its_command_has_names_what_is_left(
    world: World, clock: MockClock
) -> None:
    """G10: the report has the rest, too."""

    async def command(context: ToolContext) -> ToolResult:
        assert isinstance(context.jobs, RunJobs)
        await start(context.jobs, on_output=lambda stream, text: None)
        await trio.sleep_forever()
        raise AssertionError

    world.kit.tools = (FakeTool("command", command),)
    world.kit.fake.acts["go"] = ask_for("command")
    world.kit.job_close_s = limits.RUN_CLEANUP_S + 1
    run = world.submit("go")
    await quiet()
    world.session.cancel(ME)
    (record,) = await world.ended(run)
    assert (record.processes.started, record.processes.killed) == (2, 0)
    assert [process.pid for process in record.processes.left] == [1]


async def test_deleting_a_session_waits_for_its_jobs(world: World, clock: MockClock) -> None:
    other = await world.new_session()
    world.kit.job_close_s = 2.0
    job = await start(view(world))
    await delete_session(world.workspace, world.session.id, ME)
    assert job.ended.is_set()
    assert jobs_of(world).records() == ()
    assert [row.number for row in await world.store.jobs(world.workspace.id)] == []
    kinds = [(e.kind, change(e)) for e in await world.events()]
    assert kinds[-1] == ("session", "deleted")
    world.session = other
    assert (await start(view(world))).record.job_id == "002"


@pytest.mark.parametrize("how", ["close", "end", "stop"])
async def test_leaving_a_workspace_ends_its_jobs_and_begins_no_more(
    world: World, how: str, clock: MockClock
) -> None:
    world.kit.job_close_s = 2.0
    job = await start(view(world))
    jobs = jobs_of(world)
    if how == "close":
        world.host.close(world.workspace)
    elif how == "end":
        await world.host.end(world.workspace.id, ME)
    else:
        world.host.stop()
    await world.workspace.closed.wait()
    assert job.record.state is JobState.KILLED
    [row] = await world.store.jobs(world.workspace.id)
    assert (row.record, row.processes) == (job.record, ())
    with pytest.raises(Refused):
        await start(RunJobs(jobs, (world.session.id,), RunId("r")))


async def test_the_next_start_ends_and_reports_the_jobs_of_a_server_that_died(
    world: World, clock: MockClock
) -> None:
    """Also when it is itself killed right after; a command that was no job leaves nothing."""
    await start(view(world))
    await start(view(world), on_output=lambda stream, text: None)
    await quiet()
    async with next_start(world) as second:
        killed = {process.pid for process in second.kit.killed}
        assert killed == {1, 2}
        async with next_start(second) as third:
            assert third.kit.killed == []
            [record] = await third.store.jobs(world.workspace.id)
            assert record.record.state is JobState.LOST
            assert record.record.ended_at_ms is not None
            assert [kind for kind, _ in await told(third)] == ["created", "updated"]
            third.session = await third.new_session()
            assert (await start(view(third))).record.job_id == "003"
            assert [r.job_id for r in jobs_of(third).records()] == ["001", "003"]


async def test_what_could_not_be_ended_is_named(world: World, clock: MockClock) -> None:
    await start(view(world))
    await quiet()
    stubborn = LeftProcess(1, "1@boot", "serve")
    again = World(world.path)
    again.kit.left = (stubborn, LeftProcess(99, "1@boot", "another's"))
    again.store = fork(world.store, again)
    async with again.opened():
        [row] = await again.store.jobs(world.workspace.id)
    assert row.record.left == (stubborn,)


async def test_who_waits_for_output_is_woken_by_it_by_the_end_and_by_closing(
    world: World, clock: MockClock
) -> None:
    job = await start(view(world))
    fake = world.kit.jobs[0]
    began = trio.current_time()
    await job.wait_output(0, 7)
    assert trio.current_time() - began == pytest.approx(7)
    wakes: tuple[Callable[[], None], ...] = (lambda: fake.say("more"), fake.exit.set)
    for wake in wakes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.wait_output, len(fake.output), 1000)
            await quiet()
            wake()
        assert trio.current_time() - began < 10
    second = await start(view(world))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.wait_output, 0, 1000)
        await quiet()
        world.host.close(world.workspace)
    assert trio.current_time() - began < 10


async def test_a_job_whose_process_cannot_be_followed_ends_alone(
    world: World, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def garbled(process: FakeJob, command: str, **_: object) -> int:
        process.on_live((LeftProcess(process.pid, "1@boot", command),))
        await trio.sleep(1)
        raise ExceptionGroup("its launcher talks nonsense", [ValueError()])

    monkeypatch.setattr(FakeJob, "run", garbled)
    job = await start(view(world))
    await job.ended.wait()
    assert world.host.find_open(world.workspace.id) is world.workspace
    assert [(what, said["state"]) for what, said in await told(world)] == [
        ("created", "running"),
        ("updated", "killed"),
    ]


async def test_output_is_read_in_whole_characters(world: World, clock: MockClock) -> None:
    job = await start(view(world))
    world.kit.jobs[0].say("aé\N{GRINNING FACE}z")
    pieces, after = [], 0
    for _ in range(3):
        piece = await job.read(after, 4)
        pieces.append(piece.data)
        after = piece.next
    assert pieces == ["aé", "\N{GRINNING FACE}", "z"]
    assert not piece.done
    world.kit.jobs[0].exit.set()
    await job.ended.wait()
    end = await job.read(after, 4)
    assert (end.data, end.next, end.done) == ("", 8, True)


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", b""),
        (b"ab", b"ab"),
        ("é".encode(), "é".encode()),
        (b"a\xc3", b"a"),
        (b"a\xf0\x9f\x98", b"a"),
        ("a\N{GRINNING FACE}".encode(), "a\N{GRINNING FACE}".encode()),
        (b"\x80\x80\x80\x80", b"\x80\x80\x80\x80"),
    ],
)
def test_a_character_at_the_end_is_kept_back_until_it_is_whole(data: bytes, whole: bytes) -> None:
    assert _whole_characters(data) == whole
