"""When a conversation is too long for its model's window, and what becomes of it then (R63, R64).

Pure: from messages to messages. A summary hides what it covers from the model, nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import attrs

from crush_trio import limits
from crush_trio.protocol.ids import MessageId, RunId
from crush_trio.protocol.messages import Message, Part, TextPart, ToolResultPart
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

    ``prompt_tokens`` and ``completion_tokens`` are the session's (CW 5.11); a step whose provider
    counts nothing leaves them. ``window`` 0 switches everything off.
    """

    window: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rounds: int = 0

    def tokens(self) -> int:
        """The size of the conversation as of the last step."""
        return self.prompt_tokens + self.completion_tokens

    def is_due(self) -> bool:
        """Whether the next step must not be asked with the conversation as it is."""
        return is_full(self.window, self.tokens())

    def is_hopeless(self) -> bool:
        """Whether it was summarised so often in a row without a step that fitted."""
        return self.rounds >= limits.COMPACTION_ROUNDS

    def stepped(self, usage: Usage) -> None:
        """Take the usage of a step; one that fits shows that summarising has helped."""
        self.prompt_tokens = usage.input_tokens + usage.cache_read_tokens or self.prompt_tokens
        self.completion_tokens = usage.output_tokens or self.completion_tokens
        if not self.is_due():
            self.rounds = 0

    def summarised(self, tokens: int) -> None:
        """The conversation is now a summary of so many tokens."""
        self.prompt_tokens, self.completion_tokens = 0, tokens
        self.rounds += 1

    def forget(self) -> None:
        """There is no conversation that could be this large."""
        self.prompt_tokens = self.completion_tokens = 0


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


def shortened(messages: Sequence[Message], tried: int) -> tuple[Message, ...]:
    """What to summarise after ``tried`` requests that were too long.

    First the outputs of tools go, then half of the oldest messages, and again half.
    """
    if not tried:
        return tuple(messages)
    kept = max(1, len(messages) >> (tried - 1))
    return tuple(_without_outputs(message) for message in messages[-kept:])


def _without_outputs(message: Message) -> Message:
    parts = tuple(
        attrs.evolve(part, content=_LEFT_OUT, data="")
        if isinstance(part, ToolResultPart) and len(part.content) > limits.SUMMARY_OUTPUT_CHARS
        else part
        for part in message.parts
    )
    return attrs.evolve(message, parts=parts)
