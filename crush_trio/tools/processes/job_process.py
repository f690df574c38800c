"""The process of one background job: its command, and its output by position (CW 7.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from crush_trio.agent.ports import ShellResult
from crush_trio.protocol.runs import ProcessReport
from crush_trio.tools.processes.command_output import CommandOutput
from crush_trio.tools.processes.run_processes import RunProcesses, shell
from crush_trio.tools.processes.spill import CallSpill


class JobProcess:
    """One command with its output; a `host.kit.JobProcess`.

    It owns no task: whoever calls `run` does. What its shell leaves behind is ended by `aclose`.

    Args:
        processes: An owner of processes of its own.
        spill: Where the output goes; kept readable, also when it is small.
        on_output: Takes ``(stream, text)`` as it comes; never waits.
        on_growth: Called whenever there is more to read; never waits.
    """

    def __init__(
        self,
        processes: RunProcesses,
        spill: CallSpill,
        on_output: Callable[[str, str], None],
        on_growth: Callable[[], None] = lambda: None,
    ) -> None:
        self._processes = processes
        self._output = CommandOutput(on_output, spill, kept=True, on_growth=on_growth)
        self._began_ms = 0
        self._ended_ms = 0
        self._exit_code: int | None = None

    async def run(self, command: str, *, cwd: Path, env: Mapping[str, str]) -> int:
        """Run ``command`` with the shell until the shell exits; its exit code.

        Cancelled, it ends the command's whole tree first (at most `KILL_TOTAL_S`).

        Raises:
            OSError: The command cannot be started.
        """
        self._began_ms = time.time_ns() // 1_000_000
        argv = (shell(), "-c", command)
        try:
            result = await self._processes.carry(
                argv, self._output, cwd=cwd, env=env, timeout_s=float("inf")
            )
        finally:
            self._ended_ms = time.time_ns() // 1_000_000
        code = result.exit_code
        self._exit_code = 137 if code is None else code
        return self._exit_code

    @property
    def output_bytes(self) -> int:
        """Bytes of both streams so far."""
        return self._output.spill.seen

    def present(self) -> ShellResult:
        """What it has written, and how it ended if it has."""
        now_ms = self._ended_ms or time.time_ns() // 1_000_000
        return self._output.present(self._exit_code, self._began_ms, now_ms)

    async def read(self, after: int, limit: int) -> tuple[bytes, int, int]:
        """Output from a position on: ``(bytes, next position, bytes dropped before them)``."""
        return await self._output.read(after, limit)

    async def aclose(self) -> ProcessReport:
        """End what is left of it: TERM, 2 s, KILL. Shielded, bounded, idempotent."""
        return await self._processes.aclose()
