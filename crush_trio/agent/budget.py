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
class Below:
    """What a run's sub-agents have done of what its limits count.

    ``out_of_calls``: one of them wanted a tool call more than the run has left.
    """

    steps: int = 0
    tool_calls: int = 0
    out_of_calls: bool = False


@attrs.frozen
class Progress:
    """How far a run has come; becomes part of its record with each commit.

    ``last_usage`` is the size of the last step alone that used anything (CW 5.11). ``cost_usd`` is
    ``None`` from the first step on whose cost is unknown; ``spent`` is what the others cost.
    ``started_calls`` are the tool calls that were started and have no stored result yet. Tokens and
    cost are also those of its sub-agents, steps and calls its own: theirs are ``below``.
    """

    steps: int = 0
    tool_calls: int = 0
    denied: int = 0
    usage: Usage = Usage()
    last_usage: Usage = Usage()
    cost_usd: float | None = None
    spent: float = 0.0
    unpriced: bool = False
    message_id: MessageId | None = None
    text: str = ""
    waiting_on: str | None = None
    started_calls: frozenset[str] = frozenset()
    below: Below = Below()


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

    def blind(self, progress: Progress) -> RunError | None:
        """Why a wanted limit of cost cannot be kept: the model's price, or what a step has cost, is
        unknown. An error of outcome ``failed``: a limit is never ignored in silence."""
        if self.limits.max_cost_usd is None:
            return None
        info = self.info
        priced = info.cost_per_1m_in is not None and info.cost_per_1m_out is not None
        if not progress.unpriced and (priced or info.reports_cost):
            return None
        what = "what a step has cost is" if progress.unpriced else "its price is"
        return RunError(
            "cost_unknown",
            f"max_cost_usd cannot be kept with {info.provider}/{info.model}: {what} not known; "
            "set its cost_per_1m_* in the configuration, or leave the limit out.",
        )

    def before_step(self, progress: Progress) -> RunError | None:
        """Whether one more request may be made."""
        allowed = self.limits.max_steps or limits.MAX_STEPS
        if progress.steps + progress.below.steps >= allowed:
            return RunError("max_steps", f"The run reached its limit of {allowed} steps.")
        return self.before_call(progress) if progress.below.out_of_calls else self._spent(progress)

    def before_call(self, progress: Progress) -> RunError | None:
        """Whether one more tool call may be run."""
        allowed = self.limits.max_tool_calls
        done = progress.tool_calls + progress.below.tool_calls
        if allowed is not None and done >= allowed:
            return RunError("max_tool_calls", f"The run reached its limit of {allowed} calls.")
        return None

    def output_tokens_left(self, progress: Progress, room: int | None = None) -> int | None:
        """What the next request may write, and no more than ``room``; ``None`` without a limit."""
        limit = self.limits.max_output_tokens
        left = None if limit is None else max(1, limit - progress.usage.output_tokens)
        return min((each for each in (left, room) if each is not None), default=None)

    def meter(self, progress: Progress, request: int = 0) -> StepMeter:
        """What watches the next request, of about ``request`` tokens, while it streams."""
        return StepMeter(self, progress, request if self.info.is_language_model else 0)

    def account(
        self,
        progress: Progress,
        end: StepEnd | None,
        used: Usage,
        message: Message,
        abandoned: Usage = Usage(),
    ) -> Progress:
        """The progress with one step's usage, its cost and its text.

        ``used`` counts if the provider named no usage at the end, or there was none: ``end`` is
        ``None`` for a step that was cut short. ``abandoned`` is what attempts before have used: it
        is paid for, but no part of the step's size. One unknown cost makes the whole unknown.
        """
        named = end.usage if end is not None else None
        usage = used if named is None or is_nothing(named) else named
        cost = end.cost_usd if end is not None else None
        cost = self.price(usage) if cost is None else cost
        more = self.price(abandoned)
        unpriced = (cost is None and not is_nothing(usage)) or (
            more is None and not is_nothing(abandoned)
        )
        unpriced = progress.unpriced or unpriced
        # A sum of floats is kept from drifting; a token costs more than 1e-12 dollars.
        spent = round(progress.spent + (cost or 0.0) + (more or 0.0), 12)
        known = cost is not None or progress.cost_usd is not None
        return attrs.evolve(
            progress,
            usage=progress.usage.plus(usage).plus(abandoned),
            last_usage=progress.last_usage if is_nothing(usage) else usage,
            cost_usd=spent if known and not unpriced else None,
            spent=spent,
            unpriced=unpriced,
            message_id=message.id,
            text=message.text(),
        )

    def price(self, usage: Usage) -> float | None:
        """What ``usage`` costs by the model's price list, in dollars (CW 5.11).

        ``None`` if one of the prices it needs is unknown: those of the cache are not guessed.
        An estimated usage makes an estimated cost; `Usage.estimated` says so of both.
        """
        info = self.info
        if info.cost_per_1m_in is None or info.cost_per_1m_out is None:
            return None
        bill = (
            (usage.input_tokens, info.cost_per_1m_in),
            (usage.output_tokens, info.cost_per_1m_out),
            (usage.cache_write_tokens, info.cost_per_1m_in_cached),
            (usage.cache_read_tokens, info.cost_per_1m_out_cached),
        )
        total = 0.0
        for tokens, price in bill:
            if tokens and price is None:
                return None
            total += tokens * (price or 0.0)
        return total / 1e6

    def _spent(self, progress: Progress) -> RunError | None:
        allowed, spent = self.limits.max_cost_usd, progress.spent
        if allowed is not None and spent >= allowed:
            return RunError("max_cost_usd", f"The run has cost ${spent:.6g}, its limit.")
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
    request: int = 0
    """An estimate of what was sent, in tokens."""
    room: float = attrs.field(default=math.inf, init=False)
    """The length of streamed content beyond which a limit is crossed."""
    abandoned: Usage = attrs.field(default=Usage(), init=False)
    """What attempts that failed have used: providers count it, although nobody sees it."""
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

    def reset(self, length: int) -> None:
        """The request is made again from the start, after ``length`` characters.

        Its answer may be as long as the first one might have been; what both cost is one sum.
        """
        self.abandoned = self.abandoned.plus(self.used(length))
        self.report(Usage(), 0)

    def used(self, length: int, *, ended: bool = False) -> Usage:
        """What the step has used, after ``length`` characters.

        What its provider has not reported is estimated. That it was read at all, the answer shows,
        or that it has ``ended`` without an error.
        """
        reported = self._reported
        rest = Usage(output_tokens=tokens_of(length - self._at))
        if is_nothing(attrs.evolve(reported, output_tokens=0)) and (length or ended):
            rest = attrs.evolve(rest, input_tokens=self.request)
        return reported if is_nothing(rest) else reported.plus(attrs.evolve(rest, estimated=True))

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
        spent = self.budget.price(self.abandoned.plus(self._reported))
        if limit is None or spent is None or price is None:
            return math.inf
        dollars = limit - self.before.spent - spent
        if dollars < 0 or not price:
            return -1.0 if dollars < 0 else math.inf
        return math.floor(dollars * 1e6 / price + 1e-6)  # what a float lost is not a token


def is_nothing(usage: Usage) -> bool:
    """Whether no token was counted."""
    return not any(
        (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        )
    )


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
        f"{denied} tool call{'s were' if denied > 1 else ' was'} denied; the result says by "
        "what. Allow calls beforehand with allow_tools or permission_mode (--allow-tool, -y); "
        "what a rule, a hook or a person denies stays denied.",
    )
