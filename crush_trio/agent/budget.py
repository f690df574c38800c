"""What a run has used so far, and the decisions that its limits ask for. Pure."""

from __future__ import annotations

import attrs

from crush_trio import limits
from crush_trio.agent.ports import ModelInfo, StepEnd
from crush_trio.protocol.ids import MessageId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Limits, RunError, Usage


@attrs.frozen
class Progress:
    """How far a run has come; becomes part of its record with each commit.

    ``last_usage`` is the size of the last step alone (CW 5.11). ``started_calls`` are the tool
    calls that were started and have no stored result yet.
    """

    steps: int = 0
    tool_calls: int = 0
    denied: int = 0
    usage: Usage = Usage()
    last_usage: Usage = Usage()
    cost_usd: float | None = None
    message_id: MessageId | None = None
    text: str = ""
    waiting_on: str | None = None
    started_calls: frozenset[str] = frozenset()


class LimitReached(Exception):
    """A limit ended the turn from outside its loop; becomes outcome limited."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@attrs.frozen
class Budget:
    """The limits of one run, and the prices by which its model's tokens are counted.

    Each question is answered with the error of outcome ``limited``, or ``None``: go on.
    """

    limits: Limits
    info: ModelInfo

    def before_step(self, progress: Progress) -> RunError | None:
        """Whether one more request may be made."""
        allowed = self.limits.max_steps or limits.MAX_STEPS
        if progress.steps >= allowed:
            return RunError("max_steps", f"The run reached its limit of {allowed} steps.")
        return self._spent(progress)

    def before_call(self, progress: Progress) -> RunError | None:
        """Whether one more tool call may be run."""
        allowed = self.limits.max_tool_calls
        if allowed is not None and progress.tool_calls >= allowed:
            return RunError("max_tool_calls", f"The run reached its limit of {allowed} calls.")
        return None

    def output_tokens_left(self, progress: Progress) -> int | None:
        """What the next request may write; ``None`` without a limit."""
        limit = self.limits.max_output_tokens
        return None if limit is None else max(1, limit - progress.usage.output_tokens)

    def account(self, progress: Progress, end: StepEnd, message: Message) -> Progress:
        """The progress with one step's usage, its cost and its text."""
        usage = end.usage or Usage()
        cost = end.cost_usd if end.cost_usd is not None else self.price(usage)
        total = progress.cost_usd
        if cost is not None:
            total = (total or 0.0) + cost
        return attrs.evolve(
            progress,
            usage=progress.usage.plus(usage),
            last_usage=usage,
            cost_usd=total,
            message_id=message.id,
            text=message.text(),
        )

    def price(self, usage: Usage) -> float | None:
        """What ``usage`` costs by the model's price list, in dollars; ``None`` without one."""
        info = self.info
        if info.cost_per_1m_in is None or info.cost_per_1m_out is None:
            return None
        return (
            usage.input_tokens * info.cost_per_1m_in + usage.output_tokens * info.cost_per_1m_out
        ) / 1e6

    def _spent(self, progress: Progress) -> RunError | None:
        allowed, spent = self.limits.max_cost_usd, progress.cost_usd
        if allowed is not None and spent is not None and spent >= allowed:
            return RunError("max_cost_usd", f"The run has cost ${spent:.4f}, its limit.")
        written = progress.usage.output_tokens
        if self.limits.max_output_tokens is not None and written >= self.limits.max_output_tokens:
            return RunError(
                "max_output_tokens", f"The run has written {written} tokens, its limit."
            )
        return None


def denied_error(progress: Progress) -> RunError | None:
    """Why a run whose answer is whole ends ``denied``; ``None`` if nothing was refused."""
    denied = progress.denied
    if not denied:
        return None
    return RunError(
        "denied",
        f"{denied} tool call{'s were' if denied > 1 else ' was'} denied; "
        "see allow_tools and permission_mode (--allow-tool, -y).",
    )
