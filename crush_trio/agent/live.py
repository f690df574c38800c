"""An assistant message while it is being written: pieces in, deltas out, its state at any time."""

from __future__ import annotations

from collections.abc import Callable, Container

import attrs

from crush_trio.agent.calls import sanitised
from crush_trio.agent.ports import (
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)

ShowDelta = Callable[[int, str, int, str, str | None], None]
"""Shows ``(index, part, offset, text, tool_call_id)`` to subscribers; never waits."""


@attrs.define(eq=False)
class _OpenPart:
    """A part in the making. The text is joined only when somebody asks for it."""

    kind: str
    started_at: int
    tool_call_id: str | None = None
    name: str = ""
    pieces: list[str] = attrs.field(factory=list)
    length: int = 0
    finished_at: int = 0
    signature: str = ""
    finished: bool = False
    corrected: str | None = None

    def add(self, text: str) -> int:
        """Append ``text``; returns the offset in code points at which it begins."""
        offset = self.length
        self.pieces.append(text)
        self.length += len(text)
        return offset

    def text(self) -> str:
        """Everything so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def part(self) -> Part:
        """The part as it would be stored now."""
        if self.kind == "text":
            return TextPart(self.text())
        if self.kind == "reasoning":
            return ReasoningPart(self.text(), self.signature, self.started_at, self.finished_at)
        call_id = self.tool_call_id or ""
        return ToolCallPart(call_id, self.name, self.text(), self.finished, self.signature)

    def final(self) -> Part:
        """The part as the model ended it."""
        part = self.part()
        if isinstance(part, ToolCallPart) and self.corrected is not None:
            return attrs.evolve(part, input=self.corrected)
        return part


@attrs.define(eq=False)
class LiveMessage:
    """Collects what a model streams in one step (R51).

    Each piece costs one list append and one delta; nothing is joined, copied or stored per token.
    Unknown tool call ids are ignored rather than trusted: a delta must name a started call. A call
    id that is ``taken`` (by an earlier message of the session) gets a suffix, because results are
    found by it.
    """

    base: Message
    show: ShowDelta
    now_s: Callable[[], int]
    taken: Container[str] = ()
    _parts: list[_OpenPart] = attrs.field(factory=list, init=False)
    _calls: dict[str, int] = attrs.field(factory=dict, init=False)
    _ids: set[str] = attrs.field(factory=set, init=False)
    _has_text: bool = attrs.field(default=False, init=False)
    _final: Message | None = attrs.field(default=None, init=False)
    changed: bool = attrs.field(default=False, init=False)
    length: int = attrs.field(default=0, init=False)
    """Characters of content that were streamed."""

    def apply(self, event: ModelEvent) -> bool:
        """Take in one piece; whether it was content, that is, added something."""
        content = False
        match event:
            case TextDelta(text):
                content = self._grow("text", text)
            case ReasoningDelta(text):
                content = self._grow("reasoning", text)
            case ReasoningEnd(signature):
                content = self._end_reasoning(signature)
            case ToolCallStart(call_id, name):
                content = self._start_call(call_id, name)
            case ToolInputDelta(call_id, text):
                content = self._grow_call(call_id, text)
            case ToolCallEnd(call_id, text, signature):
                content = self._end_call(call_id, text, signature)
            case StreamReset():
                self._parts.clear()
                self._calls.clear()
                self._ids.clear()
                self._has_text = False
                self.length = 0
                self.changed = True
        if content:
            self.changed = True
        return content

    def present(self) -> Message:
        """The whole message as it stands now: open, until `finish`."""
        if self._final is not None:
            return self._final
        return attrs.evolve(
            self.base, parts=tuple(p.part() for p in self._parts), updated_at=self.now_s()
        )

    def finish(self, reason: str) -> Message:
        """The message as the model ended it: thoughts closed, tool calls made valid (R51)."""
        self._end_reasoning("")
        parts = (*(part.final() for part in self._parts), FinishPart(reason, self.now_s()))
        self._final = sanitised(attrs.evolve(self.present(), parts=parts))
        return self._final

    def calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls exactly as the model asked for them, broken arguments included."""
        finals = (part.final() for part in self._parts)
        return tuple(part for part in finals if isinstance(part, ToolCallPart))

    def _grow(self, kind: str, text: str) -> bool:
        if kind == "text":
            if not self._parts and not self._has_text:
                text = text.removeprefix("\n")  # R51
            self._has_text = True
        if not text:
            return False
        last = self._parts[-1] if self._parts else None
        if last is None or last.kind != kind or last.finished:
            last = _OpenPart(kind, self.now_s())
            self._parts.append(last)
        self.length += len(text)
        self.show(len(self._parts) - 1, kind, last.add(text), text, None)
        return True

    def _end_reasoning(self, signature: str) -> bool:
        ended = False
        for part in self._parts:
            if part.kind == "reasoning" and not part.finished:
                part.finished = ended = True
                part.finished_at = self.now_s()
                part.signature = signature
        if signature and not ended:
            silent = _OpenPart("reasoning", self.now_s(), signature=signature)
            silent.finished, silent.finished_at = True, silent.started_at
            self._parts.append(silent)
            self.show(len(self._parts) - 1, "reasoning", 0, "", None)
            ended = True
        return ended

    def _start_call(self, call_id: str, name: str) -> bool:
        if call_id in self._calls:
            return False
        unique, number = call_id, 1
        while unique in self.taken or unique in self._ids:
            number += 1
            unique = f"{call_id}_{number}"
        self._ids.add(unique)
        self._calls[call_id] = len(self._parts)
        self._parts.append(_OpenPart("tool_input", self.now_s(), unique, name))
        self.length += len(name)
        self.show(len(self._parts) - 1, "tool_input", 0, "", unique)
        return True

    def _grow_call(self, call_id: str, text: str) -> bool:
        index = self._calls.get(call_id)
        if index is None or not text or self._parts[index].finished:
            return False
        part = self._parts[index]
        self.length += len(text)
        self.show(index, "tool_input", part.add(text), text, part.tool_call_id)
        return True

    def _end_call(self, call_id: str, text: str, signature: str) -> bool:
        index = self._calls.get(call_id)
        if index is None or self._parts[index].finished:
            return False
        part = self._parts[index]
        if text.startswith(part.text()):
            self._grow_call(call_id, text[part.length :])
        else:
            # The deltas said something else. What was shown stays what they add up to; the
            # finished message has the truth.
            part.corrected = text
        part.signature = signature
        part.finished = True
        return True
