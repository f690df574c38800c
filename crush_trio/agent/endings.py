"""How a turn ends by itself, and which steps of a model are no answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from crush_trio.agent.budget import Progress, denied_error
from crush_trio.agent.ports import ModelError, StepEnd
from crush_trio.protocol.messages import Message, ReasoningPart, ToolCallPart
from crush_trio.protocol.runs import Outcome, RunError


@attrs.frozen
class TurnEnd:
    """How a turn ended by itself; a cancelled one does not return."""

    outcome: Outcome
    error: RunError | None = None


def no_answer(end: StepEnd, message: Message, asked: Sequence[ToolCallPart]) -> ModelError | None:
    """Why a step that has ended is no answer, also behind results of tools: neither text nor call.

    One that was cut at its output limit is none of these: `of_step` says so. A network model has
    asked once more by then; here the run fails.
    """
    if asked or message.text().strip() or end.reason == "max_tokens":
        return None
    if end.reason == "content_filter":
        return ModelError("content_filtered", FILTERED, title="Content filtered")
    if any(isinstance(part, ReasoningPart) and part.thinking.strip() for part in message.parts):
        sentence = "The model thought but gave no answer."
    else:
        sentence = "The model gave an empty answer."
    return ModelError("empty_answer", sentence, retryable=True, title="Empty answer")


def of_step(end: StepEnd, progress: Progress, asked: Sequence[ToolCallPart]) -> TurnEnd | None:
    """The ending after a step whose calls have run; ``None`` if the model is to be asked again.

    A model that asked for tools waits for the results, whatever reason its provider names: some
    say ``stop`` or nothing. An answer that ended for an unknown reason counts as whole: a stream
    that broke off raises, so its provider did end it.
    """
    if end.reason == "max_tokens":
        said = "" if progress.text.strip() or asked else " before it said anything"
        return limited(
            "max_output_tokens", f"The model's answer was cut at its output limit{said}."
        )
    if end.reason == "content_filter":
        return TurnEnd(Outcome.FAILED, RunError("content_filtered", FILTERED))
    return None if asked else completed(progress)


def completed(progress: Progress) -> TurnEnd:
    """The turn is over, and the answer is whole."""
    denied = denied_error(progress)
    return TurnEnd(Outcome.COMPLETED) if denied is None else TurnEnd(Outcome.DENIED, denied)


def limited(code: str, message: str) -> TurnEnd:
    """A limit ended the turn."""
    return TurnEnd(Outcome.LIMITED, RunError(code, message))


def finish_reason(end: StepEnd, asked: Sequence[ToolCallPart]) -> str:
    """The stored reason: ``tool_use`` exactly if the model asked for tools and stopped for them."""
    if end.reason == "tool_use" and not asked:
        return "end_turn"
    return "tool_use" if asked and end.reason in ("end_turn", "unknown") else end.reason


FILTERED = (
    "The provider's content filter stopped the answer; say it in other words, or use another model."
)
