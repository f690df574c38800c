"""What a tool may do with processes; part of `agent.ports`, through which it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import attrs

from crush_trio.protocol.runs import ProcessReport


class ProcessHost(Protocol):
    """Starts tool processes for one run and answers for all of them (G10)."""

    async def run_shell(
        self,
        command: str,
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        on_output: Callable[[str, str], None],
        spill_name: str,
        stdin: bytes = b"",
    ) -> ShellResult:
        """Run ``command`` with the shell until the shell exits; see `ShellResult`.

        ``on_output(stream, text)`` is called as output comes; it never waits. ``stdin`` is what
        the command can read there; it is held in memory.
        """
        ...

    async def run_argv(
        self,
        argv: tuple[str, ...],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        on_output: Callable[[str, str], None],
        spill_name: str,
        stdin: bytes = b"",
        keep_whole: bool = False,
    ) -> ShellResult:
        """The same for one program without a shell.

        With ``keep_whole`` output that is too long to be shown is kept in a file, as a shell's is.
        """
        ...

    async def aclose(self) -> ProcessReport:
        """End every process that is left: TERM, 2 s, KILL; bounded by 3 s; idempotent."""
        ...


@attrs.frozen
class ShellResult:
    """How a command ended and what it wrote.

    ``exit_code`` is ``None`` if it was ended by the time limit. The texts hold head and tail;
    ``dropped`` counts bytes left out of them, ``dropped_lines`` the line ends among these;
    ``total`` counts the bytes of both streams. ``spill_path`` is the file with the whole output,
    if it is too long to be shown, ``output_id`` its name for `GET …/outputs/{id}`, and
    ``spill_dropped`` counts the bytes that this file lacks in its middle. ``still_running`` counts
    its processes that are alive after the shell exited.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    timed_out: bool = False
    spill_path: str | None = None
    output_id: str | None = None
    spill_dropped: int = 0
    total: int = 0
    still_running: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    stdout_dropped_lines: int = 0
    stderr_dropped_lines: int = 0
