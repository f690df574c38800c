"""Background jobs in the tables in memory: both halves of the store."""

from __future__ import annotations

import trio

from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.protocol.jobs import JobState
from crush_trio.store.jobs import JobRow
from crush_trio.store.memory_rows import Tables


def put(tables: Tables, workspace_id: WorkspaceId, row: JobRow) -> None:
    """Insert or replace a job whose session exists."""
    tables.jobs.put((workspace_id, row.number), row)
    last = tables.job_counters.get(workspace_id) or 0
    tables.job_counters.put(workspace_id, max(last, row.number))


def remove(tables: Tables, workspace_id: WorkspaceId, job_id: str) -> None:
    """Forget a job, if it is there."""
    for key, row in list(tables.jobs.rows.items()):
        if key[0] == workspace_id and row.record.job_id == job_id:
            tables.jobs.remove(key)


def remove_of_session(tables: Tables, session_id: SessionId) -> None:
    """Forget the jobs of a session."""
    for key, row in list(tables.jobs.rows.items()):
        if row.record.session_id == session_id:
            tables.jobs.remove(key)


def listed(tables: Tables, workspace_id: WorkspaceId) -> tuple[JobRow, ...]:
    """The listed jobs of a workspace, oldest first."""
    rows = sorted(tables.jobs.rows.items())
    return tuple(row for key, row in rows if key[0] == workspace_id and row.listed)


class MemoryJobReads:
    """The part of `store.memory.MemoryStore` that is about background jobs."""

    _tables: Tables

    async def jobs(
        self, workspace_id: WorkspaceId, session_id: SessionId | None = None
    ) -> tuple[JobRow, ...]:
        """See `crush_trio.store.jobs.JobReads.jobs`."""
        await trio.lowlevel.checkpoint()
        rows = listed(self._tables, workspace_id)
        return tuple(row for row in rows if session_id in (None, row.record.session_id))

    async def running_jobs(self) -> tuple[JobRow, ...]:
        """See `crush_trio.store.jobs.JobReads.running_jobs`."""
        await trio.lowlevel.checkpoint()
        rows = sorted(self._tables.jobs.rows.items())
        return tuple(row for _, row in rows if row.record.state is JobState.RUNNING)

    async def last_job(self, workspace_id: WorkspaceId) -> int:
        """See `crush_trio.store.jobs.JobReads.last_job`."""
        await trio.lowlevel.checkpoint()
        return self._tables.job_counters.get(workspace_id) or 0
