"""One recorded model request: its events with their times, turned into a script's actions.

Pieces of one text, thought or call become one action with their average size and pace; a pause
longer than `_PAUSE_S` within a text starts a new one.
"""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from crush_trio.agent.ports import (
    ModelError,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.protocol.runs import Usage

_PAUSE_S = 0.25


@attrs.define
class _Stretch:
    """Pieces that become one action."""

    first: float
    last: float
    pieces: list[str] = attrs.field(factory=list)

    def add(self, text: str, now: float) -> None:
        self.pieces.append(text)
        self.last = now

    def pace(self) -> dict[str, Any]:
        """``piece_chars`` and ``every_ms``, if there was more than one piece."""
        gaps = len(self.pieces) - 1
        if gaps < 1:
            return {}
        chars = max(1, -(-sum(map(len, self.pieces)) // len(self.pieces)))
        every_ms = round((self.last - self.first) * 1000 / gaps, 1)
        return {"piece_chars": chars} | ({"every_ms": every_ms} if every_ms else {})


@attrs.define
class _Call:
    """A tool call that is being asked for; ``action`` is empty until it is complete."""

    name: str
    action: dict[str, Any]
    stretch: _Stretch


@attrs.define
class RecordedStep:
    """What one request has streamed so far; all times are Trio's clock, in seconds.

    A call that was never completed is left out: nobody has run it.
    """

    run_id: str
    prompt: str
    number: int
    _last: float
    _actions: list[dict[str, Any]] = attrs.field(factory=list)
    _ending: dict[str, Any] = attrs.field(factory=dict)
    _kind: str = ""
    _stretch: _Stretch | None = None
    _calls: dict[str, _Call] = attrs.field(factory=dict)
    _thoughts: list[dict[str, Any]] = attrs.field(factory=list)
    _after_thought: list[dict[str, Any]] = attrs.field(factory=list)

    def add(self, event: ModelEvent, now: float) -> None:
        """Take the next event."""
        match event:
            case TextDelta(text):
                self._piece("text", text, now)
            case ReasoningDelta(text):
                self._piece("reasoning", text, now)
            case ReasoningEnd(signature):
                self._end_thoughts(signature, now)
            case ToolCallStart(call, name):
                # Its place is where it began: several calls may be streamed side by side.
                begun = _Call(name, {}, _Stretch(now, now))
                self._mark(begun.action, now)
                self._calls[call] = begun
            case ToolInputDelta(call, text):
                self._calls[call].stretch.add(text, now)
            case ToolCallEnd(call, raw, signature):
                begun = self._calls.pop(call)
                signed = {"signature": signature} if signature else {}
                begun.action.update(
                    {"tool": begun.name} | _input(raw) | signed | begun.stretch.pace()
                )
                self._last = max(self._last, begun.stretch.last)
            case UsageSoFar(usage):
                counted = {"usage_so_far": _numbers(usage)}
                if self._kind == "reasoning":
                    self._after_thought.append(counted)  # a thought that is played in two, is two
                else:
                    self._mark(counted, now)
            case StreamReset(attempt, most, delay_s, cause):
                self._calls.clear()
                self._close()
                self._thoughts.clear()
                value = {"reset": cause, "attempt": attempt, "max_attempts": most}
                self._mark(value | {"delay_ms": round(delay_s * 1000, 1)}, now)
                self._last += delay_s  # playing the reset waits that long by itself

    def ended(self, end: StepEnd, now: float) -> None:
        """The model returned."""
        self._mark(None, now)
        self._ending = {"finish": end.reason}
        if end.usage is not None:
            self._ending["usage"] = _numbers(end.usage)
        if end.cost_usd is not None:
            self._ending["cost_usd"] = end.cost_usd

    def failed(self, error: ModelError, now: float) -> None:
        """The model raised."""
        value = {"error": error.message, "code": error.code, "title": error.title}
        self._mark(value | {"retryable": error.retryable}, now)

    def cancelled(self, now: float) -> None:
        """The run was cancelled: what would have come is not known, so nothing comes."""
        self._mark({"silence": True}, now)

    def to_json(self, *, only_for_its_prompt: bool) -> dict[str, Any]:
        """The step as it stands in a script file."""
        when = {"prompt_is": self.prompt, "prompt_number": max(1, self.number)}
        head: dict[str, Any] = {"when": when} if only_for_its_prompt else {}
        return head | {"actions": [each for each in self._actions if each]} | self._ending

    def _piece(self, kind: str, text: str, now: float) -> None:
        stretch = self._stretch
        paused = stretch is not None and kind == "text" and now - stretch.last > _PAUSE_S
        if stretch is None or kind != self._kind or paused:
            self._close()
            stretch = self._stretch = _Stretch(now, now)
            self._kind = kind
        stretch.add(text, now)

    def _end_thoughts(self, signature: str, now: float) -> None:
        """A signature belongs to each thought that is open, also behind a text that followed it."""
        self._close()
        if not self._thoughts and signature:
            self._piece("reasoning", "", now)
            self._close()
            self._thoughts = [self._actions[-1]]
        for action in self._thoughts if signature else ():
            action["signature"] = signature
        self._thoughts = []

    def _close(self) -> None:
        if self._stretch is not None:
            action: dict[str, Any] = {self._kind: "".join(self._stretch.pieces)}
            if self._kind == "reasoning" and action[self._kind]:
                self._thoughts.append(action)
            action |= self._stretch.pace()
            self._put(action, self._stretch)
            self._actions += self._after_thought
            self._after_thought = []
        self._stretch, self._kind = None, ""

    def _put(self, action: dict[str, Any], stretch: _Stretch) -> None:
        self._wait_until(stretch.first)
        self._actions.append(action)
        self._last = max(self._last, stretch.last)

    def _mark(self, action: dict[str, Any] | None, now: float) -> None:
        self._close()
        self._wait_until(now)
        if action is not None:
            self._actions.append(action)

    def _wait_until(self, now: float) -> None:
        wait_ms = round((now - self._last) * 1000, 1)
        if wait_ms >= 1:
            self._actions.append({"wait_ms": wait_ms})
            self._last = now


def _numbers(usage: Usage) -> dict[str, Any]:
    """Without ``estimated`` where nothing is."""
    return attrs.asdict(usage, filter=lambda _, value: value is not False)


def _input(raw: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {"raw_input": raw}
    same = type(value) is dict and orjson.dumps(value).decode() == raw
    return {"input": value} if same else {"raw_input": raw}
