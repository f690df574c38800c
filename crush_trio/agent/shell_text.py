"""A command that a person ran: how it is stored, and how a model reads it (CW 3.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId, new_id
from crush_trio.protocol.messages import FinishPart, Message, ShellCommandPart

CANCELLED, TIMED_OUT, NOT_STARTED, KILLED = 130, 124, 127, 137
"""Exit codes, as shells count them, of commands that did not end by themselves."""
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x1b\\|\x07|\Z)|[ -/]*[0-~]|\Z)", re.DOTALL
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def opened(session_id: SessionId, run_id: RunId, command: str, now_s: int) -> Message:
    """A command that has no output and no end yet: a user's message without a finish part."""
    return Message(
        id=MessageId(new_id()),
        role="user",
        session_id=session_id,
        parts=(ShellCommandPart(command, "", KILLED),),
        created_at=now_s,
        updated_at=now_s,
        run_id=run_id,
    )


def with_output(message: Message, output: str, now_s: int) -> Message:
    """The same with what it has written so far."""
    part = attrs.evolve(part_of(message), output=output)
    return attrs.evolve(message, parts=(part,), updated_at=now_s)


def closed(message: Message, exit_code: int, now_s: int) -> Message:
    """The same at its end (R10)."""
    part = attrs.evolve(part_of(message), exit_code=exit_code)
    return attrs.evolve(message, parts=(part, FinishPart("stop", 0)), updated_at=now_s)


def part_of(message: Message) -> ShellCommandPart:
    """The command in a message that `opened` made.

    Raises:
        ValueError: It is another message.
    """
    for part in message.parts:
        if isinstance(part, ShellCommandPart):
            return part
    raise ValueError(f"message {message.id} holds no command")


def holds_command(message: Message) -> bool:
    """Whether a message is a command that a person ran."""
    return any(isinstance(part, ShellCommandPart) for part in message.parts)


def head_and_tail(pieces: Iterable[str], chars: int) -> str:
    """The text, or its first and its last half if it is longer than ``chars``."""
    text = "".join(pieces)
    if len(text) <= chars:
        return text
    half = chars // 2
    return f"{text[:half]}\n... [{len(text) - 2 * half} characters left out] ...\n{text[-half:]}"


def for_model(part: ShellCommandPart) -> str:
    """What a model reads of a command: without the escape sequences that are for a terminal."""
    output = _CONTROLS.sub("", _ESCAPES.sub("", part.output)).strip("\n")
    said = f"Its output:\n\n```\n{output}\n```" if output else "It printed nothing."
    return (
        f"I ran this command in the workspace:\n\n```\n{part.command}\n```\n\n"
        f"It ended with exit code {part.exit_code}. {said}"
    )
