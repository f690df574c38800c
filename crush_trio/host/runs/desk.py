"""What a run may use while it is driven, and what it has opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import compaction
from crush_trio.agent.budget import Progress
from crush_trio.agent.hooks import NoHooks
from crush_trio.agent.ports import Hooks, Model, ProcessHost, Sandbox
from crush_trio.agent.turn import TurnEnd
from crush_trio.host import commits
from crush_trio.host.home import Home
from crush_trio.host.jobs.run_jobs import RunJobs
from crush_trio.host.runs.live_output import LiveOutput
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.runs.run_journal import RunJournal
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Limits, Outcome, ProcessReport
from crush_trio.store.contract import RunRow, Transaction

logger = logging.getLogger(__name__)

OnPrompt = Callable[[Model, tuple[Message, ...], Message], None]
"""Told of the model, the messages before, and the prompt, before the model is asked."""


def now_s() -> int:
    """Unix seconds, for display only."""
    return int(time.time())


class Work(Protocol):
    """What a driver drives: a prompt's turn, a summary, a command."""

    @property
    def progress(self) -> Progress | None:
        """How far it has come, once it has begun; readable also after it was interrupted."""
        ...

    @property
    def failure(self) -> Exception | None:
        """The model's own error, raised before anybody asked the run to stop (G4)."""
        ...

    def started_calls(self, *, cancelled: bool) -> frozenset[str]:
        """Tool calls without a stored result that may have done something."""
        ...

    async def take(self, wanted: Limits) -> TurnEnd:
        """Do it. Being cancelled is an ordinary way to end; the driver closes what is open.

        Raises:
            LimitReached, ModelError, CrushError: Become the run's outcome.
        """
        ...

    def settle(self, tx: Transaction, outcome: Outcome) -> None:
        """What its ending changes in the session, as part of the terminal commit (CW 5.11)."""
        ...


@attrs.define(eq=False)
class Desk:
    """One run's journal, its processes, and what its work may ask of the host.

    ``moved_behind`` gives the runs that wait although they stand before this one.
    """

    home: Home
    open_run: OpenRun
    journal: RunJournal
    on_prompt: OnPrompt
    moved_behind: Callable[[], tuple[RunId, ...]]
    processes: ProcessHost | None = attrs.field(default=None, init=False)
    hooks: Hooks = attrs.field(factory=NoHooks, init=False)
    jobs: RunJobs = attrs.field(init=False)
    _outputs: dict[str, LiveOutput] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.jobs = RunJobs(self.home.jobs, self.journal.session_ids, self.journal.run_id)

    @property
    def row(self) -> RunRow:
        """The run as accepted."""
        return self.open_run.row

    async def model(self) -> Model:
        """The model of the run, as configuration and keys are now that it begins; a sub-agent's
        was chosen for it.

        Raises:
            Refused, ConfigError: As `host.kit.Kit.model`.
        """
        if self.open_run.sub_agent is not None:
            return self.open_run.sub_agent.model
        # Whether this client may name a script was decided when the prompt was accepted.
        chosen = await self.home.kit.model(
            self.row.request.model, self.home.path, local=True, env=self.open_run.env
        )
        return chosen.model

    def read_sandbox(self, *readable: Path) -> Sandbox | None:
        """What the run may touch, as it is configured now that it begins; blocking.

        What it opens from now on keeps to it.

        Raises:
            Refused: ``sandbox_unavailable``.
            ConfigError: The configuration is wrong.
        """
        record = self.row.record
        outputs = f"{record.workspace_id}/{record.session_id}"
        places: tuple[str | Path, ...] = (outputs, *readable)
        self.jobs.sandbox = self.home.kit.sandbox(self.home.path, self.row.request.sandbox, places)
        return self.jobs.sandbox

    def open_processes(self) -> ProcessHost:
        """The owner of the run's processes, made now; the record says what confines them."""
        record, sandbox = self.row.record, self.jobs.sandbox
        if sandbox is not None:
            mode = sandbox.mode

            def note(tx: Transaction) -> None:
                commits.change_run(tx, record.id, sandbox=mode)

            self.journal.stage(note)
        folder = f"{record.workspace_id}/{record.session_id}"
        self.processes = self.home.kit.processes(self.journal.record_processes, folder, sandbox)
        return self.processes

    def outputs_at(self) -> Path | None:
        """Where the long outputs of the run's session are kept."""
        record = self.row.record
        return self.home.kit.outputs_at(f"{record.workspace_id}/{record.session_id}")

    async def covered_behind(self, stored: Sequence[RunId | None]) -> tuple[RunId, ...]:
        """The runs that went ahead of this one although they were accepted later.

        ``stored`` are the `compaction.places` of what this run found when it began. What was
        accepted later is read from the newest run on, as far as to this one.
        """
        session_id, place = self.journal.session_id, self.journal.accept_seq
        later: set[RunId] = set()
        before: RunId | None = None
        while True:
            page = await self.home.store.runs(
                session_id=session_id, limit=limits.LATER_RUNS_PAGE, before=before
            )
            found = [record.id for record in page if record.accept_seq > place]
            later.update(found)
            if len(found) < limits.LATER_RUNS_PAGE:
                return compaction.covered_behind(stored, later)
            before = found[-1]

    def output(self, call_id: str) -> LiveOutput:
        """Where a call's output is shown live; that of earlier calls is closed."""
        output = self._outputs.get(call_id)
        if output is None:
            for earlier in self._outputs.values():  # calls run one after another
                earlier.close()
            output = LiveOutput(
                self.journal.feed,
                self.journal.session_ids,
                self.journal.run_id,
                call_id,
                limits.TOOL_OUTPUT_LIVE_BYTES,
            )
            self._outputs[call_id] = output
        return output

    async def close(self) -> ProcessReport:
        """End what the run started; bounded (G10). Called under the drain task's shield."""
        for output in self._outputs.values():
            output.close()
        if self.processes is None:
            return ProcessReport()
        report = ProcessReport()
        with trio.move_on_after(limits.RUN_CLEANUP_S):
            self.jobs.stop()  # they end beside the others, not after them
            try:
                report = await self.processes.aclose()
                await self.jobs.aclose()
            except Exception:  # the run has to end all the same
                logger.exception("the processes of run %s were not closed", self.open_run.id)
        return report.plus(self.jobs.report())  # also when the time was over
