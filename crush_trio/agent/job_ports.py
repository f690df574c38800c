"""What a tool may do with background jobs; part of `agent.ports`, through which it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from crush_trio.protocol.jobs import JobOutput, JobRecord

if TYPE_CHECKING:
    from crush_trio.agent.ports import ShellResult


class Job(Protocol):
    """A command that may outlive the run that started it (CW 7.3)."""

    @property
    def record(self) -> JobRecord:
        """What it is; its ``state`` says whether it goes on."""
        ...

    def present(self) -> ShellResult:
        """What it has written and how it ended, as of now; ``exit_code`` is ``None`` before."""
        ...

    async def read(self, after: int, limit: int) -> JobOutput:
        """What it wrote from byte ``after`` on, at most ``limit`` bytes of it."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; whether it has ended."""
        ...

    def keep(self) -> bool:
        """Let it go on when its run ends; ``False`` if it has ended meanwhile. Never waits."""
        ...

    async def kill(self) -> None:
        """End it with everything it has started; returns when that is done, within 3 s."""
        ...


class JobHost(Protocol):
    """The background jobs that one run may start and see: those of its session."""

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
        """Start ``command`` with the shell; it ends with the run unless it is kept.

        Args:
            on_output: Shows output in the call's name until the job is kept; ``None`` makes it a
                background job from the start.

        Raises:
            Refused: Too many jobs are running, or the workspace is closing.
            OSError: The command cannot be started.
        """
        ...

    def find(self, job_id: str) -> Job | None:
        """A job of this session that is still known, running or ended."""
        ...

    def known(self) -> tuple[Job, ...]:
        """All of them, oldest first."""
        ...
