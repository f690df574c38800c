"""Reads a Chat Completions stream, of whichever server, into the events of one step.

Beyond the specification it takes: content that is null or a list of parts, empty deltas and
choices, usage in a last chunk or (cumulative) in each, thoughts by four names or in tags, tool
calls in every shape of `call_pieces` and as text (`tool_text`), several objects in an event, a
whole answer instead of a stream, errors as an object, an event or a choice, a missing ``[DONE]``
and a missing finish reason. Without both of the latter the answer broke off, unless it is calls
that are complete.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    TextDelta,
    UsageSoFar,
)
from crush_trio.models.dialects.chat import chunks
from crush_trio.models.dialects.chat.call_pieces import Broken, CallPieces
from crush_trio.models.dialects.chat.reasoning_details import merged
from crush_trio.models.dialects.chat.think_tags import ThinkTags
from crush_trio.models.dialects.chat.tool_text import Found, ToolText
from crush_trio.models.dialects.halves import Halves
from crush_trio.models.dialects.openai_errors import stream_failure
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Target
from crush_trio.protocol.runs import Usage


@attrs.define(eq=False)
class ChatReader:
    """An `AnswerReader`."""

    request: ModelRequest
    target: Target
    emit: Emit
    is_done: bool = attrs.field(default=False, init=False)
    _calls: CallPieces = attrs.field(init=False)
    _markup: ToolText = attrs.field(init=False)
    _tags: ThinkTags = attrs.field(factory=ThinkTags, init=False)
    _text: Halves = attrs.field(factory=Halves, init=False)
    _thought: Halves = attrs.field(factory=Halves, init=False)
    _thinking: bool = attrs.field(default=False, init=False)
    _thought_any: bool = attrs.field(default=False, init=False)
    _said_any: bool = attrs.field(default=False, init=False)
    _finish: str = attrs.field(default="", init=False)
    _details: list[Any] = attrs.field(factory=list, init=False)
    _usage: Usage | None = attrs.field(default=None, init=False)
    _cost: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._calls = CallPieces(self.request, self.emit)
        self._markup = ToolText(self.request.tools)

    def feed(self, event: str, data: str) -> None:
        """Take the next event; see `AnswerReader.feed`."""
        text = data.strip()
        if self.is_done or not text:
            return
        if text == "[DONE]":
            self.is_done = True
            return
        try:
            for value in chunks.objects(text):
                if event == "error":
                    raise stream_failure(value, self.target)
                self._chunk(value)
        except Broken as exc:
            if event == "error":
                raise stream_failure(text, self.target) from None
            raise self._malformed(f"it sent {exc}") from exc
        except RecursionError:
            raise self._malformed("it sent data that is nested too deeply") from None
        if text.endswith("[DONE]"):
            self.is_done = True

    def end(self) -> StepEnd:
        """How the answer ended; see `AnswerReader.end`."""
        try:
            return self._ended()
        except Broken as exc:
            raise self._malformed(f"it sent {exc}") from exc
        except RecursionError:
            raise self._malformed("it sent data that is nested too deeply") from None

    def _ended(self) -> StepEnd:
        for is_thought, text in self._tags.end():
            self._put(is_thought, text)
        self._say(self._text.end())
        found = self._markup.end()
        broke_off = not self._finish and not self.is_done
        if broke_off and not (self._calls.any and self._calls.are_whole):
            raise self._truncated()
        if self._calls.any:
            self._show(self._markup.held())
        elif found.calls:
            self._take(found)
        elif found.broken and chunks.REASONS.get(self._finish) != "max_tokens":
            raise self._unread()
        else:
            self._show(found.text)
        reason = self._reason()
        self._end_thought(final=True)
        self._calls.end()
        return StepEnd(reason, self._usage, self._cost)

    # --- one chunk ------------------------------------------------------------------------

    def _chunk(self, value: dict[str, Any]) -> None:
        error = chunks.error_in(value)
        if error is not None:
            raise stream_failure(error, self.target)
        choice = chunks.first_choice(value)
        if choice is not None:
            self._choice(choice)
        usage = chunks.usage_of(value)
        if usage is not None and usage != self._usage:
            self._usage = usage
            self.emit(UsageSoFar(usage))
        if "openrouter" in self.target.provider.quirks:
            cost = chunks.cost_of(value)
            self._cost = self._cost if cost is None else cost
        if value.get("object") == "chat.completion":
            self.is_done = True  # not a stream, but the whole answer

    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("error"):
            raise stream_failure(choice["error"], self.target)
        delta = chunks.delta_of(choice)
        details = delta.get("reasoning_details")
        if type(details) is list:
            self._details += details
        self._think(chunks.reasoning_of(delta))
        for is_thought, text in chunks.content_of(delta.get("content")):
            if is_thought:
                self._think(text)
            else:
                for tagged, piece in self._tags.feed(text):
                    self._put(tagged, piece)
        refusal = delta.get("refusal")
        if type(refusal) is str:
            self._say(refusal)
        self._call(delta)
        finish = choice.get("finish_reason")
        if type(finish) is str and finish not in ("", "null"):
            if finish in chunks.FAILED:
                raise stream_failure({"message": chunks.FAILED[finish]}, self.target)
            self._finish = finish

    def _call(self, delta: dict[str, Any]) -> None:
        calls, function = delta.get("tool_calls"), delta.get("function_call")
        if calls and type(calls) not in (list, dict):
            raise Broken("tool calls that are no list")
        if calls or function:
            self._end_thought()
        for item in [calls] if type(calls) is dict else calls or ():
            self._calls.add(item)
        if function:
            self._calls.add(function, number="function_call")

    # --- what it emits --------------------------------------------------------------------

    def _put(self, is_thought: bool, text: str) -> None:
        if is_thought:
            self._think(text)
        else:
            self._say(text)

    def _think(self, text: str) -> None:
        whole = self._thought.whole(text)
        if whole and (self._thinking or not whole.isspace()):
            self._thinking = self._thought_any = True
            self.emit(ReasoningDelta(whole))

    def _say(self, text: str) -> None:
        self._show(self._markup.feed(self._text.whole(text)))
        if self._markup.too_long:
            raise self._unread()

    def _show(self, text: str) -> None:
        if not text:
            return
        if not text.isspace():
            self._end_thought()
            self._said_any = True
        self.emit(TextDelta(text))

    def _end_thought(self, *, final: bool = False) -> None:
        """Close the thought; what the provider wants back is complete at the end only."""
        wanted = final and "openrouter" in self.target.provider.quirks
        details = merged(self._details) if wanted else []
        signature = json.dumps(details, separators=(",", ":")) if details else ""
        if self._thinking or signature:
            self._thinking = False
            self.emit(ReasoningEnd(signature))

    def _take(self, found: Found) -> None:
        provider = self.target.provider
        if not (provider.is_local or "text_tools" in provider.quirks):
            raise self._unread()
        self._show(found.text)
        self._end_thought()
        for call in found.calls:
            self._calls.add_whole(call.name, call.input)

    # --- how it ended ---------------------------------------------------------------------

    def _reason(self) -> str:
        reason = chunks.REASONS.get(self._finish, "unknown")
        if self._calls.any:
            return reason if reason in ("max_tokens", "content_filter") else "tool_use"
        if reason == "content_filter" and not self._said_any:
            raise stream_failure({"code": "content_filter"}, self.target)
        if reason == "tool_use":
            raise self._malformed("it said that it calls a tool, but sent no call")
        if not self._said_any and reason not in ("max_tokens", "content_filter"):
            raise Failure(Kind.EMPTY, self._empty())
        return reason if self._finish else "end_turn"

    def _empty(self) -> str:
        if self._thought_any:
            return (
                f"{self._name()} only thought, and gave no answer: ask again, or check how its "
                "server tells thoughts from answers (its reasoning parser)."
            )
        return f"{self._name()} gave an empty answer: ask again, or take another model."

    def _truncated(self) -> Failure:
        return Failure(
            Kind.TRUNCATED, f"The answer of {self._name()} broke off before it was complete."
        )

    def _malformed(self, what: str) -> Failure:
        return Failure(Kind.MALFORMED, f"{self._name()} did not keep to its protocol: {what}.")

    def _unread(self) -> Failure:
        return Failure(
            Kind.MALFORMED,
            f"{self._name()} wrote a tool call as text, so its server does not recognise its tool "
            "calls: set the parser or template for this model there (vLLM: --tool-call-parser; "
            "llama.cpp: --jinja; Ollama: a model with tools), or take another model.",
        )

    def _name(self) -> str:
        return f"{self.target.provider.id}/{self.target.info.model}"
