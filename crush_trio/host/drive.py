"""Carries one run from its begin to the ending that the terminal commit will write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import prompts, transcript
from crush_trio.agent.budget import LimitReached
from crush_trio.agent.ports import (
    Decision,
    Model,
    ModelError,
    PermissionAsk,
    ProcessHost,
    ToolContext,
)
from crush_trio.agent.turn import Turn, TurnEnd, TurnInput
from crush_trio.host import commits
from crush_trio.host.asking import Waiting
from crush_trio.host.commits import Ending
from crush_trio.host.kit import Kit, WorkspaceSetup
from crush_trio.host.open_run import OpenRun
from crush_trio.host.permissions import ask_person
from crush_trio.host.questions import ask_questions
from crush_trio.host.run_journal import LiveOutput, RunJournal, progress_fields
from crush_trio.protocol.errors import CrushError, StoreError
from crush_trio.protocol.messages import Message
from crush_trio.protocol.questions import Question, QuestionResponse
from crush_trio.protocol.runs import Limits, Outcome, ProcessReport, RunError, Usage
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Store, Transaction

logger = logging.getLogger(__name__)


def now_s() -> int:
    """Unix seconds, for display only."""
    return int(time.time())


@attrs.define(eq=False)
class Driver:
    """Drives one run. Owns its journal, its processes and the scope around it."""

    store: Store
    kit: Kit
    workspace_path: Path
    open_run: OpenRun
    journal: RunJournal
    default_mode: Callable[[], str] = lambda: "ask"
    on_prompt: Callable[[Model, tuple[Message, ...], Message], None] = lambda *_: None
    """Told of the model, the messages before, and the prompt, before the model is asked."""
    waiting: Waiting = attrs.field(kw_only=True)
    """Where the run asks a person."""
    turn: Turn | None = attrs.field(default=None, init=False)
    processes: ProcessHost | None = attrs.field(default=None, init=False)
    outputs: dict[str, LiveOutput] = attrs.field(factory=dict, init=False)
    unallowed: set[str] = attrs.field(factory=set, init=False)
    """Calls that were started and did nothing: they only waited for a person."""
    failure_title: str = attrs.field(default="", init=False)

    async def drive(self) -> TurnEnd:
        """Run the turn inside the run's own scope; how it ended, also when it was interrupted.

        The one place where an agent's error becomes an outcome. Must be called from a task that
        is shielded from every cancellation but the run's own scope.
        """
        run = self.open_run.run
        try:
            with trio.CancelScope() as scope:
                self.open_run.scope = scope
                if run.mark is not None:
                    scope.cancel()
                return await self._take()
        except LimitReached as exc:
            return TurnEnd(Outcome.LIMITED, RunError(exc.code, exc.message))
        except Exception as exc:  # outside the scope, which takes its own Cancelled out first
            own = self.turn is not None and self.turn.failure is exc
            if run.mark is not None and not own:
                return TurnEnd(Outcome.CANCELLED)
            return self._failed(exc)
        finally:
            self.open_run.scope = None
        return TurnEnd(Outcome.CANCELLED)

    async def _take(self) -> TurnEnd:
        wanted = self.open_run.row.request.limits or Limits()
        with trio.move_on_after(wanted.timeout_s if wanted.timeout_s is not None else float("inf")):
            self.turn = await self._prepare(wanted)
            return await self.turn.take()
        raise LimitReached("timeout", f"The run reached its time limit of {wanted.timeout_s:g} s.")

    async def _prepare(self, wanted: Limits) -> Turn:
        """Read what the turn starts from; blocking reads go through one thread each."""
        row = self.open_run.row
        record = row.record
        user = transcript.user_message(
            record.session_id, record.id, commits.prompt_parts(row.request), now_s()
        )
        placed = self.journal.place(user)
        self.journal.stage(lambda tx: commits.begin_run(tx, record.id, placed))
        # It only reads: a directory that does not answer is left behind when the run is cancelled.
        setup, model, system = await trio.to_thread.run_sync(
            self._read_setup, abandon_on_cancel=True
        )
        stored = await self.store.messages(record.session_id)
        if self.open_run.run.mark is None:
            self.on_prompt(model, stored, user)
        # Read marks come from tool results: a session without messages has none.
        reads = await self.store.reads(record.session_id) if stored else {}
        self.processes = self.kit.processes(
            self.journal.record_processes, f"{record.workspace_id}/{record.session_id}"
        )
        return Turn(
            TurnInput(
                session_id=record.session_id,
                run_id=record.id,
                workspace_path=self.workspace_path,
                system=system,
                history=(*stored, user),
                limits=wanted,
                model=model,
                tools=tuple(t for t in setup.tools if self._asks() or not t.spec.needs_person),
                context=lambda call_id: self._context(call_id, setup, reads),
                now_s=now_s,
            ),
            self.journal,
        )

    def _read_setup(self) -> tuple[WorkspaceSetup, Model, str]:
        setup = self.kit.setup(self.workspace_path)
        # Whether this client may name a script was decided when the prompt was accepted.
        request = self.open_run.row.request
        model = self.kit.model(request.model, self.workspace_path, local=True)
        if request.record is not None:
            model = self.kit.recording(model, request.record)
        system = prompts.system_prompt(
            self.workspace_path,
            is_git=(self.workspace_path / ".git").exists(),
            today=datetime.now(UTC).date().isoformat(),
            files=prompts.read_context_files(self.workspace_path, setup.context_paths),
        )
        return setup, model, system

    # --- tools ----------------------------------------------------------------------------

    def _context(
        self, call_id: str, setup: WorkspaceSetup, reads: Mapping[str, int]
    ) -> ToolContext:
        if self.processes is None:
            raise RuntimeError("a tool was asked for before the run had its process host")
        output = self.outputs.get(call_id)
        if output is None:
            for earlier in self.outputs.values():  # calls run one after another
                earlier.close()
            output = LiveOutput(
                self.journal.feed,
                self.journal.session_ids,
                self.journal.run_id,
                call_id,
                limits.TOOL_OUTPUT_LIVE_BYTES,
            )
            self.outputs[call_id] = output
        return ToolContext(
            workspace_id=self.journal.workspace_id,
            workspace_path=self.workspace_path,
            session_id=self.journal.session_id,
            run_id=self.journal.run_id,
            ask=lambda ask: self._ask(call_id, ask, setup),
            output=output.show,
            last_read=lambda path: self.journal.last_reads.get(path) or reads.get(path),
            processes=self.processes,
            env=setup.environment(),
            config=setup.tool_config,
            questions=partial(self._ask_questions, call_id) if self._asks() else None,
        )

    def _mode(self) -> str:
        return self.open_run.row.request.permission_mode or self.default_mode()

    def _asks(self) -> bool:
        return self._mode() == "ask"

    async def _ask(self, call_id: str, ask: PermissionAsk, setup: WorkspaceSetup) -> Decision:
        request, record = self.open_run.row.request, self.open_run.row.record
        allow = (*setup.allow_tools, *request.allow_tools)
        decision = self.kit.decide(
            ask, self._mode(), allow, request.deny_tools, self.workspace_path
        )
        if decision is None:
            self.unallowed.add(call_id)
            decision = await ask_person(self.waiting, self.open_run.run, record, call_id, ask)
            self.unallowed.discard(call_id)
        return decision

    async def _ask_questions(
        self, call_id: str, questions: tuple[Question, ...], confirm: tuple[str, str]
    ) -> tuple[QuestionResponse, ...] | None:
        record = self.open_run.row.record
        self.unallowed.add(call_id)
        return await ask_questions(
            self.waiting, self.open_run.run, record, call_id, questions, confirm
        )

    # --- the end --------------------------------------------------------------------------

    def _failed(self, exc: Exception) -> TurnEnd:
        """An exception as an outcome: ours in its own words, a bug as `internal` and in the log."""
        if isinstance(exc, ModelError):
            self.failure_title = exc.title
            return TurnEnd(Outcome.FAILED, RunError(exc.code, exc.message, exc.retryable))
        if isinstance(exc, StoreError):
            return TurnEnd(Outcome.FAILED, RunError(exc.code, exc.message, retryable=True))
        if isinstance(exc, CrushError):
            code = getattr(exc, "code", "configuration")
            return TurnEnd(Outcome.FAILED, RunError(code, str(exc)))
        logger.exception("run %s failed", self.open_run.id)
        return TurnEnd(
            Outcome.FAILED, RunError("internal", f"internal error: {type(exc).__name__}")
        )

    async def close(self) -> ProcessReport:
        """End what the run started; bounded (G10). Called under the drain task's shield."""
        for output in self.outputs.values():
            output.close()
        if self.processes is None:
            return ProcessReport()
        with trio.move_on_after(limits.RUN_CLEANUP_S):
            try:
                return await self.processes.aclose()
            except Exception:  # the run has to end all the same
                logger.exception("the processes of run %s were not closed", self.open_run.id)
        return ProcessReport()

    def ending(self, end: TurnEnd, processes: ProcessReport) -> tuple[Ending, Usage, float]:
        """What the terminal commit writes, with the last step's usage and the run's cost.

        Closes the live message: its partial text is kept in the transcript (R54).
        """
        run, record = self.open_run.run, self.open_run.row.record
        cancelled = end.outcome is Outcome.CANCELLED
        open_message = self.journal.open_message()
        self.journal.close_live()
        if open_message is not None:
            self.journal.place(open_message)
        progress = self.turn.progress if self.turn is not None else None
        changes: dict[str, Any] = {"processes": processes}
        if progress is not None:
            changes |= progress_fields(progress)
        changes.pop("waiting_on", None)
        messages: tuple[commits.Placed, ...] = ()
        if end.outcome in _CUT_SHORT:
            now = now_s()
            written = transcript.close_run(
                [placed.message for placed in self.journal.messages],
                cause=_CUT_SHORT[end.outcome],
                started_calls=self._started_calls(cancelled=cancelled),
                empty=transcript.open_assistant(
                    record.session_id, record.id, record.provider, record.model, now
                ),
                now_s=now,
                title=self.failure_title,
                details=end.error.message if end.error is not None else "",
            )
            messages = tuple(self.journal.replace(message) for message in written)
            last = next((m for m in reversed(written) if m.role == "assistant"), None)
            if last is not None:
                changes |= {"message_id": last.id, "text": last.text()}
        ending = Ending(
            end.outcome,
            None if cancelled else end.error,
            run.mark if cancelled else None,
            changes=changes,
            messages=messages,
        )
        usage = progress.last_usage if progress is not None else Usage()
        cost = (progress.cost_usd if progress is not None else None) or 0.0
        return ending, usage, cost

    def _started_calls(self, *, cancelled: bool) -> frozenset[str]:
        """The calls that may have done something; to a cancel, those that only asked count too."""
        started = self.turn.progress.started_calls if self.turn is not None else frozenset()
        return started if cancelled else started - self.unallowed


_CUT_SHORT = {
    Outcome.CANCELLED: transcript.Cause.CANCELLED,
    Outcome.FAILED: transcript.Cause.FAILED,
    Outcome.LIMITED: transcript.Cause.LIMITED,
}


def account(tx: Transaction, session: Session, usage: Usage, cost: float) -> None:
    """Set the session's token counts to the last step's and add the run's cost (CW 5.11)."""
    prompt = usage.input_tokens + usage.cache_read_tokens
    commits.touch_session(
        tx,
        session.id,
        prompt_tokens=prompt or session.prompt_tokens,
        completion_tokens=usage.output_tokens or session.completion_tokens,
        cost=session.cost + cost,
    )
