"""A workspace's background jobs: commands that outlive the run that started them (G10).

Each has one owner task in the workspace's nursery, from before its process until nothing of that
is left. A job belongs to a session; it ends by itself, by a kill, with its session, or with the
workspace. Until it is kept (`Job.keep`) it is a command of its run, and ends with that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import Sandbox
from crush_trio.host.home import Home, commit_ending
from crush_trio.host.jobs import commits as job_commits
from crush_trio.host.jobs.job import Job
from crush_trio.host.jobs.live import JobLive
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.jobs import JobRecord, job_id_of
from crush_trio.protocol.runs import LeftProcess
from crush_trio.store.contract import Commit, Ticket

logger = logging.getLogger(__name__)


@attrs.frozen
class Order:
    """What a run asks for. ``session_ids`` are its session and that session's ancestors."""

    session_ids: tuple[SessionId, ...]
    run_id: RunId
    call_id: str
    command: str
    description: str
    cwd: Path
    env: Mapping[str, str]
    on_output: Callable[[str, str], None] | None
    sandbox: Sandbox | None = None


@attrs.define(eq=False)
class Jobs:
    """The background jobs of one open workspace, running and ended ones.

    ``past`` are the records of jobs that ended while the workspace was open before.
    """

    home: Home
    past: dict[int, JobRecord] = attrs.field(factory=dict, init=False)
    closed: bool = attrs.field(default=False, init=False)
    _jobs: dict[int, Job] = attrs.field(factory=dict, init=False)
    _last: int | None = attrs.field(default=None, init=False)
    _loading: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    # --- looking --------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is stored, once; everything below needs it.

        Raises:
            StoreError: It cannot be read.
        """
        async with self._loading:  # held across two reads: numbers must be given once
            if self._last is None:
                rows = await self.home.store.jobs(self.home.id)
                last = await self.home.store.last_job(self.home.id)
                self.past = {row.number: row.record for row in rows}
                self._last = last
                self._prune()

    def find(self, job_id: str) -> Job | None:
        """A job that was started since the workspace was opened, and is known."""
        wanted = job_id.strip().upper()
        return next((job for job in self._jobs.values() if job.record.job_id == wanted), None)

    def of_sessions(self, session_ids: Iterable[SessionId]) -> tuple[Job, ...]:
        """The background jobs of some sessions, oldest first."""
        wanted = set(session_ids)
        return tuple(
            job for job in self._jobs.values() if job.listed and job.record.session_id in wanted
        )

    def records(self, session_id: str | None = None) -> tuple[JobRecord, ...]:
        """The records of all background jobs that are kept, oldest first."""
        self._prune()
        found = dict(self.past)
        found |= {job.number: job.shown() for job in self._jobs.values() if job.listed}
        return tuple(
            record for _, record in sorted(found.items()) if session_id in (None, record.session_id)
        )

    def is_running(self) -> bool:
        """Whether any job goes on."""
        return any(not job.settled for job in self._jobs.values())

    # --- starting -------------------------------------------------------------------------

    def begin(self, order: Order) -> Job:
        """A job whose owner task is on its way; synchronous, after `load`.

        Raises:
            Refused: ``too_many_jobs`` or ``workspace_closing``.
        """
        if self.closed or self._last is None:
            raise Refused("workspace_closing", "The workspace is being closed.")
        if sum(not job.settled for job in self._jobs.values()) >= limits.JOBS_RUNNING:
            raise Refused(
                "too_many_jobs",
                f"{limits.JOBS_RUNNING} background jobs are running, which is the most; end one "
                "with job_kill, or wait for one.",
            )
        self._prune()
        self._last += 1
        record = JobRecord(
            job_id=job_id_of(self._last),
            workspace_id=self.home.id,
            session_id=order.session_ids[0],
            origin_run=order.run_id,
            tool_call_id=order.call_id,
            command=order.command,
            description=order.description,
            working_dir=str(order.cwd),
            started_at_ms=time.time_ns() // 1_000_000,
        )
        job = Job(self._last, record, self._live(order, record.job_id), self._keep, order.on_output)
        folder = f"{self.home.id}/{record.session_id}"
        job.process = self.home.kit.job_process(
            partial(self._note_live, job),
            folder,
            f"job-{record.job_id}",
            job.show,
            job.grow,
            order.sandbox,
        )
        self._jobs[job.number] = job
        self.home.nursery.start_soon(self._own, job, order)
        return job

    def _live(self, order: Order, job_id: str) -> JobLive:
        bound = limits.TOOL_OUTPUT_LIVE_BYTES
        return JobLive(
            self.home.feed, order.session_ids, order.run_id, order.call_id, bound, job_id
        )

    async def _own(self, job: Job, order: Order) -> None:
        """The owner task: the process, then its end, then the commit that says so."""
        try:
            with job.scope:
                await job.process.run(order.command, cwd=order.cwd, env=order.env)
                job.exited = True
        except (OSError, StoreError) as exc:
            job.failure = exc
        except Exception as exc:  # one command must not end the workspace, and the server with it
            logger.exception("job %s failed", job.record.job_id)
            job.failure = exc
        finally:
            with trio.CancelScope(shield=True):  # bounds: KILL_TOTAL_S, and one commit
                await self._settle(job)

    def _note_live(self, job: Job, live: tuple[LeftProcess, ...]) -> None:
        """The process is there: remember it for recovery, and announce the job if it is one."""
        if live and not job.started.is_set():
            job.processes = live
            ticket = self._commit(job_commits.started(job.row()))
            job.started.set()
            if job.listed:
                self.home.nursery.start_soon(self._announce, job, ticket, True)

    def _keep(self, job: Job) -> None:
        """A command of a run becomes a background job; raises `StoreError`."""
        ticket = self._commit(job_commits.kept(job.row()))
        job.listed = True
        self.home.nursery.start_soon(self._announce, job, ticket, False)

    async def _announce(self, job: Job, ticket: Ticket[None], again: bool) -> None:
        """Show its output in its own name, once the event that creates it is out."""
        try:
            await ticket.wait()
        except StoreError as exc:
            logger.error("job %s could not be stored, and is ended: %s", job.record.job_id, exc)
            job.stop()
        else:
            job.live.announce(again=again)

    # --- ending ---------------------------------------------------------------------------

    async def _settle(self, job: Job) -> None:
        report = await job.process.aclose()
        job.live.close()
        job.settle(report)
        if not job.started.is_set():  # there was no process
            del self._jobs[job.number]
            job.started.set()
        elif job.listed:
            await commit_ending(self.home, job_commits.ended(job.row()))
        else:
            del self._jobs[job.number]
            await commit_ending(self.home, job_commits.forgotten((job.record,), listed=False))
        job.ended.set()
        job.grow()

    async def end_sessions(self, session_ids: Iterable[SessionId]) -> None:
        """End the jobs of sessions that are being deleted, and forget them."""
        doomed = set(session_ids)
        mine = [job for job in self._jobs.values() if job.record.session_id in doomed]
        for job in mine:
            job.stop()
        for job in mine:
            await job.ended.wait()
            self._jobs.pop(job.number, None)
        self.past = {
            number: record
            for number, record in self.past.items()
            if record.session_id not in doomed
        }

    def stop(self) -> None:
        """Begin no more and end all of them. Idempotent, never waits."""
        self.closed = True
        for job in self._jobs.values():
            job.stop()
            job.grow()

    def _prune(self) -> None:
        """Forget what ended long ago, and the oldest of too many."""
        ended = {n: job.record for n, job in self._jobs.items() if job.settled and job.listed}
        kept = dict(sorted((self.past | ended).items()))
        now_ms = time.time_ns() // 1_000_000
        too_old = now_ms - int(limits.JOB_KEPT_S * 1000)
        gone = [n for n, record in kept.items() if (record.ended_at_ms or now_ms) < too_old]
        rest = [number for number in kept if number not in gone]
        gone += rest[: max(0, len(rest) - limits.JOBS_KEPT)]
        if gone:
            with suppress(StoreError):  # it is tried again at the next look
                self._commit(job_commits.forgotten([kept[n] for n in gone], listed=True))
                for number in gone:
                    self.past.pop(number, None)
                    self._jobs.pop(number, None)

    def _commit(self, commit: Commit[None]) -> Ticket[None]:
        return self.home.store.commit_nowait(self.home.id, commit)
