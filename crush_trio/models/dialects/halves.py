"""Characters beyond the basic plane that a server has cut in two, put together again.

A server that cuts its text by UTF-16 units sends ``"\\\\ud83d"`` in one event and ``"\\\\ude00"``
in the next. Neither half can be stored or sent to anybody.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import attrs
import orjson

from crush_trio.agent.ports import (
    Emit,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallEnd,
    ToolInputDelta,
    UsageSoFar,
)

_GROWS: Final = frozenset({"delta", "text", "thinking", "partial_json"})
"""Members that hold a piece of something; the rest of it comes in another event."""


@attrs.define
class Halves:
    """One text as it comes."""

    _half: str = attrs.field(default="", init=False)

    def whole(self, text: str) -> str:
        """The next piece, with whole characters only; half a one at its end waits for the rest."""
        if self._half:
            text, self._half = self._half + text, ""
        try:
            text.encode()
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            return encodable(text)
        return text

    def end(self) -> str:
        """What is left: a replacement for half a character, or nothing."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def encodable(text: str) -> str:
    """The text with halves joined where both are there, and replaced where not."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def loaded(data: str) -> Any:
    """A JSON value; halves of characters stay where a text grows, and are replaced elsewhere.

    Raises:
        ValueError: It is none.
    """
    try:
        return orjson.loads(data)  # which refuses halves
    except orjson.JSONDecodeError:
        try:
            return _repaired(json.loads(data, parse_constant=_refused), "")
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _repaired(value: Any, name: str) -> Any:
    if type(value) is str:
        return value if name in _GROWS else encodable(value)
    if type(value) is dict:
        return {encodable(key): _repaired(item, key) for key, item in value.items()}
    return [_repaired(item, "") for item in value] if type(value) is list else value


@attrs.define(eq=False)
class WholeCharacters:
    """Hands on the events of one answer, with whole characters only.

    Half a character at the end of a text becomes a replacement; at the very end, nothing.
    """

    emit: Emit
    _said: type[TextDelta | ReasoningDelta] = attrs.field(default=TextDelta, init=False)
    _text: Halves = attrs.field(factory=Halves, init=False)
    _inputs: dict[str, Halves] = attrs.field(factory=dict, init=False)

    def __call__(self, event: ModelEvent) -> None:
        """Take the next event."""
        if isinstance(event, TextDelta | ReasoningDelta):
            if type(event) is not self._said:
                self._end_text()
                self._said = type(event)
            text = self._text.whole(event.text)
            if text:
                self.emit(event if text is event.text else type(event)(text))
        elif isinstance(event, ToolInputDelta):
            text = self._inputs.setdefault(event.id, Halves()).whole(event.text)
            if text:
                self.emit(event if text is event.text else ToolInputDelta(event.id, text))
        elif isinstance(event, UsageSoFar):
            self.emit(event)
        else:
            self._end_text()
            self.emit(self._ended(event) if isinstance(event, ToolCallEnd) else event)

    def _end_text(self) -> None:
        rest = self._text.end()
        if rest:
            self.emit(self._said(rest))

    def _ended(self, call: ToolCallEnd) -> ToolCallEnd:
        rest = self._inputs.pop(call.id, Halves()).end()
        if rest:
            self.emit(ToolInputDelta(call.id, rest))
        whole = encodable(call.input)
        return call if whole == call.input else attrs.evolve(call, input=whole)
