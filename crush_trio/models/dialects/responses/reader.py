"""Reads an answer of the Responses API: items that grow, each event names the item it is about."""

from __future__ import annotations

from typing import Any, Final

import attrs

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
from crush_trio.models.call_ids import call_id
from crush_trio.models.dialects.halves import WholeCharacters, loaded
from crush_trio.models.dialects.openai_errors import stream_failure
from crush_trio.models.dialects.responses.input_items import phase_signature, signature
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Target
from crush_trio.protocol.runs import Usage

_Json = dict[str, Any]
_TEXTS: Final = ("response.output_text", "response.refusal")
_THOUGHTS: Final = ("response.reasoning_summary_text", "response.reasoning_text")
_ENDS: Final = ("completed", "incomplete", "failed", "cancelled")
"""What a response may have become when it has ended."""
_SENTENCES: Final = {
    Kind.TRUNCATED: "The answer of {model} broke off before {name} had completed it: try again.",
    Kind.MALFORMED: "{name} sent an answer of {model} that cannot be read: try again.",
    Kind.EMPTY: "{name} sent an empty answer of {model}: ask again, in other words.",
    Kind.FILTERED: "The content filter of {name} held back the answer of {model}: "
    "word it otherwise.",
}


@attrs.define(eq=False)
class _Item:
    """One item of the answer, as far as it is known."""

    type: str
    name: str = ""
    call_id: str = ""
    pieces: list[str] = attrs.field(factory=list)
    sections: dict[tuple[str, Any], int] = attrs.field(factory=dict)
    started: bool = False
    ended: bool = False


@attrs.define(eq=False)
class ResponsesReader:
    """See `AnswerReader`. Takes a whole ``response`` object, too, of a server that cannot stream.

    What an event repeats of what came before is compared, so that text is complete whether a
    server sends it in pieces, at the end of an item, at the end of the answer, or all of it.
    """

    request: ModelRequest
    target: Target
    emit: Emit = attrs.field(converter=WholeCharacters)
    is_done: bool = attrs.field(default=False, init=False)
    _items: dict[str, _Item] = attrs.field(factory=dict, init=False)
    _calls: dict[str, _Item] = attrs.field(factory=dict, init=False)
    _thinks: bool = attrs.field(default=False, init=False)
    _has_text: bool = attrs.field(default=False, init=False)
    _refused: bool = attrs.field(default=False, init=False)
    _status: str = attrs.field(default="", init=False)
    _cause: str = attrs.field(default="", init=False)
    _usage: Usage | None = attrs.field(default=None, init=False)

    def feed(self, event: str, data: str) -> None:
        """See `AnswerReader.feed`."""
        if not data.strip():
            return
        if data.strip() == "[DONE]":
            self.is_done = True
            return
        try:
            value = loaded(data)
        except ValueError:
            raise self._failure(Kind.MALFORMED) from None
        if type(value) is not dict:
            raise self._failure(Kind.MALFORMED)
        kind = _text(value.get("type")) or (event if event != "message" else "")
        if "error" in (kind, event) or (value.get("error") and not kind and "output" not in value):
            raise stream_failure(value.get("error") or value, self.target)
        if not kind and type(value.get("output")) is list:
            self._take_response(value)
        else:
            self._take(kind, value)

    def end(self) -> StepEnd:
        """See `AnswerReader.end`."""
        self._end_thought("")
        if not self._status:
            raise self._failure(Kind.TRUNCATED)
        for item in self._calls.values():
            if not item.ended and self._status == "completed":
                self._end_call(item, "")
        has_content = self._has_text or bool(self._calls)
        if self._status == "incomplete":
            if self._cause == "max_output_tokens":
                return StepEnd("max_tokens", self._usage)
            if self._cause == "content_filter":
                if not has_content:
                    raise self._failure(Kind.FILTERED)
                return StepEnd("content_filter", self._usage)
        if self._status == "cancelled":
            raise self._failure(Kind.TRUNCATED)
        if not has_content:
            raise self._failure(Kind.EMPTY)
        if self._status == "incomplete":
            return StepEnd("unknown", self._usage)
        if self._refused and not self._calls:
            return StepEnd("content_filter", self._usage)
        return StepEnd("tool_use" if self._calls else "end_turn", self._usage)

    # --- events ---------------------------------------------------------------------------

    def _take(self, kind: str, value: _Json) -> None:
        stem, _, verb = kind.rpartition(".")
        if stem in _TEXTS or stem in _THOUGHTS:
            item = self._item(value, "message" if stem in _TEXTS else "reasoning")
            field = "refusal" if stem == "response.refusal" else "text"
            text = _text(value.get("delta" if verb == "delta" else field))
            self._grow(item, stem, _section(value), text, whole=verb == "done")
        elif kind == "response.function_call_arguments.delta":
            self._grow_call(self._item(value, "function_call"), _text(value.get("delta")))
        elif stem == "response.output_item" and type(value.get("item")) is dict:
            item = self._item(value, _text(value["item"].get("type")), new=verb == "added")
            self._take_item(item, value["item"], ended=verb == "done")
        elif stem == "response" and verb in _ENDS:
            response = value.get("response")
            self._take_response(response if type(response) is dict else value, verb)

    def _item(self, value: _Json, kind: str, *, new: bool = False) -> _Item:
        """The item an event is about: by its place in the answer, else by its id."""
        place, given = value.get("output_index"), value.get("item")
        named = _text(value.get("item_id")) or _text(given.get("id") if given else "")
        keys = [f"{kind} {place}"] if type(place) is int else []
        keys += [f"{kind} {named}"] if named else []
        keys = keys or [kind]
        found = self._items.get(keys[0])
        if found is None or new:
            found = _Item(kind)
        for key in keys:
            self._items[key] = found
        return found

    def _take_item(self, item: _Item, given: _Json, *, ended: bool) -> None:
        if item.ended:
            return
        item.ended = ended
        if item.type == "function_call":
            item.name = item.name or _text(given.get("name"))
            item.call_id = item.call_id or _text(given.get("call_id"))
            if item.name and (item.call_id or ended):
                self._start_call(item, _text(given.get("id")))
            if ended:
                self._end_call(item, _text(given.get("arguments")))
        elif item.type == "message":
            phase = _text(given.get("phase"))
            if phase and not item.sections:
                self._end_thought("")
                self.emit(ReasoningEnd(phase_signature(phase)))
                item.sections[("phase", 0)] = 0
            for place, part in enumerate(_objects(given.get("content")) if ended else ()):
                refusal = part.get("type") == "refusal"
                text = _text(part.get("refusal" if refusal else "text"))
                self._grow(item, _TEXTS[refusal], place, text, whole=True)
        elif item.type == "reasoning" and ended:
            for field, stem in zip(("summary", "content"), _THOUGHTS, strict=True):
                for place, part in enumerate(_objects(given.get(field))):
                    self._grow(item, stem, place, _text(part.get("text")), whole=True)
            self._end_thought(signature(given))

    def _take_response(self, response: _Json, verb: str = "") -> None:
        """The answer has ended, or came whole."""
        self._count(response.get("usage"))
        status = _text(response.get("status")) or verb or "completed"
        if status not in _ENDS:
            return
        if status == "failed":
            raise stream_failure(response.get("error") or {}, self.target)
        said = self._has_text or bool(self._calls)
        for place, given in enumerate(_objects(response.get("output"))):
            item = self._item({"output_index": place, "item": given}, _text(given.get("type")))
            if item.type == "function_call":
                repeated = _text(given.get("call_id")) in self._calls and not item.started
            else:  # said in pieces that did not name their item
                repeated = said and not item.sections
            if not repeated:
                self._take_item(item, given, ended=status == "completed" or _is_whole(given))
        details = response.get("incomplete_details")
        self._cause = _text(details.get("reason")) if type(details) is dict else ""
        self._status = status
        self.is_done = True

    # --- content --------------------------------------------------------------------------

    def _grow(self, item: _Item, stem: str, place: Any, text: str, *, whole: bool) -> None:
        """More text of one section of an item, or all of it; a thought has one kind of text."""
        thinks = stem in _THOUGHTS
        if thinks and any(other != stem for other, _ in item.sections):
            return
        done = item.sections.get((stem, place), 0)
        more = text[done:] if whole else text
        if not more:
            return
        if thinks:
            if not done and item.sections:
                more = "\n\n" + more
                done = -2
            self._thinks = True
            self.emit(ReasoningDelta(more))
        else:
            self._end_thought("")
            self._has_text = self._has_text or not more.isspace()
            self._refused = self._refused or stem == "response.refusal"
            self.emit(TextDelta(more))
        item.sections[(stem, place)] = done + len(more)

    def _end_thought(self, signed: str) -> None:
        if self._thinks or signed:
            self._thinks = False
            self.emit(ReasoningEnd(signed))

    def _start_call(self, item: _Item, fallback: str) -> None:
        if item.started:
            return
        self._end_thought("")
        item.started = True
        item.call_id = item.call_id or fallback
        if not item.call_id or item.call_id in self._calls:
            item.call_id = call_id(self.request, len(self._calls))
        self._calls[item.call_id] = item
        self.emit(ToolCallStart(item.call_id, item.name))
        for piece in item.pieces:
            self.emit(ToolInputDelta(item.call_id, piece))

    def _grow_call(self, item: _Item, text: str) -> None:
        if not text or item.ended:
            return
        item.pieces.append(text)
        if item.started:
            self.emit(ToolInputDelta(item.call_id, text))

    def _end_call(self, item: _Item, arguments: str) -> None:
        if not item.started:
            raise self._failure(Kind.MALFORMED)
        streamed = "".join(item.pieces)
        whole = arguments or streamed or "{}"
        more = whole.removeprefix(streamed)
        if more and whole.startswith(streamed):
            self.emit(ToolInputDelta(item.call_id, more))
        self.emit(ToolCallEnd(item.call_id, whole))

    def _count(self, counted: Any) -> None:
        if type(counted) is not dict:
            return
        details = counted.get("input_tokens_details")
        details = details if type(details) is dict else {}
        read, written = _count(details, "cached_tokens"), _count(details, "cache_write_tokens")
        new = max(0, _count(counted, "input_tokens") - read - written)
        usage = Usage(new, _count(counted, "output_tokens"), read, written)
        if usage != Usage():  # zero everywhere means that nobody has counted (CW 5.11)
            self._usage = usage
            self.emit(UsageSoFar(usage))

    def _failure(self, kind: Kind) -> Failure:
        provider = self.target.provider
        name, model = provider.name or provider.id, f"{provider.id}/{self.target.info.model}"
        return Failure(kind, _SENTENCES[kind].format(name=name, model=model))


def _section(value: _Json) -> Any:
    """Which part of its item an event is about; the summary of a thought counts its own."""
    place = value.get("summary_index", value.get("content_index"))
    return place if type(place) is int else 0


def _is_whole(given: _Json) -> bool:
    return given.get("status") == "completed"


def _objects(value: Any) -> list[_Json]:
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _count(counted: _Json, name: str) -> int:
    number = counted.get(name)
    return number if type(number) is int and 0 <= number <= limits.INT_MAX else 0


def _text(value: Any) -> str:
    return value if type(value) is str else ""
