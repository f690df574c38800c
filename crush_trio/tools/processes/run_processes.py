"""The tool processes of one run: started, listened to, and all ended with it (G10)."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from crush_trio.agent.ports import ShellResult
from crush_trio.limits import KILL_TOTAL_S, TOOL_OUTPUT_COLUMNS
from crush_trio.protocol.runs import LeftProcess, ProcessReport
from crush_trio.tools.processes import process_table
from crush_trio.tools.processes.cgroup import Cgroup
from crush_trio.tools.processes.command_output import CommandOutput
from crush_trio.tools.processes.launched import Launched
from crush_trio.tools.processes.spill import CallSpill, SpillArea
from crush_trio.tools.sandbox.confinement import Confinement

Live = tuple[LeftProcess, ...]


def shell() -> str:
    """The shell that runs commands: bash where there is one, else ``/bin/sh``."""
    return shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or "/bin/sh"


class RunProcesses:
    """Starts the commands of one run and answers for all of them; an `agent.ports.ProcessHost`.

    It owns no task: what it holds between calls are file descriptors and the launchers at their
    other ends. The run's owner calls `aclose` before the run's terminal event. If the server
    dies first, the kernel closes the descriptors, which ends every tree (`launcher.py`).

    Args:
        spill: Where output goes that does not fit into memory; shared by all runs.
        folder: Of the spill area, for this run's files.
        cgroup: The server's, if it has one; each command gets a child of it.
        confinement: The sandbox of everything that is started; ``None`` for none.
        on_live: Called with `live()` whenever it has changed, so that it can be recorded for
            `tools.processes.recorded.kill_recorded`. Must not wait.
    """

    def __init__(
        self,
        spill: SpillArea,
        on_live: Callable[[Live], None] | None = None,
        folder: str = "",
        cgroup: Cgroup | None = None,
        confinement: Confinement | None = None,
    ) -> None:
        self._cgroup = cgroup
        self._confinement = confinement
        self._spill = spill
        self._folder = folder
        self._on_live = on_live
        self._launched: list[Launched] = []
        self._started = 0
        self._killed = 0
        self._left: dict[int, LeftProcess] = {}
        self._closed = False

    def live(self) -> Live:
        """The launchers that may still have something under them."""
        return tuple(one.record for one in self._launched)

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

        Processes it leaves in the background stay until `aclose`. Cancelled, it ends the
        command's whole tree first (at most `KILL_TOTAL_S`).

        Raises:
            OSError: The command cannot be started.
            trio.ClosedResourceError: The run has ended.
        """
        spill = CallSpill(self._spill, spill_name, self._folder)
        call = CommandOutput(on_output, spill, whole_from=TOOL_OUTPUT_COLUMNS)
        argv = (shell(), "-c", command)
        return await self.carry(argv, call, cwd=cwd, env=env, timeout_s=timeout_s, stdin=stdin)

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
        """The same for one program without a shell; see `agent.ports.ProcessHost`."""
        spill = CallSpill(self._spill, spill_name, self._folder)
        whole_from = TOOL_OUTPUT_COLUMNS if keep_whole else math.inf
        call = CommandOutput(on_output, spill, whole_from=whole_from)
        return await self.carry(argv, call, cwd=cwd, env=env, timeout_s=timeout_s, stdin=stdin)

    async def carry(
        self,
        argv: tuple[str, ...],
        call: CommandOutput,
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        stdin: bytes = b"",
    ) -> ShellResult:
        """As `run_argv`, with the output going where the caller says.

        Raises:
            Refused: ``sandbox_unavailable``: it was to be confined, and cannot be.
        """
        self._demand_open()
        began_ms = time.time_ns() // 1_000_000
        plan = b""
        if self._confinement is not None:
            plan, env = await self._confinement.prepare(cwd, env)
            self._demand_open()  # it took a while
        launched = await Launched.start(argv, cwd, env, self._cgroup, stdin, plan)
        self._started += 1
        self._launched.append(launched)
        completed = False
        try:
            self._announce()
            with trio.move_on_after(timeout_s) as limit:
                await call.follow(launched)
            if limit.cancelled_caught:
                await self._end(launched)
                await call.drain(launched)  # what it said when it was told to end
            else:
                await self._let_be(launched)
            result = await call.result(launched, limit.cancelled_caught, began_ms)
            completed = True
        finally:
            if not completed:
                # Cancelled, the run ends: what its earlier calls have left is ended beside this
                # call, not after it, or the two graces would add up (G4).
                cancelled = trio.current_effective_deadline() == -math.inf
                ending = tuple(self._launched) if cancelled else (launched,)
                await self._end_together(ending)  # noqa: ASYNC102  # shields and bounds itself
                await call.abandon(launched)  # noqa: ASYNC102  # so does this
            launched.hand_over_output()
        return result

    def _demand_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this run has ended; nothing can be started in it")

    async def _let_be(self, launched: Launched) -> None:
        """The shell has exited: go on without its launcher, or leave it to `aclose`."""
        launched.hand_over_output()
        if launched.exit_code is None:  # the launcher was killed: its tree is not being watched
            await self._end(launched)
        elif launched.still_running == 0 and await launched.wait_gone():
            self._settle(launched)

    async def _end(self, launched: Launched) -> None:
        await launched.end()
        self._settle(launched)

    async def _end_together(self, several: Sequence[Launched]) -> None:
        with trio.move_on_after(KILL_TOTAL_S, shield=True):
            async with trio.open_nursery() as nursery:
                for launched in several:
                    nursery.start_soon(self._end, launched)

    def _settle(self, launched: Launched) -> None:
        """Count what a launcher did and let go of it; the second time changes nothing."""
        if launched in self._launched:
            self._launched.remove(launched)
            self._killed += launched.killed
            self._left.update((one.pid, one) for one in launched.left)
            launched.close()
            self._announce()

    def _announce(self) -> None:
        if self._on_live is not None:
            self._on_live(self.live())

    async def aclose(self) -> ProcessReport:
        """End every process that is left: TERM, 2 s, KILL. Shielded, bounded, idempotent.

        Returns:
            ``started`` counts the commands, ``killed`` the processes that had to be ended,
            ``left`` names those that are alive all the same.
        """
        self._closed = True
        await self._end_together(tuple(self._launched))
        self._left |= {one.pid: one for one in self.live()}
        left = process_table.still_there(self._left.values())
        if self._confinement is not None:
            await self._confinement.aclose()
        return ProcessReport(started=self._started, killed=self._killed, left=left)
