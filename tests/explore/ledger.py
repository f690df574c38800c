"""What clients were promised and what they may therefore expect, written down as it happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from crush_trio import limits
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelReceipt, Outcome, Receipt, RunComplete
from crush_trio.store.contract import StoredEvent
from tests.explore.acts import kind_of
from tests.explore.isolation import payload_of

Fact = tuple[str, str, str]
"""What somebody outside knows: accepted, cancelled, ended, seen or gone; of what; and more."""


@attrs.define(eq=False)
class Entry:
    """One run that was accepted in memory.

    ``covered`` are the reasons for which it may end cancelled, ``must`` says that a receipt
    promised it, ``late`` that a receipt said the cancel came too late. ``injected``: something
    was made to break under it. ``unnamed``: a cancel passed it over. ``too_old`` are the runs that
    had been cancelled when it was accepted: nothing may be folded into them.
    """

    run: OpenRun
    request: PromptRequest
    order: int
    covered: list[str] = attrs.field(factory=list)
    must: str | None = None
    late: bool = False
    unnamed: bool = False
    too_old: frozenset[str] = frozenset()
    injected: bool = False
    acked: bool = False
    at_work: int = 0
    cancelled_at: float | None = None
    ended: Outcome | None = None
    ended_at: float | None = None

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self.run.id

    @property
    def natural(self) -> Outcome | None:
        """How it ends if nobody interferes; ``None``: never."""
        if self.run.row.record.kind == "summarize":
            return Outcome.COMPLETED
        return kind_of(self.request.prompt).natural

    @property
    def refused(self) -> bool:
        """Its acceptance did not become durable: it never was."""
        return getattr(self.run.accepted, "_error", None) is not None


@attrs.define(eq=False)
class Ledger:
    """One schedule's promises; ``wrongs`` are the violations seen while it ran."""

    entries: dict[RunId, Entry] = attrs.field(factory=dict, init=False)
    answers: dict[str, str] = attrs.field(factory=dict, init=False)
    allowed: int = attrs.field(default=0, init=False)
    ghosts: list[OpenRun] = attrs.field(factory=list, init=False)
    twins: list[Entry] = attrs.field(factory=list, init=False)
    facts: list[Fact] = attrs.field(factory=list, init=False)
    wrongs: list[str] = attrs.field(factory=list, init=False)
    moved: set[str] = attrs.field(factory=set, init=False)
    below_cancelled: set[str] = attrs.field(factory=set, init=False)
    """Runs of which a sub-agent was cancelled, so that they may go on although it would not."""
    sub_agents: dict[RunId, RunId] = attrs.field(factory=dict, init=False)
    """Sub-agents of whose end nobody has heard, and the runs they work for."""
    doomed: set[str] = attrs.field(factory=set, init=False)
    gone: set[str] = attrs.field(factory=set, init=False)
    stopped: bool = attrs.field(default=False, init=False)
    purged: bool = attrs.field(default=False, init=False)
    faults: set[str] = attrs.field(factory=set, init=False)
    slow: bool = attrs.field(default=False, init=False)
    closed: bool = attrs.field(default=False, init=False)
    _working: dict[SessionId, RunId] = attrs.field(factory=dict, init=False)

    def wrong(self, sentence: str) -> None:
        """Something that must never happen."""
        self.wrongs.append(sentence)

    def told(self) -> int:
        """How many facts are known outside by now."""
        return len(self.facts)

    def open_in(self, session_id: str) -> list[Entry]:
        """Runs of a session that were accepted and of whose end nobody has heard."""
        return [
            each
            for each in self.entries.values()
            if each.request.session_id == session_id and each.ended is None and not each.refused
        ]

    # --- accepting ------------------------------------------------------------------------

    def submitted(self, run: OpenRun, request: PromptRequest, interrupted: Sequence[Entry]) -> None:
        """A prompt was accepted in memory; ``interrupted`` are the runs it stops."""
        known = self.entries.get(run.id)
        if known is not None and not known.refused:
            # Of two requests with one id, the later may be taken into memory when the first has
            # ended between its looks; its commit must fail, and nothing may come of it.
            if known.ended is None:
                self.wrong(f"I11: {run.id} was accepted twice")
            self.twins.append(Entry(run, request, known.order))
            return
        entry = self.entries[run.id] = Entry(run, request, len(self.entries))
        entry.too_old = frozenset(
            each.id for each in self.open_in(request.session_id) if "cancel" in each.covered
        )
        if request.session_id in self.doomed:
            entry.covered.append("deleted")
        for each in interrupted:
            self.cover(each, "interrupt")

    def acked(self, run_id: str, receipt: Receipt) -> None:
        """A client has its 202."""
        if receipt.run_id != run_id:
            self.wrong(f"I11: the receipt of {run_id} is about {receipt.run_id}")
        entry = self.entries.get(RunId(run_id))
        if entry is None:
            self.wrong(f"a receipt for {run_id}, which nobody accepted")
            return
        if entry.refused:
            self.wrong(f"I10: {run_id} was promised and its acceptance failed")
        entry.acked = True
        self.facts.append(("accepted", run_id, ""))

    # --- cancelling -----------------------------------------------------------------------

    def cover(self, entry: Entry, reason: str) -> None:
        """From now on this run may end cancelled."""
        if entry.ended is None:
            entry.covered.append(reason)
            if entry.cancelled_at is None:
                entry.cancelled_at = trio.current_time()

    def cover_all(self, session_id: str, reason: str) -> list[Entry]:
        """The same for all open runs of a session."""
        found = self.open_in(session_id)
        for each in found:
            self.cover(each, reason)
        return found

    def receipt(self, receipt: CancelReceipt, wanted: Iterable[Entry]) -> None:
        """A client was told what its cancel covers; ``wanted`` is what was open when it asked."""
        must = {each.id: each for each in wanted}
        named = {covered.run_id: covered.was for covered in receipt.runs}
        twins = {each.id for each in self.twins}
        # What is too late may have ended and the queue not know it yet; and a run may still be in
        # the queue in the step in which its acceptance fails.
        for run_id in named:
            known = self.entries.get(run_id)
            if run_id not in must and run_id not in twins and not (known and known.refused):
                self.wrong(f"I3: a cancel covered {run_id}, which was not open in its session")
        for run_id, each in must.items():
            if run_id in named:
                each.must = named[run_id]
                self.facts.append(("cancelled", run_id, named[run_id]))
            elif run_id not in receipt.too_late:
                each.unnamed = True

    def too_late(self, ids: Iterable[str]) -> None:
        """In the step of a cancel: these were said to be beyond it."""
        for run_id in ids:
            entry = self.entries.get(RunId(run_id))
            if entry is not None and entry.at_work:
                self.wrong(f"I2: {run_id} is at work and was called too late to cancel")

    def answered(self, ask_id: str, action: str) -> None:
        """A person was told that this answer decided a request."""
        if ask_id in self.answers:
            self.wrong(f"I27: {ask_id} was decided twice")
        self.answers[ask_id] = action

    # --- working and ending ---------------------------------------------------------------

    @contextmanager
    def working(self, run_id: RunId, session_id: SessionId) -> Iterator[None]:
        """A model or a tool works for a run."""
        entry = self.entries.get(run_id)
        other = self._working.get(session_id)
        if other not in (None, run_id):
            self.wrong(f"I4: {run_id} works while {other} does")
        if self.closed:
            self.wrong(f"I7: {run_id} works after everything was closed")
        if entry is not None and entry.ended is not None:
            self.wrong(f"I22: {run_id} works after its end")
        if entry is not None:
            entry.at_work += 1
        self._working[session_id] = run_id
        try:
            yield
        finally:
            if entry is not None:
                entry.at_work -= 1
            if entry is None or not entry.at_work:
                self._working.pop(session_id, None)

    def published(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        """Events became visible."""
        for event in events:
            if event.run_id is not None and event.kind == "run":
                parent = payload_of(event.data).payload.parent_run
                if parent is not None:
                    self.sub_agents[event.run_id] = parent
            if event.run_id is not None and event.kind == "run_complete":
                told = payload_of(event.data).payload
                assert isinstance(told, RunComplete)
                self._ended(event.run_id, told.outcome)
        self.facts.append(("seen", workspace_id, str(events[-1].seq)))

    def _ended(self, run_id: RunId, outcome: Outcome) -> None:
        self.facts.append(("ended", run_id, outcome.value))
        self.sub_agents.pop(run_id, None)
        for child, parent in self.sub_agents.items():
            if parent == run_id:
                self.wrong(f"I42: {run_id} ended and its sub-agent {child} has not")
        entry = self.entries.get(run_id)
        if entry is None:
            return
        if entry.ended is not None:
            self.wrong(f"I1: {run_id} ended twice")
        if entry.at_work and not self.slow:
            self.wrong(f"I22: {run_id} ended and is at work")
        entry.ended = outcome
        entry.ended_at = trio.current_time()
        if entry.cancelled_at is not None and not self.slow:
            took = entry.ended_at - entry.cancelled_at
            if took > limits.KILL_TOTAL_S and outcome is Outcome.CANCELLED:
                self.wrong(f"I31: {run_id} ended {took:g} s after its cancel")
