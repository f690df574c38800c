"""Keeps one turn's conversation within its model's window: old output is left out of what is sent,
and when that is not enough, a summary takes the place of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from crush_trio import limits
from crush_trio.agent import compaction, sizes
from crush_trio.agent.budget import Progress
from crush_trio.agent.ports import ModelError, StreamReset
from crush_trio.agent.pruning import Pruned, pruned
from crush_trio.agent.summary import TITLE, Summary, SummaryInput, SummaryJournal, tokens_in
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Usage


class CompactorJournal(SummaryJournal, Protocol):
    """What of a turn's journal a compaction writes to."""

    def stage_summary(self, message: Message, progress: Progress, before: int, after: int) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    def stage_pruned(self, before: int, after: int) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...

    def close_live(self) -> None:
        """See `crush_trio.agent.turn.TurnJournal`."""
        ...


@attrs.define(eq=False)
class Compactor:
    """Decides before each step whether the turn must go on from a summary, and writes it.

    ``given.leaves_out`` names the runs that wait although they stand before this one. ``prompts``
    are the turn's own, the folded ones too. ``asked`` says whether the model has answered already.
    """

    given: SummaryInput
    journal: CompactorJournal
    fullness: compaction.Fullness
    prompts: list[Message]
    asked: bool = attrs.field(default=False, init=False)
    requests: int = attrs.field(default=0, init=False)
    """Requests that were refused as too long or made for summaries; steps of the run, but none of
    the turn's own."""
    _refusals: int = attrs.field(default=0, init=False)
    _left_out: int = attrs.field(default=0, init=False)

    def begin_with(self, earlier: Sequence[Message]) -> None:
        """Take what the model sees of the session as it was when its tokens were counted."""
        place = compaction.last_answer(earlier)
        end = len(earlier) if place is None else place
        sent = self._pruned(earlier[:end])
        tokens = sent.tokens + sizes.of_messages(earlier[end : end + 1])
        self._left_out = sent.left_out
        self.fullness.begin(earlier, tokens)

    def fit(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """What to send of ``messages``; from now on `is_due` speaks of it.

        What is left out newly is told, with the size before and after.
        """
        sent = self._pruned(messages)
        if sent.left_out > self._left_out:
            self.fullness.estimate = self.fullness.frame + sizes.of_messages(messages)
            before = self.fullness.tokens()
            self.fullness.estimate = sent.tokens
            self.journal.stage_pruned(before, self.fullness.tokens())
        self._left_out = sent.left_out
        self.fullness.estimate = sent.tokens
        return sent.messages

    def is_due(self, messages: Sequence[Message]) -> bool:
        """Whether the next step needs a summary first; never if there is nothing to summarise."""
        if self.fullness.is_due() and not self._covered(messages):
            self.fullness.forget()  # the counts speak of messages that are not there any more
            return False
        return self.fullness.is_due()

    def refused(self) -> None:
        """The last request was too long for the model, whatever it says its window is."""
        self.requests += 1
        self.fullness.refused()

    def shorten(self, exc: ModelError, messages: Sequence[Message]) -> StreamReset:
        """What to show of a request that is too long by ``exc``: a shorter one follows.

        Raises:
            ModelError: Nothing can be done about it: ``context_overflow``, or ``exc`` itself where
                the conversation must stay as it is.
        """
        if not self.fullness.allowed:
            raise ModelError(exc.code, f"{exc.message} {_NOT_ALLOWED}", title=exc.title) from exc
        self.fit(messages)
        stuck = not self._covered(messages) or self.fullness.is_hopeless()
        if self.fullness.is_due() and stuck:
            raise _overflow() from exc
        self._refusals += 1
        most = max(self._refusals, limits.COMPACTION_ROUNDS + 1)
        return StreamReset(self._refusals, most, 0.0, exc.message)

    def answered(self, usage: Usage, message: Message) -> None:
        """A step was answered with ``message``; ``usage`` is what was counted of it."""
        self.asked = True
        self.fullness.stepped(usage, sizes.of_message(message))

    def answer_room(self) -> int | None:
        """See `compaction.answer_room`."""
        info = self.given.model.info
        window = self.fullness.window or info.context_window
        return compaction.answer_room(window, self.fullness.tokens(), info.max_output_tokens)

    def begin(self, progress: Progress) -> Summary:
        """A summary to be written now.

        Raises:
            ModelError: ``context_overflow``: it was tried often enough.
        """
        if self.fullness.is_hopeless():
            raise _overflow()
        # Before the first answer the prompt is not part of what is summarised, but stands before
        # it, and so do the prompts that joined it.
        own = () if self.asked else (self.given.run_id,)
        folded = {prompt.run_id for prompt in self.prompts}  # they wait no longer
        leaves_out = (*(r for r in self.given.leaves_out if r not in folded), *own)
        given = attrs.evolve(
            self.given,
            leaves_out=leaves_out,
            earlier=self.requests,
            window=self.fullness.estimated_window(),
        )
        return Summary(given, self.journal, progress)

    async def write(self, summary: Summary, messages: Sequence[Message]) -> list[Message]:
        """Write it over ``messages``; what the turn goes on with, once that is durable (R64).

        Raises:
            LimitReached, ModelError: As `Summary.write`; the pointer has not moved.
        """
        before, steps = self.fullness.tokens(), summary.progress.steps
        try:
            message = await summary.write(self._pruned(self._covered(messages)).messages)
        finally:
            self.requests += summary.progress.steps - steps
        after = tokens_in(message, summary.used)
        shown = compaction.as_user(message)
        self.fullness.summarised(after, sizes.of_message(shown))
        self._left_out = 0
        summary.progress = attrs.evolve(
            summary.progress, last_usage=Usage(output_tokens=after), waiting_on="model"
        )
        self.journal.stage_summary(message, summary.progress, before, after)
        self.journal.close_live()
        await self.journal.flush()
        prompts = map(compaction.interrupted, self.prompts) if self.asked else self.prompts
        return [shown, *prompts]

    def _covered(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What a summary speaks of: all but prompts that nobody has answered."""
        if self.asked:
            return messages
        own = {prompt.id for prompt in self.prompts}
        return [message for message in messages if message.id not in own]

    def _pruned(self, messages: Sequence[Message]) -> Pruned:
        window = self.fullness.estimated_window() if self.fullness.allowed else 0
        return pruned(messages, self.fullness.frame, window)


_NOT_ALLOWED = (
    "Summarising is switched off (--no-compact, options.disable_auto_summarize): allow it, start a "
    "new session, or use a model with a larger window."
)


def _overflow() -> ModelError:
    return ModelError(compaction.OVERFLOW.code, compaction.OVERFLOW.message, title=TITLE)
