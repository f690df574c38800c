"""What is kept of background jobs, alike in both stores (G10)."""

from __future__ import annotations

import attrs
import pytest

from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.jobs import JobRecord, JobState, job_id_of
from crush_trio.protocol.runs import LeftProcess
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import ConstraintError, JobRow, WorkspaceRow
from tests.store.conftest import Bench
from tests.store.samples import S, W

BELOW = SessionId("below")
PROCESS = LeftProcess(7, "12@boot", "launcher")


def job(number: int, session: SessionId = S, *, listed: bool = True) -> JobRow:
    record = JobRecord(
        job_id_of(number), W, session, RunId("r"), "call", "make", "build", "/w", started_at_ms=1
    )
    return JobRow(record, number, listed, (PROCESS,))


def ended(row: JobRow) -> JobRow:
    return attrs.evolve(
        row, record=attrs.evolve(row.record, state=JobState.EXITED, exit_code=3), processes=()
    )


def test_job_ids_are_upper_case_hex_of_three_digits_or_more() -> None:
    assert [job_id_of(number) for number in (1, 10, 0xABC, 0x1000)] == ["001", "00A", "ABC", "1000"]


async def test_a_job_is_kept_as_it_was_put_last(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.put_job(job(1)))
    await bench.commit(lambda tx: tx.put_job(job(2)))
    assert await bench.store.jobs(W) == (job(1), job(2))
    await bench.commit(lambda tx: tx.put_job(ended(job(1))))
    assert await bench.store.jobs(W) == (ended(job(1)), job(2))
    assert await bench.store.running_jobs() == (job(2),)


async def test_a_command_that_is_not_listed_is_known_to_recovery_alone(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.put_job(job(1, listed=False)))
    assert await bench.store.jobs(W) == ()
    assert await bench.store.running_jobs() == (job(1, listed=False),)
    shot = await bench.store.snapshot(W, None, messages=0, before=None)
    assert shot.jobs == ()


async def test_a_snapshot_has_the_running_jobs_of_its_session_and_those_below(
    bench: Bench,
) -> None:
    await bench.commit(lambda tx: tx.put_session(Session(BELOW, parent_session_id=S)))
    await bench.commit(lambda tx: tx.put_session(Session(SessionId("other"))))
    rows = (job(1), job(2, BELOW), job(3, SessionId("other")), ended(job(4)))
    for row in rows:
        await bench.commit(lambda tx, row=row: tx.put_job(row))
    whole = await bench.store.snapshot(W, None, messages=0, before=None)
    one = await bench.store.snapshot(W, S, messages=0, before=None)
    assert whole.jobs == rows[:3]
    assert one.jobs == rows[:2]
    assert await bench.store.jobs(W, S) == (job(1), ended(job(4)))


async def test_a_number_is_never_given_twice(bench: Bench) -> None:
    assert await bench.store.last_job(W) == 0
    await bench.commit(lambda tx: tx.put_job(job(5)))
    await bench.commit(lambda tx: tx.put_job(job(2)))
    await bench.commit(lambda tx: tx.remove_job("005"))
    await bench.commit(lambda tx: tx.remove_job("005"))
    assert [row.number for row in await bench.store.jobs(W)] == [2]
    assert await bench.store.last_job(W) == 5
    await bench.commit(lambda tx: tx.remove_workspace())
    assert await bench.store.jobs(W) == ()
    assert await bench.store.last_job(W) == 5


async def test_jobs_go_with_their_session(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.put_job(job(1)))
    await bench.commit(lambda tx: tx.remove_session(S))
    assert await bench.store.running_jobs() == ()
    with pytest.raises(ConstraintError):
        await bench.commit(lambda tx: tx.put_job(job(2)))


async def test_a_failed_commit_leaves_jobs_and_numbers_as_they_were(bench: Bench) -> None:
    def failing(tx: object) -> None:
        tx.put_job(job(1))  # type: ignore[attr-defined]
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        await bench.commit(failing)
    await bench.commit(lambda tx: tx.put_workspace(WorkspaceRow(W, "/w", 5)))
    assert await bench.store.running_jobs() == ()
    assert await bench.store.last_job(W) == 0
