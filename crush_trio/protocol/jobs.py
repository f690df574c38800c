"""The record of a background job: a command that outlives the run that started it (CW 7.3)."""

from __future__ import annotations

from enum import StrEnum

import attrs

from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.runs import LeftProcess


class JobState(StrEnum):
    """Whether a job goes on, and how it ended: by itself, by a kill, or with its server."""

    RUNNING = "running"
    EXITED = "exited"
    KILLED = "killed"
    LOST = "lost"


@attrs.frozen
class JobRecord:
    """A background job. ``job_id`` is unique in its workspace, never given twice there.

    ``origin_run`` is the run that started it; a job's events carry no ``run_id``, since they may
    come after that run's last event. ``exit_code`` is what its shell said (128 + n for signal n),
    ``None`` while it runs, if it was killed before it said anything, or if it was lost.
    ``output_bytes`` counts both streams; ``left`` names processes that could not be ended (G10).
    """

    job_id: str
    workspace_id: WorkspaceId
    session_id: SessionId
    origin_run: RunId
    tool_call_id: str
    command: str
    description: str
    working_dir: str
    started_at_ms: int
    state: JobState = JobState.RUNNING
    exit_code: int | None = None
    ended_at_ms: int | None = None
    output_bytes: int = 0
    left: tuple[LeftProcess, ...] = ()


def job_id_of(number: int) -> str:
    """The id of a workspace's n-th job, counted from 1: upper-case hex, three digits or more."""
    return f"{number:03X}"


@attrs.frozen
class JobOutput:
    """``GET …/jobs/{j}/output``: both streams as they came, from a byte position on.

    ``next`` is where to go on, ``dropped`` counts bytes before ``data`` that are not kept, and
    ``done`` says that the job has ended and nothing follows ``next``.
    """

    data: str
    next: int
    done: bool
    dropped: int = 0
