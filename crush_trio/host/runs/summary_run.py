"""A summary that somebody asked for, as a run of its own (R65)."""

from __future__ import annotations

from functools import partial

import attrs

from crush_trio.agent import compaction
from crush_trio.agent.budget import Progress
from crush_trio.agent.ports import Model, ModelError
from crush_trio.agent.summary import Covers, Summary, SummaryInput, tokens_in
from crush_trio.agent.turn import TurnEnd
from crush_trio.host.runs import kind_commits
from crush_trio.host.runs.desk import Desk, now_s
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Limits, Outcome
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Transaction


@attrs.define(eq=False)
class SummaryRun:
    """Writes one summary; implements `host.runs.desk.Work`.

    The summary counts from the terminal commit on, which moves the session's pointer, its token
    counts and its cost together (I18). Until then nothing but an open message is stored.
    """

    desk: Desk
    _summary: Summary | None = attrs.field(default=None, init=False)
    _written: Message | None = attrs.field(default=None, init=False)
    _answer: Progress | None = attrs.field(default=None, init=False)
    _before: int = attrs.field(default=0, init=False)

    @property
    def progress(self) -> Progress | None:
        """See `host.runs.desk.Work`."""
        if self._answer is not None:
            return self._answer
        return None if self._summary is None else self._summary.progress

    @property
    def failure(self) -> Exception | None:
        """See `host.runs.desk.Work`."""
        return None if self._summary is None else self._summary.failure

    def started_calls(self, *, cancelled: bool) -> frozenset[str]:
        """See `host.runs.desk.Work`: there are no tool calls."""
        return frozenset()

    async def take(self, wanted: Limits) -> TurnEnd:
        """Summarise the conversation; with nothing to summarise there is nothing to do.

        Raises:
            LimitReached, ModelError: As `Summary.write`.
        """
        journal, row = self.desk.journal, self.desk.row
        journal.stage(lambda tx: kind_commits.begin_kind(tx, row.record.id, "summarize", ()))
        leaves_out = self.desk.moved_behind()  # looked at before the messages are
        model = await self._model()
        session, stored = await self._stored()
        shown = compaction.history(stored, session.summary_message_id)
        if not compaction.is_worth_it(shown):
            return TurnEnd(Outcome.COMPLETED)
        self._before = session.prompt_tokens + session.completion_tokens
        covers = partial(self.desk.covered_behind, compaction.places(stored))
        self._summary = Summary(self._given(model, wanted, leaves_out, covers), journal)
        self._written = await self._summary.write(shown)
        self._answer = attrs.evolve(
            self._summary.progress, message_id=self._written.id, text=self._written.text()
        )
        journal.stage_message(self._written, self._answer)
        return TurnEnd(Outcome.COMPLETED)

    async def _model(self) -> Model:
        model = await self.desk.model()
        if not model.info.is_language_model:
            raise ModelError("no_language_model", NO_LANGUAGE_MODEL)
        return model

    async def _stored(self) -> tuple[Session, tuple[Message, ...]]:
        session_id = self.desk.journal.session_id
        found = await self.desk.home.store.session(session_id)
        session = found[1] if found is not None else Session(session_id)
        return session, await self.desk.home.store.messages(session_id)

    def _given(
        self, model: Model, wanted: Limits, leaves_out: tuple[RunId, ...], covers: Covers
    ) -> SummaryInput:
        journal = self.desk.journal
        return SummaryInput(
            journal.session_id,
            journal.run_id,
            self.desk.home.path,
            model,
            wanted,
            now_s,
            leaves_out,
            covers,
        )

    def settle(self, tx: Transaction, outcome: Outcome) -> None:
        """Let the session begin with the summary; without one only its cost is added.

        A cancelled summary changes nothing but its run's record (R65).
        """
        if self._summary is None or outcome is Outcome.CANCELLED:
            return
        session_id, run_id = self.desk.journal.session_id, self.desk.journal.run_id
        cost = self._summary.progress.spent
        if self._written is None:
            kind_commits.add_cost(tx, session_id, cost)
            return
        after = tokens_in(self._written, self._summary.used)
        kind_commits.point_at_summary(
            tx, session_id, run_id, self._written.id, before=self._before, after=after, cost=cost
        )


NO_LANGUAGE_MODEL = (
    "A summary needs a language model, and offline/scout is none; name one with `model` (-m), "
    "or configure one."
)
