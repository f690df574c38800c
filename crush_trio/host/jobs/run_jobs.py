"""What one run may do with its workspace's background jobs; an `agent.ports.JobHost`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from crush_trio.agent.ports import Sandbox
from crush_trio.host.jobs.job import Job
from crush_trio.host.jobs.jobs import Jobs, Order
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.runs import ProcessReport


@attrs.define(eq=False)
class RunJobs:
    """Starts jobs in a run's name, and shows the run those of its session.

    ``session_ids`` are the run's session and that session's ancestors; ``sandbox`` is what it may
    touch, and its jobs with it.
    """

    jobs: Jobs
    session_ids: tuple[SessionId, ...]
    run_id: RunId
    sandbox: Sandbox | None = attrs.field(default=None, init=False)
    _mine: list[Job] = attrs.field(factory=list, init=False)

    async def start(
        self,
        command: str,
        *,
        description: str,
        cwd: Path,
        env: Mapping[str, str],
        call_id: str,
        on_output: Callable[[str, str], None] | None,
    ) -> Job:
        """See `agent.ports.JobHost`."""
        await self.jobs.load()
        job = self.jobs.begin(
            Order(
                self.session_ids,
                self.run_id,
                call_id,
                command,
                description,
                cwd,
                env,
                on_output,
                self.sandbox,
            )
        )
        self._mine.append(job)  # before anything can be cancelled: it ends with the run
        await job.started.wait()
        if job.failure is not None:
            raise job.failure
        return job

    def find(self, job_id: str) -> Job | None:
        """See `agent.ports.JobHost`."""
        job = self.jobs.find(job_id)
        return job if job is not None and job in self.known() else None

    def known(self) -> tuple[Job, ...]:
        """See `agent.ports.JobHost`."""
        return self.jobs.of_sessions(self.session_ids[:1])

    def stop(self) -> None:
        """Begin to end what was not kept. Never waits."""
        for job in self._mine:
            if not job.listed:
                job.stop()

    async def aclose(self) -> ProcessReport:
        """End what was not kept; how many the run has started, and what became of those."""
        self.stop()
        for job in self._mine:
            if not job.listed:
                await job.ended.wait()
        return self.report()

    def report(self) -> ProcessReport:
        """The same as far as it is known now: what has not ended is ``left``."""
        mine = [job for job in self._mine if not job.listed]
        return ProcessReport(
            started=sum(job.process_began for job in self._mine),
            killed=sum(job.report.killed for job in mine),
            left=tuple(
                process
                for job in mine
                for process in (job.report.left if job.settled else job.processes)
            ),
        )
