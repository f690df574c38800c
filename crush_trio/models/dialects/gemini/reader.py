"""Reads Gemini's answer: a stream of pieces of one candidate, each with the usage so far."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from crush_trio import limits
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
from crush_trio.http.quoting import quotable
from crush_trio.models.call_ids import call_id
from crush_trio.models.dialects.gemini.errors import failure_in, sentence
from crush_trio.models.dialects.halves import WholeCharacters, loaded
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Target
from crush_trio.protocol.runs import Usage

_FILTERED = frozenset(
    [
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "ESCALATION",
    ]
)
_BROKEN = frozenset(
    ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"]
)
_COUNTS = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)
_Json = dict[str, Any]


@attrs.define(eq=False)
class GeminiReader:
    """See `AnswerReader`. Calls come whole; a call without an id gets one of ours."""

    request: ModelRequest
    target: Target
    emit: Emit = attrs.field(converter=WholeCharacters)
    is_done: bool = attrs.field(default=False, init=False)
    _thinks: bool = attrs.field(default=False, init=False)
    _has_text: bool = attrs.field(default=False, init=False)
    _calls: list[str] = attrs.field(factory=list, init=False)
    _finish: str = attrs.field(default="", init=False)
    _remark: str = attrs.field(default="", init=False)
    _counts: dict[str, int] = attrs.field(factory=dict, init=False)

    def feed(self, event: str, data: str) -> None:
        """See `AnswerReader.feed`; also takes a whole answer that is not streamed."""
        if not data.strip():
            return
        if data.strip() == "[DONE]":  # of gateways; Google ends the stream
            self.is_done = True
            return
        try:
            value = loaded(data)
        except ValueError:
            raise self._failure(Kind.MALFORMED, "a piece of the answer is no JSON") from None
        for piece in value if type(value) is list else [value]:
            if type(piece) is not dict:
                raise self._failure(Kind.MALFORMED, "a piece of the answer is no object")
            self._take(piece)

    def end(self) -> StepEnd:
        """See `AnswerReader.end`."""
        self._end_thought("")
        has_content = self._has_text or bool(self._calls)
        finish = self._finish
        if not finish:
            raise self._failure(Kind.TRUNCATED, "the stream ended in the middle of the answer")
        if finish in _BROKEN:
            raise self._failure(Kind.MALFORMED, finish)
        if finish == "MISSING_THOUGHT_SIGNATURE":
            raise self._failure(Kind.REFUSED, finish)
        if finish in _FILTERED and not has_content:
            raise self._failure(Kind.FILTERED, finish)
        if finish == "MAX_TOKENS":
            return StepEnd("max_tokens", self._usage())
        if not has_content:
            raise self._failure(Kind.EMPTY, "" if finish == "STOP" else finish)
        if finish in _FILTERED:
            return StepEnd("content_filter", self._usage())
        if self._calls:  # whole ones, whatever a gateway calls this end
            return StepEnd("tool_use", self._usage())
        return StepEnd("end_turn" if finish == "STOP" else "unknown", self._usage())

    def _take(self, piece: _Json) -> None:
        if piece.get("error"):
            raise failure_in(piece, self.target)
        self._count(piece.get("usageMetadata"))
        feedback = piece.get("promptFeedback")
        if type(feedback) is dict and type(feedback.get("blockReason")) is str:
            self._remark = _text(feedback.get("blockReasonMessage"))
            raise self._failure(Kind.FILTERED, f"the prompt, {feedback['blockReason']}")
        candidates = piece.get("candidates")
        for candidate in candidates if type(candidates) is list else ():
            if type(candidate) is dict and candidate.get("index", 0) in (0, None):
                self._take_candidate(candidate)

    def _take_candidate(self, candidate: _Json) -> None:
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else None
        for part in parts if type(parts) is list else ():
            if type(part) is dict:
                self._take_part(part)
        finish = _text(candidate.get("finishReason"))
        if finish and finish != "FINISH_REASON_UNSPECIFIED":
            self._finish = finish
            self._remark = _text(candidate.get("finishMessage"))

    def _take_part(self, part: _Json) -> None:
        signature = _text(part.get("thoughtSignature"))
        call = part.get("functionCall")
        text = _text(part.get("text"))
        if type(call) is dict:
            self._end_thought("")
            self._take_call(call, signature)
        elif part.get("thought") is True:
            if text:
                self._thinks = True
                self.emit(ReasoningDelta(text))
            if signature:
                self._end_thought(signature)
        else:
            if text:
                self._end_thought("")
                self._has_text = self._has_text or not text.isspace()
                self.emit(TextDelta(text))
            if signature:  # it signs the text before it
                self._end_thought("")
                self.emit(ReasoningEnd(signature))

    def _take_call(self, call: _Json, signature: str) -> None:
        name = _text(call.get("name"))
        if not name:
            raise self._failure(Kind.MALFORMED, "a tool call without a name")
        given = _text(call.get("id"))
        position = len(self._calls)
        name_of_call = given if given and given not in self._calls else ""
        if not name_of_call:
            name_of_call = call_id(self.request, position)
        self._calls.append(name_of_call)
        arguments = call.get("args")
        try:
            text = "{}" if arguments is None else orjson.dumps(arguments).decode()
        except orjson.JSONEncodeError:
            raise self._failure(Kind.MALFORMED, "arguments nested too deeply") from None
        self.emit(ToolCallStart(name_of_call, name))
        self.emit(ToolInputDelta(name_of_call, text))
        self.emit(ToolCallEnd(name_of_call, text, signature))

    def _end_thought(self, signature: str) -> None:
        if self._thinks:
            self._thinks = False
            self.emit(ReasoningEnd(signature))

    def _count(self, counted: Any) -> None:
        if type(counted) is not dict:
            return
        for name in _COUNTS:
            number = counted.get(name)
            if type(number) is int and 0 <= number <= limits.INT_MAX:
                self._counts[name] = number
        usage = self._usage()
        if usage is not None:
            self.emit(UsageSoFar(usage))

    def _usage(self) -> Usage | None:
        """What was counted until now; the prompt's count includes what came from the cache.

        Zero everywhere means that nobody has counted (CW 5.11).
        """
        if not any(self._counts.values()):
            return None
        prompt, tools, cached, said, thought = (self._counts.get(name, 0) for name in _COUNTS)
        return Usage(max(0, prompt + tools - cached), said + thought, cached)

    def _failure(self, kind: Kind, what: str) -> Failure:
        quoted = quotable(": ".join(filter(None, (what, self._remark))))
        return Failure(kind, sentence(kind, quoted, self.target))


def _text(value: Any) -> str:
    return value if type(value) is str else ""
