"""Reads the Messages API's answer: a stream of content blocks, or a whole message."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.models.call_ids import call_id
from crush_trio.models.dialects.anthropic import errors as anthropic_errors
from crush_trio.models.dialects.anthropic.messages import REDACTED
from crush_trio.models.dialects.anthropic.usage import counted
from crush_trio.models.dialects.halves import WholeCharacters, loaded
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Target
from crush_trio.protocol.runs import Usage

_REASONS = {
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "refusal": "content_filter",
}
_CUT = frozenset(("max_tokens", "model_context_window_exceeded", "refusal"))


@attrs.define(eq=False)
class _Block:
    """A content block in the making. ``kind`` is "" for one that is not ours to show."""

    kind: str
    id: str = ""
    signature: str = ""
    given: str = ""
    """A call's input that came with its beginning; pieces that follow are the whole of it."""
    pieces: list[str] = attrs.field(factory=list)
    is_open: bool = True

    def input(self) -> str:
        """A call's arguments so far."""
        return "".join(self.pieces) or self.given


@attrs.define(eq=False)
class Reader:
    """See `AnswerReader`. Tolerates what compatible servers leave out: indexes, ends, ids."""

    request: ModelRequest
    target: Target
    emit: Emit = attrs.field(converter=WholeCharacters)
    _blocks: dict[int, _Block] = attrs.field(factory=dict, init=False)
    _last: int = attrs.field(default=-1, init=False)
    _ids: set[str] = attrs.field(factory=set, init=False)
    _says: bool = attrs.field(default=False, init=False)
    _calls: int = attrs.field(default=0, init=False)
    _usage: Usage = attrs.field(default=Usage(), init=False)
    _reason: str = attrs.field(default="", init=False)
    _details: Any = attrs.field(default=None, init=False)
    _done: bool = attrs.field(default=False, init=False)

    @property
    def is_done(self) -> bool:
        """See `AnswerReader.is_done`."""
        return self._done

    def feed(self, event: str, data: str) -> None:
        """See `AnswerReader.feed`."""
        if self._done or not data.strip():
            return
        if data.strip() == "[DONE]":
            self._done = True
            return
        try:
            value = loaded(data)
        except ValueError:
            value = None
            if event == "error":
                raise anthropic_errors.failure_in(data, self.target) from None
        if not isinstance(value, dict):
            raise self._broken("sent an event that is not a JSON object")
        kind = value.get("type")
        if kind == "error" or event == "error" or (kind is None and value.get("error")):
            raise anthropic_errors.failure_in(value, self.target)
        self._take(kind if isinstance(kind, str) else event, value)

    def _take(self, kind: str, value: dict[str, Any]) -> None:
        match kind:
            case "content_block_start":
                self._start(value.get("index"), value.get("content_block"))
            case "content_block_delta":
                self._delta(value.get("index"), value.get("delta"))
            case "content_block_stop":
                self._stop(self._blocks.get(self._index(value.get("index"))))
            case "message_start":
                message = value.get("message")
                if isinstance(message, dict):
                    self._count(message.get("usage"))
            case "message_delta":
                self._stopped(value.get("delta"))
                self._count(value.get("usage"))
            case "message_stop":
                self._done = True
            case "message" if "content" in value:
                self._whole(value)

    def end(self) -> StepEnd:
        """See `AnswerReader.end`."""
        if not self._done and not self._reason:
            raise Failure(
                Kind.TRUNCATED,
                f"The answer of {self._name()} broke off before its end; try again.",
            )
        for number, block in self._blocks.items():
            # A call that was cut before its first argument is not complete.
            self._stop(block, last=number != self._last or self._reason not in _CUT)
        if not self._says and not self._calls:
            self._check_empty()
        return StepEnd(self._end_reason(), self._usage if self._usage != Usage() else None)

    # --- blocks ---------------------------------------------------------------------------

    def _index(self, index: Any) -> int:
        return index if type(index) is int else self._last

    def _start(self, index: Any, content: Any) -> None:
        if not isinstance(content, dict):
            content = {}
        number = index if type(index) is int else max(self._blocks, default=-1) + 1
        for earlier, block in self._blocks.items():  # its end was not said
            if block.kind != "tool" or earlier == number:  # but calls may go side by side
                self._stop(block, last=earlier == number)
        self._last = number
        kind = content.get("type")
        match kind:
            case "text":
                self._blocks[number] = _Block("text")
                self._text(content.get("text"))
            case "thinking":
                self._blocks[number] = block = _Block("thinking")
                self._think(content.get("thinking"))
                block.signature = _string(content.get("signature"))
            case "redacted_thinking":
                self._blocks[number] = _Block("")
                data = _string(content.get("data"))
                if data:
                    self.emit(ReasoningEnd(REDACTED + data))
            case "tool_use":
                self._call(number, content)
            case _:  # what the provider's own tools do
                self._blocks[number] = _Block("")

    def _call(self, number: int, content: dict[str, Any]) -> None:
        name = _string(content.get("id"))
        if not name or name in self._ids:
            name = call_id(self.request, len(self._ids))
        self._ids.add(name)
        given = content.get("input")
        block = _Block("tool", name)
        if isinstance(given, dict) and given:
            try:
                block.given = orjson.dumps(given).decode()
            except orjson.JSONEncodeError:  # nested too deeply
                raise self._broken("sent arguments that cannot be read") from None
        elif isinstance(given, str):
            block.given = given
        self._blocks[number] = block
        self._calls += 1
        self.emit(ToolCallStart(name, _string(content.get("name"))))

    def _delta(self, index: Any, delta: Any) -> None:
        if not isinstance(delta, dict):
            return
        number = self._index(index)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = _Block("text")  # its beginning was not said
        if not block.kind or not (block.is_open or block.kind == "text"):
            return
        match delta.get("type"):
            case "text_delta":
                self._text(delta.get("text"))
            case "thinking_delta":
                block.kind = "thinking" if block.kind == "text" else block.kind
                self._think(delta.get("thinking"))
            case "signature_delta":
                block.signature += _string(delta.get("signature"))
            case "input_json_delta" if block.kind == "tool":
                text = _string(delta.get("partial_json"))
                if text:
                    block.pieces.append(text)
                    self.emit(ToolInputDelta(block.id, text))

    def _text(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._says = self._says or not text.isspace()
            self.emit(TextDelta(text))

    def _think(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self.emit(ReasoningDelta(text))

    def _stop(self, block: _Block | None, *, last: bool = False) -> None:
        """End a block. A call without arguments may be one that was cut: it waits for the end."""
        if block is None or not block.is_open:
            return
        if block.kind == "tool":
            if block.input() or last:
                block.is_open = False
                self.emit(ToolCallEnd(block.id, block.input() or "{}"))
            return
        block.is_open = False
        if block.kind == "thinking":
            self.emit(ReasoningEnd(block.signature))

    # --- the message ----------------------------------------------------------------------

    def _whole(self, message: dict[str, Any]) -> None:
        """An answer that was not streamed."""
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for number, block in enumerate(content if isinstance(content, list) else ()):
            self._start(number, block)
            self._stop(self._blocks[number])
        self._stopped(message)
        self._count(message.get("usage"))
        self._done = True

    def _stopped(self, delta: Any) -> None:
        if isinstance(delta, dict):
            self._reason = _string(delta.get("stop_reason")) or self._reason
            self._details = delta.get("stop_details") or self._details

    def _count(self, usage: Any) -> None:
        before = self._usage
        self._usage = counted(before, usage)
        if self._usage != before:
            self.emit(UsageSoFar(self._usage))

    def _end_reason(self) -> str:
        if self._calls and self._reason in ("", "end_turn", "stop_sequence"):
            return "tool_use"
        return _REASONS.get(self._reason, "unknown") if self._reason else "end_turn"

    def _check_empty(self) -> None:
        """Raise for an answer that says nothing, by what the provider gives as the reason."""
        match self._reason:
            case "refusal":
                raise anthropic_errors.refusal(self._details, self.target)
            case "model_context_window_exceeded":
                # Nothing could be said: as if the request had been refused for its length.
                raise anthropic_errors.too_long(self.target)
            case "max_tokens":
                return  # its thoughts were as long as the answer may be
        raise Failure(Kind.EMPTY, f"{self._name()} gave an empty answer; try again.")

    def _broken(self, what: str) -> Failure:
        return Failure(Kind.MALFORMED, f"{self._name()} {what}; try again.")

    def _name(self) -> str:
        provider = self.target.provider
        return f"{self.target.info.model} of {provider.name or provider.id}"


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
