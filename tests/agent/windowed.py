"""A model with a small window that really counts, and refuses what is too long for it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import orjson
import trio

from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelInfo,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
)
from crush_trio.agent.transcript import is_valid
from crush_trio.protocol.messages import (
    BinaryPart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from crush_trio.protocol.runs import Usage

IMAGE = 1_000  # tokens of an image, as this model counts


@attrs.define(eq=False)
class Windowed:
    """Asks for a tool in each of ``steps`` steps, and then answers.

    ``window`` is what it really takes, ``told`` what it says, ``chars`` how many characters are a
    token for it. With ``counts`` it reports usage. A summary is ``words`` characters long.
    ``usual`` is the limit of its answers.
    """

    window: int = 4_096
    told: int = 4_096
    chars: float = 4.0
    steps: int = 3
    counts: bool = True
    words: int = 200
    usual: int = 0
    requests: list[ModelRequest] = attrs.field(factory=list)
    refused: list[tuple[int, int]] = attrs.field(factory=list)
    """Place among ``requests`` and size of each one that was too long."""

    @property
    def info(self) -> ModelInfo:
        """What it says of itself."""
        return ModelInfo("fake", "small", context_window=self.told, max_output_tokens=self.usual)

    def size(self, request: ModelRequest) -> int:
        """What it counts."""
        tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in request.tools]
        length = len(request.system) + len(orjson.dumps(tools)) + chars_of(request.messages)
        images = sum(_images(message) for message in request.messages)
        return int(length / self.chars) + IMAGE * images

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Refuse, or answer."""
        await trio.lowlevel.checkpoint()
        assert is_valid(request.messages)
        self.requests.append(request)
        size = self.size(request)
        if size >= self.window:
            self.refused.append((len(self.requests) - 1, size))
            emit(TextDelta("half"))  # a provider that finds out while it streams
            emit(ToolCallStart("half", "look"))
            raise ModelError("context_too_long", f"{size} tokens are too many.", title="Too long")
        if request.summary:
            emit(TextDelta("s" * self.words))
            return self._end("end_turn", size, self.words)
        if request.step <= self.steps:
            emit(TextDelta("I look."))
            emit(ToolCallStart(f"c{request.step}", "look"))
            emit(ToolCallEnd(f"c{request.step}", f'{{"n": {request.step}}}'))
            return self._end("tool_use", size, 12)
        emit(TextDelta("done"))
        return self._end("end_turn", size, 4)

    def _end(self, reason: str, size: int, length: int) -> StepEnd:
        used = Usage(size, int(length / self.chars) + 1)
        return StepEnd(reason, used if self.counts else None)


def chars_of(messages: Sequence[Message]) -> int:
    """The characters of messages, each a little longer than its text."""
    return sum(10 + sum(map(_chars, message.parts)) for message in messages)


def _chars(part: object) -> int:
    match part:
        case TextPart(text):
            return len(text)
        case ToolCallPart(_, name, text):
            return len(name) + len(text)
        case ToolResultPart():
            return len(part.content)
    return 0


def _images(message: Message) -> int:
    return sum(
        isinstance(part, BinaryPart) or (isinstance(part, ToolResultPart) and bool(part.data))
        for part in message.parts
    )
