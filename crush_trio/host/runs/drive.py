"""Carries one run from its begin to the ending that the terminal commit will write."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import closing, transcript
from crush_trio.agent.budget import LimitReached, Progress
from crush_trio.agent.ports import ModelError
from crush_trio.agent.turn import TurnEnd
from crush_trio.host.commits import Ending
from crush_trio.host.runs.desk import Desk, Work, now_s
from crush_trio.host.runs.prompt_run import PromptRun
from crush_trio.host.runs.run_journal import RunJournal, progress_fields
from crush_trio.host.runs.shell_run import ShellRun
from crush_trio.host.runs.summary_run import SummaryRun
from crush_trio.protocol.errors import CrushError, StoreError
from crush_trio.protocol.runs import Limits, Outcome, ProcessReport, RunError

logger = logging.getLogger(__name__)

_WORKS: dict[str, Callable[[Desk], Work]] = {
    "prompt": PromptRun,
    "agent": PromptRun,
    "summarize": SummaryRun,
    "shell": ShellRun,
}


@attrs.define(eq=False)
class Driver:
    """Drives one run, of whatever kind: its scope, its desk, and how it ended."""

    desk: Desk
    work: Work = attrs.field(init=False)
    _failure_title: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self.work = _WORKS[self.desk.row.record.kind](self.desk)

    @property
    def journal(self) -> RunJournal:
        """Where the run writes."""
        return self.desk.journal

    async def drive(self) -> TurnEnd:
        """Do the work inside the run's own scope; how it ended, also when it was interrupted.

        The one place where an agent's error becomes an outcome. Must be called from a task that
        is shielded from every cancellation but the run's own scope.
        """
        open_run = self.desk.open_run
        try:
            with trio.CancelScope() as scope:
                open_run.scope = scope
                if open_run.run.mark is not None:
                    scope.cancel()
                return await self._take()
        except LimitReached as exc:
            return TurnEnd(Outcome.LIMITED, RunError(exc.code, exc.message))
        except Exception as exc:  # outside the scope, which takes its own Cancelled out first
            if open_run.run.mark is not None and self.work.failure is not exc:
                return TurnEnd(Outcome.CANCELLED)
            return self._failed(exc)
        finally:
            open_run.scope = None
        return TurnEnd(Outcome.CANCELLED)

    async def _take(self) -> TurnEnd:
        wanted = self.desk.row.request.limits or Limits()
        with trio.move_on_after(wanted.timeout_s if wanted.timeout_s is not None else math.inf):
            return await self.work.take(wanted)
        raise LimitReached("timeout", f"The run reached its time limit of {wanted.timeout_s:g} s.")

    def _failed(self, exc: Exception) -> TurnEnd:
        """An exception as an outcome: ours in its own words, a bug as `internal` and in the log."""
        if isinstance(exc, ModelError):
            self._failure_title = exc.title
            return TurnEnd(Outcome.FAILED, RunError(exc.code, exc.message, exc.retryable))
        if isinstance(exc, StoreError):
            return TurnEnd(Outcome.FAILED, RunError(exc.code, exc.message, retryable=True))
        if isinstance(exc, CrushError):
            code = getattr(exc, "code", "configuration")
            return TurnEnd(Outcome.FAILED, RunError(code, str(exc)))
        logger.exception("run %s failed", self.desk.open_run.id)
        return TurnEnd(
            Outcome.FAILED, RunError("internal", f"internal error: {type(exc).__name__}")
        )

    async def tell_end(self, end: TurnEnd) -> None:
        """Run the hooks of the run's end, unless somebody asked the run to stop (CW 7.6).

        They change nothing, and a cancel ends them as it ends the run. Called as `drive` is.
        """
        open_run = self.desk.open_run
        if open_run.run.mark is not None or not self.desk.hooks.hears_ends:
            return
        progress = self.work.progress or Progress()
        error = "" if end.error is None else end.error.message
        try:
            with trio.move_on_after(limits.HOOKS_AT_END_S) as scope:
                open_run.scope = scope
                await self.journal.save()
                self.journal.show_waiting_on("hook")
                await self.desk.hooks.run_ended(end.outcome.value, progress.text, error)
        except Exception:  # the run has to end all the same
            logger.exception("the hooks at the end of run %s failed", open_run.id)
        finally:
            open_run.scope = None

    async def close(self) -> ProcessReport:
        """End what the run started; bounded (G10). Called under the drain task's shield."""
        return await self.desk.close()

    def ending(self, end: TurnEnd, processes: ProcessReport) -> Ending:
        """What the terminal commit writes of the run itself; `Work.settle` has the rest.

        Closes the live message: its partial text is kept in the transcript (R54).
        """
        journal, run = self.desk.journal, self.desk.open_run.run
        cancelled = end.outcome is Outcome.CANCELLED
        open_message = journal.open_message()
        journal.close_live()
        if open_message is not None:
            journal.place(open_message)
        progress = self.work.progress
        changes: dict[str, Any] = {"processes": processes}
        if progress is not None:
            changes |= progress_fields(progress)
        changes.pop("waiting_on", None)
        closed = closing.Closed()
        if end.outcome in _CUT_SHORT:
            closed = self._close_transcript(end)
            changes |= closed.record_fields(changes.get("message_id"))
        return Ending(
            end.outcome,
            None if cancelled else end.error,
            run.mark if cancelled else None,
            changes=changes,
            messages=tuple(journal.replace(message) for message in closed.written),
            removed=closed.removed,
        )

    def _close_transcript(self, end: TurnEnd) -> closing.Closed:
        record, now = self.desk.row.record, now_s()
        return closing.close(
            record.kind,
            [placed.message for placed in self.desk.journal.messages],
            cause=_CUT_SHORT[end.outcome],
            started_calls=self.work.started_calls(cancelled=end.outcome is Outcome.CANCELLED),
            empty=transcript.open_assistant(
                record.session_id, record.id, record.provider, record.model, now
            ),
            now_s=now,
            title=self._failure_title,
            details=end.error.message if end.error is not None else "",
        )


_CUT_SHORT = {
    Outcome.CANCELLED: transcript.Cause.CANCELLED,
    Outcome.FAILED: transcript.Cause.FAILED,
    Outcome.LIMITED: transcript.Cause.LIMITED,
}
