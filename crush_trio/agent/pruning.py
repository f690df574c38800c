"""What is left out of a long conversation before it has to be summarised: old tool output. Pure.

Nothing is deleted: it is left out of what is sent. What is left out depends on the messages before
it alone, so each later request, also of a later run or server, begins as the last one did, and what
a provider keeps in its cache stays of use. It goes in large blocks, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from crush_trio import limits
from crush_trio.agent import sizes
from crush_trio.protocol.messages import Message, Part, ToolResultPart


@attrs.frozen
class Pruned:
    """Messages as they are to be sent, their size in tokens with the frame (see `sizes`), and how
    many outputs are left out of them."""

    messages: tuple[Message, ...]
    tokens: int
    left_out: int = 0


def pruned(messages: Sequence[Message], frame: int, window: int) -> Pruned:
    """The conversation without old tool output, if it is long for a ``window`` of so many tokens.

    Before each step that was asked, and now, it is looked how large the request is. Once it fills
    `limits.PRUNE_SHARE` of the window, the outputs of all but the last `limits.PRUNE_KEPT_STEPS`
    steps go in one block, unless that would free less than `limits.PRUNE_LEAST_SHARE` of the
    window: then it waits until it does. A window of 0 is unknown: nothing goes.
    """
    shown = list(messages)
    shorter = [_without_output(message) for message in shown] if window > 0 else shown
    saved = [
        sizes.of_message(a) - sizes.of_message(b) if a is not b else 0
        for a, b in zip(shown, shorter, strict=True)
    ]
    size, done, left_out = frame, 0, 0
    steps: list[int] = []
    for at in range(len(messages) + 1):
        is_step = at == len(messages) or messages[at].role == "assistant"
        if is_step and 0 < window * limits.PRUNE_SHARE <= size:
            upto = _place_of_last(steps)
            block = sum(saved[done:upto])
            if block >= window * limits.PRUNE_LEAST_SHARE:
                left_out += sum(1 for tokens in saved[done:upto] if tokens)
                shown[done:upto] = shorter[done:upto]
                size -= block
                done = upto
        if at < len(messages):
            size += sizes.of_message(messages[at])
            if is_step:
                steps.append(at)
    return Pruned(tuple(shown), size, left_out)


def _place_of_last(steps: Sequence[int]) -> int:
    """Where the steps begin whose output is kept."""
    return steps[-limits.PRUNE_KEPT_STEPS] if len(steps) >= limits.PRUNE_KEPT_STEPS else 0


def _without_output(message: Message) -> Message:
    """A message of a tool without its output, if that is long; any other message as it is."""
    parts: list[Part] = []
    changed = False
    for part in message.parts:
        if isinstance(part, ToolResultPart) and _is_long(part):
            parts.append(attrs.evolve(part, content=_note(part), data="", mime_type=""))
            changed = True
        else:
            parts.append(part)
    return attrs.evolve(message, parts=tuple(parts)) if changed else message


def _is_long(part: ToolResultPart) -> bool:
    return len(part.content) > limits.PRUNE_OUTPUT_CHARS or bool(part.data)


def _note(part: ToolResultPart) -> str:
    image = " and an image" if part.data else ""
    return (
        f"[{len(part.content)} characters{image} of output are left out here, because the "
        "conversation got long. If you need them, read the file again or repeat the call.]"
    )
