"""Background jobs as they are stored, and what a store does with them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Protocol

import attrs

from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.jobs import JobRecord, JobState
from crush_trio.protocol.runs import LeftProcess


@attrs.frozen
class JobRow:
    """A command that may outlive its run, as stored.

    ``number`` is its place among the workspace's jobs. ``listed`` says whether it is a background
    job already: until then it is a command in the foreground, kept here so that recovery knows its
    ``processes`` (G10).
    """

    record: JobRecord
    number: int
    listed: bool = True
    processes: tuple[LeftProcess, ...] = ()


def running(rows: Iterable[JobRow], sessions: Container[str] | None) -> tuple[JobRow, ...]:
    """Those that have not ended, of these sessions (``None``: of any)."""
    return tuple(
        row
        for row in rows
        if row.record.state is JobState.RUNNING
        and (sessions is None or row.record.session_id in sessions)
    )


class JobWrites(Protocol):
    """The part of a `store.contract.Transaction` that is about background jobs."""

    def put_job(self, row: JobRow) -> None:
        """Insert a job of this workspace, or replace what is stored of it.

        Raises:
            ConstraintError: Its session does not exist.
        """
        ...

    def remove_job(self, job_id: str) -> None:
        """Forget a job of this workspace; its number is not given again. Twice is fine."""
        ...


class JobReads(Protocol):
    """The part of a `store.contract.Store` that is about background jobs."""

    async def jobs(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[JobRow, ...]:
        """The listed jobs of a workspace, or of one session, oldest first."""
        ...

    async def running_jobs(self) -> tuple[JobRow, ...]:
        """Every job of every workspace that has not ended, listed or not; for recovery."""
        ...

    async def last_job(self, workspace_id: WorkspaceId) -> int:
        """The highest number a job of this workspace ever had; 0 if there was none."""
        ...
