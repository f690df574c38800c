"""Keeps one turn's conversation within its model's window: a summary takes the place of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from crush_trio.agent import compaction
from crush_trio.agent.budget import Progress
from crush_trio.agent.ports import ModelError
from crush_trio.agent.summary import TITLE, Summary, SummaryInput, SummaryJournal, tokens_in
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Usage


class CompactorJournal(SummaryJournal, Protocol):
    """What of a turn's journal a compaction writes to."""

    def stage_summary(self, message: Message, progress: Progress, before: int, after: int) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    def close_live(self) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...


@attrs.define(eq=False)
class Compactor:
    """Decides before each step whether the turn must go on from a summary, and writes it.

    ``given.leaves_out`` names the runs that wait although they stand before this one. ``prompts``
    are the turn's own, the folded ones too. ``asked`` says whether the model was asked already.
    """

    given: SummaryInput
    journal: CompactorJournal
    fullness: compaction.Fullness
    prompts: list[Message]
    asked: bool = attrs.field(default=False, init=False)
    requests: int = attrs.field(default=0, init=False)
    """Requests made for summaries; steps of the run, but none of the turn's own."""

    def is_due(self) -> bool:
        """Whether the next step needs a summary first."""
        return self.fullness.is_due()

    def begin(self, progress: Progress) -> Summary:
        """A summary to be written now.

        Raises:
            ModelError: ``context_overflow``: it was tried often enough.
        """
        if self.fullness.is_hopeless():
            overflow = compaction.OVERFLOW
            raise ModelError(overflow.code, overflow.message, title=TITLE)
        # Before the first step the prompt is not part of what is summarised, but stands before it.
        own = () if self.asked else (self.given.run_id,)
        folded = {prompt.run_id for prompt in self.prompts}  # they wait no longer
        leaves_out = (*(r for r in self.given.leaves_out if r not in folded), *own)
        given = attrs.evolve(self.given, leaves_out=leaves_out, earlier=self.requests)
        return Summary(given, self.journal, progress)

    async def write(self, summary: Summary, messages: Sequence[Message]) -> list[Message]:
        """Write it over ``messages``; what the turn goes on with, once that is durable (R64).

        Raises:
            LimitReached, ModelError: As `Summary.write`; the pointer has not moved.
        """
        covered = messages if self.asked else messages[:-1]
        if not covered:  # the counts speak of messages that are not there any more
            self.fullness.forget()
            return list(messages)
        before, steps = self.fullness.tokens(), summary.progress.steps
        try:
            message = await summary.write(covered)
        finally:
            self.requests += summary.progress.steps - steps
        after = tokens_in(message, summary.used)
        self.fullness.summarised(after)
        summary.progress = attrs.evolve(
            summary.progress, last_usage=Usage(output_tokens=after), waiting_on="model"
        )
        self.journal.stage_summary(message, summary.progress, before, after)
        self.journal.close_live()
        await self.journal.flush()
        prompts = map(compaction.interrupted, self.prompts) if self.asked else self.prompts
        return [compaction.as_user(message), *prompts]
