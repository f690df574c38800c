"""When a conversation is too long for its model's window, and what becomes of it then (R63, R64).

Pure: from messages to messages. A summary hides what it covers from the model, nothing is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import attrs

from crush_trio import limits
from crush_trio.agent import sizes
from crush_trio.protocol.ids import MessageId, RunId
from crush_trio.protocol.messages import (
    BinaryPart,
    ImageUrlPart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from crush_trio.protocol.runs import RunError, Usage

OVERFLOW = RunError(
    "context_overflow",
    "The conversation does not fit into the model's window, and summarising it did not help; "
    "start a new session, or use a model with a larger window.",
)
_LEFT_OUT = "[output left out]"


def is_full(window: int, tokens: int) -> bool:
    """Whether a conversation of so many tokens leaves too little of the window (R63).

    Never with a window of 0: it is unknown.
    """
    if window <= 0:
        return False
    if window > limits.COMPACTION_LARGE_WINDOW_TOKENS:
        return window - tokens <= limits.COMPACTION_LEFT_TOKENS
    return window - tokens <= window * limits.COMPACTION_LEFT_SHARE


@attrs.define
class Fullness:
    """How full a model's window is, and whether summarising still helps.

    ``prompt_tokens`` and ``completion_tokens`` are the last count there is: the session's own at
    first (CW 5.11), then each step's. What has been added since, or left out, is estimated: the
    system prompt, the tools and all messages are. The answer's room is not part of it: R63 leaves
    a fifth of the window or 20,000 tokens, and a request never asks for more than is left (see
    `answer_room`), so that a long limit of answers does not make every conversation look full.

    ``window`` 0 is unknown, until a request is refused. Without ``allowed`` nothing is left out.
    ``frame`` is what each request holds besides its messages, in tokens (`sizes.of_frame`): where
    that alone fills the window, a summary would not help, and the provider decides.
    """

    window: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rounds: int = 0
    allowed: bool = True
    frame: int = 0
    estimate: int = 0
    """Of the whole next request, in tokens."""
    counted_at: int = 0
    """The estimate of what the count speaks of."""
    _refused: float = attrs.field(default=math.inf, init=False)

    def tokens(self) -> int:
        """The size of the conversation as it would be sent now."""
        counted = self.prompt_tokens + self.completion_tokens
        if not counted:
            return self.estimate
        if self.estimate >= self.counted_at:
            return counted + self.estimate - self.counted_at
        return counted * self.estimate // self.counted_at

    def is_due(self) -> bool:
        """Whether the next step must not be asked with the conversation as it is."""
        if not self.allowed:
            return False
        tokens = self.tokens()
        helps = tokens - self.frame > self.window * limits.SUMMARY_LEAST_SHARE
        return self.estimate >= self._refused or (helps and is_full(self.window, tokens))

    def estimated_window(self) -> int:
        """What a request may be by our estimate, as far as we know; 0 is unknown."""
        known = min(self.window or math.inf, self._refused)
        return 0 if known == math.inf else int(known)

    def is_hopeless(self) -> bool:
        """Whether it was summarised so often in a row without a step that fitted."""
        return self.rounds >= limits.COMPACTION_ROUNDS

    def begin(self, earlier: Sequence[Message], pruned_tokens: int) -> None:
        """Find out what the session's count speaks of.

        ``earlier`` is what the model sees of the session; ``pruned_tokens`` is the size of that as
        it was sent, up to the last answer that a model has ended, and that answer.
        """
        counted = self.prompt_tokens + self.completion_tokens
        if not earlier:
            self.forget()
        elif counted and not self.prompt_tokens and earlier[0].is_summary_message:
            self.counted_at = pruned_tokens - self.frame  # of the summary alone
        elif counted and last_answer(earlier) is None:  # at least it is not smaller than it looks
            self.prompt_tokens += max(0, pruned_tokens - counted)
            self.counted_at = pruned_tokens
        else:
            self.counted_at = pruned_tokens

    def stepped(self, usage: Usage, answer: int) -> None:
        """Take the usage of a step, whose answer we estimate at so many tokens; one that fits shows
        that summarising has helped."""
        if _input(usage):
            self.prompt_tokens, self.completion_tokens = _input(usage), usage.output_tokens
            self.counted_at = self.estimate + answer
        self.estimate += answer
        if not self.is_due():
            self.rounds = 0

    def refused(self) -> None:
        """The last request was too long for the model, whatever it says its window is."""
        self._refused = min(self._refused, self.estimate)
        self.window = min(self.window or self.tokens(), self.tokens())

    def summarised(self, tokens: int, estimate: int) -> None:
        """The conversation is now a summary of so many tokens, which we estimate at ``estimate``,
        and what else is sent is added to it."""
        self.prompt_tokens, self.completion_tokens = 0, tokens
        self.counted_at = estimate
        self.rounds += 1

    def forget(self) -> None:
        """There is no conversation that could be this large."""
        self.prompt_tokens = self.completion_tokens = self.counted_at = 0


def _input(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def answer_room(window: int, tokens: int, usual: int) -> int | None:
    """How long an answer may be, if the model's ``usual`` limit does not fit behind a request.

    Models count request and limit together and refuse what is larger than their window. ``None``
    if the usual limit fits, if the window or the limit is unknown, or if nothing is left.
    """
    room = window - tokens - int(window * limits.ANSWER_MARGIN_SHARE)
    return room if window > 0 and 0 < room < usual else None


def last_answer(messages: Sequence[Message]) -> int | None:
    """The place of the last message that a model has ended, or of the summary they begin with."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        finish = message.finish()
        if message.role == "assistant" and finish and finish.reason not in ("canceled", "error"):
            return place
    return 0 if messages and messages[0].is_summary_message else None


def history(messages: Sequence[Message], summary_id: MessageId | str) -> tuple[Message, ...]:
    """What a model is to see of a stored conversation: from its summary on, if it has one (R65).

    The summary comes first, as a user's message; then what stands before it but is not part of it
    (`Message.leaves_out`), then what stands behind it, unless it is part of it (`Message.covers`).
    A summary that was never completed is not shown.
    """
    place = next((i for i, message in enumerate(messages) if message.id == summary_id), None)
    if place is None:
        return tuple(message for message in messages if not message.is_summary_message)
    summary = messages[place]
    standing = list(zip(messages, places(messages), strict=True))
    left_out = (m for m, run in standing[:place] if run in summary.leaves_out)
    behind = (m for m, run in standing[place + 1 :] if run not in summary.covers)
    shown = (m for m in (*left_out, *behind) if not m.is_summary_message)
    return (as_user(summary), *shown)


def places(messages: Sequence[Message]) -> tuple[RunId | None, ...]:
    """For each message of a stored conversation, in its order, the run at whose place it stands.

    That is the run that wrote it, but for a folded prompt the run that took it in: it stands
    between two messages of that run, whenever it was itself accepted.
    """
    last = {message.run_id: at for at, message in enumerate(messages)}
    found: list[RunId | None] = []
    now: RunId | None = None
    until = -1
    for at, message in enumerate(messages):
        if at > until:
            now = message.run_id
            until = at if now is None else last[now]
        found.append(now)
    return tuple(found)


def covered_behind(stored: Sequence[RunId | None], later: Container[RunId]) -> tuple[RunId, ...]:
    """What a summary's `Message.covers` are, given the `places` of all messages its run found.

    Each of them was shown to the run, or is covered by the summary that it was shown instead.
    ``later`` are the runs accepted after the summary's own: they stand behind it.
    """
    return tuple(run for run in dict.fromkeys(stored) if run is not None and run in later)


def as_user(summary: Message) -> Message:
    """A summary as the model sees it: said by the user, and part of no run."""
    return attrs.evolve(summary, role="user", run_id=None, parts=(TextPart(summary.text()),))


def is_worth_it(shown: Sequence[Message]) -> bool:
    """Whether a `history` holds anything that a summary could shorten."""
    return any(not message.is_summary_message for message in shown)


def interrupted(prompt: Message) -> Message:
    """A prompt whose turn goes on after a summary: quoted, with its attachments (R64)."""
    quoted = (
        "The previous session was interrupted because it got too long; "
        f"the initial user request was: `{prompt.text()}`"
    )
    attached: list[Part] = [part for part in prompt.parts if not isinstance(part, TextPart)]
    return attrs.evolve(prompt, parts=(TextPart(quoted), *attached))


def shortened(messages: Sequence[Message], tried: int, room: int = 0) -> tuple[Message, ...]:
    """What to summarise after ``tried`` requests that were too long; at least the last message.

    First the outputs of tools and the images go, then half of the oldest messages and what is long
    of each text, and again half. ``room`` is what we believe to fit, in tokens (0 = unknown): the
    oldest messages beyond it go with the first try that was too long, and with each further one
    it is halved, so that at last it fits whatever a provider counts.
    """
    if not tried:
        return tuple(messages)
    kept = max(1, len(messages) >> (tried - 1))
    most = limits.SUMMARY_TEXT_CHARS >> (2 * tried - 4) if tried > 1 else None
    light = [_lightened(message, most) for message in messages[-kept:]]
    if room <= 0:
        return tuple(light)
    left, first = room >> (tried - 1), len(light)
    while first and left > 0:
        first -= 1
        left -= sizes.of_message(light[first])
    return tuple(light[min(first + (left < 0), len(light) - 1) :])


def _lightened(message: Message, most: int | None) -> Message:
    parts = tuple(_light(part, most) for part in message.parts)
    return attrs.evolve(message, parts=parts)


def _light(part: Part, most: int | None) -> Part:
    match part:
        case ToolResultPart():
            long = len(part.content) > limits.SUMMARY_OUTPUT_CHARS
            content = _LEFT_OUT if long else part.content
            return attrs.evolve(part, content=content, data="", mime_type="")
        case BinaryPart(path):
            return TextPart(f"[{path} left out]")
        case ImageUrlPart():
            return TextPart("[image left out]")
        case TextPart(text) if most is not None:
            return TextPart(_cut(text, most))
        case ToolCallPart() if most is not None and len(part.input) > most:
            return attrs.evolve(part, input="{}")
    return part


def _cut(text: str, most: int) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[{len(text) - most} characters left out]\n{text[-most // 2 :]}"
