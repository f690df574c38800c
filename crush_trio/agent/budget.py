"""What a run has used so far, and the decisions that its limits ask for. Pure."""

from __future__ import annotations

import math

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

    def meter(self, progress: Progress) -> StepMeter:
        """What watches the next request while it streams."""
        return StepMeter(self, progress)

    def account(
        self, progress: Progress, end: StepEnd | None, used: Usage, message: Message
    ) -> Progress:
        """The progress with one step's usage, its cost and its text.

        ``used`` counts if the provider named no usage at the end, or there was none: ``end`` is
        ``None`` for a step that was cut short.
        """
        usage = used if end is None or end.usage is None else end.usage
        cost = end.cost_usd if end is not None else None
        cost = self.price(usage) if cost is None else cost
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


@attrs.define(eq=False)
class StepMeter:
    """Says how much one step may still stream, in characters, so that asking costs one comparison.

    Counts what the provider has reported, and beyond that a token per `limits.CHARS_PER_TOKEN`
    characters. An answer of exactly the limit is whole; one more token is cut. An answer whose
    provider tells only at its end that it went over is whole, too: nothing was cut, and the run
    ends as it would have, unless it wants one more step.
    """

    budget: Budget
    before: Progress
    room: float = attrs.field(default=math.inf, init=False)
    """The length of streamed content beyond which a limit is crossed."""
    _reported: Usage = attrs.field(default=Usage(), init=False)
    _at: int = attrs.field(default=0, init=False)
    _code: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._measure()

    def report(self, usage: Usage, length: int) -> None:
        """Take the provider's own count, made when ``length`` characters had been streamed."""
        self._reported = usage
        self._at = length if usage.output_tokens else 0  # it has not counted them yet
        self._measure()

    def reset(self) -> None:
        """The request is made again from the start."""
        self.report(Usage(), 0)

    def used(self, length: int) -> Usage:
        """What the step has used, after ``length`` characters."""
        return self._reported.plus(Usage(output_tokens=tokens_of(length - self._at)))

    def over(self) -> RunError:
        """Which limit is crossed when more than `room` was streamed."""
        wanted = self.budget.limits
        if self._code == "max_cost_usd":
            return RunError(self._code, f"The run reached its limit of ${wanted.max_cost_usd:g}.")
        return RunError(
            "max_output_tokens",
            f"The run reached its limit of {wanted.max_output_tokens} output tokens.",
        )

    def _measure(self) -> None:
        left = {"max_output_tokens": self._tokens_left(), "max_cost_usd": self._paid_tokens_left()}
        self._code = min(left, key=lambda code: left[code])
        tokens = left[self._code]
        # With less than nothing left even an empty answer is too long.
        self.room = -1 if tokens < 0 else self._at + tokens * limits.CHARS_PER_TOKEN

    def _tokens_left(self) -> float:
        limit = self.budget.limits.max_output_tokens
        if limit is None:
            return math.inf
        return limit - self.before.usage.output_tokens - self._reported.output_tokens

    def _paid_tokens_left(self) -> float:
        limit, price = self.budget.limits.max_cost_usd, self.budget.info.cost_per_1m_out
        spent = self.budget.price(self._reported)
        if limit is None or spent is None or price is None:
            return math.inf
        dollars = limit - (self.before.cost_usd or 0.0) - spent
        if dollars < 0 or not price:
            return -1.0 if dollars < 0 else math.inf
        return math.floor(dollars * 1e6 / price + 1e-6)  # what a float lost is not a token


def tokens_of(length: int) -> int:
    """An estimate of how many tokens so many characters are (CW 5.11)."""
    return -(-length // limits.CHARS_PER_TOKEN)


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
