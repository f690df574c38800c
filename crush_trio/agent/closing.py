"""What the transcript of a run that was cut short still needs, whatever kind of run it is.

Pure. A running server and a recovery ask the same function, so they leave the same behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from crush_trio.agent import shell_text, summary, transcript
from crush_trio.agent.transcript import Cause
from crush_trio.protocol.ids import MessageId
from crush_trio.protocol.messages import Message

_EXIT_CODES = {
    Cause.CANCELLED: shell_text.CANCELLED,
    Cause.LIMITED: shell_text.TIMED_OUT,
    Cause.FAILED: shell_text.NOT_STARTED,
    Cause.LOST: shell_text.KILLED,
}


@attrs.frozen
class Closed:
    """Messages to write in this order, those to delete, and the one that is the run's answer."""

    written: tuple[Message, ...] = ()
    removed: tuple[MessageId, ...] = ()
    answer: Message | None = None

    def record_fields(self, known: MessageId | None) -> dict[str, Any]:
        """What the run's record says of its answer from now on; ``known`` is what it named."""
        if self.answer is not None:
            return {"message_id": self.answer.id, "text": text_of(self.answer)}
        return {"message_id": None, "text": ""} if known in self.removed else {}


def text_of(message: Message) -> str:
    """A message's text as a run record has it: of a command its output."""
    if shell_text.holds_command(message):
        return shell_text.part_of(message).output
    return message.text()


def close(
    kind: str,
    messages: Sequence[Message],
    *,
    cause: Cause,
    now_s: int,
    empty: Message | None = None,
    started_calls: frozenset[str] = frozenset(),
    title: str = "",
    details: str = "",
) -> Closed:
    """Close a run of this ``kind``; the arguments are those of `transcript.close_run`.

    Only a prompt needs ``empty``.

    A summary that a cancel cut short is deleted (R65), and with it a whole one that nobody points
    to: only the terminal commit of a summarise run would have. Any other cause leaves it, ended
    with an error; in a prompt's run it is not the answer.
    """
    if kind == "shell":
        return _close_shell(messages, cause, now_s)
    removed: tuple[MessageId, ...] = ()
    if cause is Cause.CANCELLED:
        removed = tuple(m.id for m in messages if _unwanted(m, kind))
        messages = [message for message in messages if message.id not in removed]
    if kind == "summarize" or empty is None:
        title = title or (summary.TITLE if cause is Cause.FAILED else "")
        finish = transcript.finish_part(cause, now_s, title, details)
        written = tuple(
            transcript.closed_assistant(message, finish, now_s)
            for message in messages
            if message.finish() is None
        )
        return Closed(written, removed, written[-1] if written else None)
    # A summary that was completed is not the run's last word.
    said = [m for m in messages if not (m.is_summary_message and m.finish() is not None)]
    written = transcript.close_run(
        said,
        cause=cause,
        started_calls=started_calls,
        empty=empty,
        now_s=now_s,
        title=title,
        details=details,
    )
    answers = [m for m in written if m.role == "assistant" and not m.is_summary_message]
    return Closed(written, removed, answers[-1] if answers else None)


def _unwanted(message: Message, kind: str) -> bool:
    return message.is_summary_message and (kind == "summarize" or message.finish() is None)


def _close_shell(messages: Sequence[Message], cause: Cause, now_s: int) -> Closed:
    written = tuple(
        shell_text.closed(message, _EXIT_CODES[cause], now_s)
        for message in messages
        if message.finish() is None
    )
    return Closed(written, answer=written[-1] if written else None)
