"""Tool calls put together from the pieces of a Chat Completions stream.

The protocol numbers the calls of an answer (``index``) and names each once, with an id. Servers
leave the number out, give each call the number 0, repeat name and id with each piece or change
the id with it, give two calls one id or none, and send arguments in pieces, at once, twice, or as
an object. What is decided here:

- A number not seen before is another call. Without a number, a new id or a named piece after a
  complete call is.
- A named piece for a call that is complete is another call if its id or its name differs, and so
  is one that begins an object. Complete means: the arguments are a JSON object. Everything else
  goes on with the call it numbers, or with the last one.
- An id that is missing or used already is made up from the run, the step and the position, so
  that the same answer gets the same ids.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
import orjson

from crush_trio.agent.ports import Emit, ModelRequest, ToolCallEnd, ToolCallStart, ToolInputDelta
from crush_trio.models.call_ids import call_id
from crush_trio.models.dialects.halves import Halves, encodable


class Broken(Exception):
    """A piece is of a shape that cannot be understood; the text says which."""


@attrs.define(eq=False)
class _Call:
    given_id: str
    name: str
    id: str = ""
    pieces: list[str] = attrs.field(factory=list)
    length: int = 0
    sent: int = 0  # pieces that were emitted
    extra: dict[str, Any] = attrs.field(factory=dict)
    halves: Halves = attrs.field(factory=Halves)

    def text(self) -> str:
        return "".join(self.pieces)

    def is_empty_object(self) -> bool:
        """Some servers open a call with ``{}``, and send its arguments then."""
        return self.length <= 2 and self.text() == "{}"

    def is_complete(self) -> bool:
        ending = next((piece for piece in reversed(self.pieces) if piece.strip()), "")
        return ending.rstrip().endswith("}") and is_object(self.text())


@attrs.define(eq=False)
class CallPieces:
    """The calls of one answer. ``any`` once there is one."""

    request: ModelRequest
    emit: Emit
    _calls: list[_Call] = attrs.field(factory=list, init=False)
    _numbered: dict[Any, _Call] = attrs.field(factory=dict, init=False)
    _ids: set[str] = attrs.field(factory=set, init=False)

    @property
    def any(self) -> bool:
        """There is at least one call."""
        return bool(self._calls)

    @property
    def are_whole(self) -> bool:
        """Each call has arguments, and they are complete: nothing says that more had to come."""
        return all(call.is_complete() and not call.is_empty_object() for call in self._calls)

    def add(self, item: Any, number: Any = None) -> None:
        """Take an entry of ``tool_calls``, or with a ``number`` of its own a ``function_call``.

        Raises:
            Broken: It is no such entry.
        """
        if item is None:
            return
        if type(item) is not dict:
            raise Broken("a tool call that is no object")
        function = item.get("function") if number is None else item
        if function is None:
            function = item  # some put name and arguments beside it
        if type(function) is not dict:
            raise Broken("a tool call whose function is no object")
        name = function.get("name")
        if name is not None and type(name) is not str:
            raise Broken("a tool call whose name is no text")
        arguments = _arguments(function.get("arguments"))
        place = _number(item.get("index")) if number is None else number
        call = self._find(place, _id(item.get("id")), encodable(name or ""), arguments)
        extra = item.get("extra_content")
        if type(extra) is dict:
            call.extra |= extra
        self._append(call, arguments)

    def add_whole(self, name: str, arguments: str) -> None:
        """Take a complete call that has no id."""
        self._append(self._open(None, "", name), arguments)

    def end(self) -> None:
        """Say that all calls are complete.

        Raises:
            Broken: One has no name.
        """
        for call in self._calls:
            if not call.name:
                raise Broken("a tool call without a name")
            call.pieces.append(call.halves.end())
            self._send(call, is_last=True)
            signature = json.dumps(call.extra, separators=(",", ":")) if call.extra else ""
            self.emit(ToolCallEnd(call.id, call.text() or "{}", signature))

    def _find(self, number: Any, given_id: str, name: str, arguments: str) -> _Call:
        if number is not None:
            call = self._numbered.get(number)
        elif given_id:
            call = next((c for c in reversed(self._calls) if c.given_id == given_id), None)
        else:
            call = self._calls[-1] if self._calls else None
        if call is None or self._is_another(call, given_id, name, arguments):
            return self._open(number, given_id, name or (call.name if call else ""))
        call.given_id = call.given_id or given_id
        if name and not call.id and name != call.name:
            call.name += name  # a name in pieces
        return call

    def _is_another(self, call: _Call, given_id: str, name: str, arguments: str) -> bool:
        if not call.name:
            return False
        other_id = bool(given_id and call.given_id and given_id != call.given_id)
        if name and other_id and name != call.name:
            return True
        if not call.is_complete():
            return False
        begins = arguments.lstrip().startswith("{") and arguments != call.text()
        if begins and not call.is_empty_object():
            return True  # nothing can follow an object
        return bool(name) and (other_id or name != call.name)

    def _open(self, number: Any, given_id: str, name: str) -> _Call:
        call = _Call(given_id, name)
        self._calls.append(call)
        if number is not None:
            self._numbered[number] = call
        return call

    def _append(self, call: _Call, arguments: str) -> None:
        text = call.halves.whole(arguments)
        if not text:
            return
        if len(text) == call.length and text == call.text() and call.is_complete():
            return  # said twice
        if call.is_empty_object() and text.lstrip().startswith("{"):
            call.pieces, call.length = [], 0
        call.pieces.append(text)
        call.length += len(text)
        self._send(call)

    def _send(self, call: _Call, *, is_last: bool = False) -> None:
        """Emit what can be; calls begin in their order, and never without a name."""
        if not call.name or (not is_last and call.is_empty_object()):
            return
        for earlier in self._calls:
            if earlier.name and not earlier.id:
                earlier.id = self._free_id(earlier)
                self.emit(ToolCallStart(earlier.id, earlier.name))
            if earlier is call:
                break
        for piece in call.pieces[call.sent :]:
            if piece:
                self.emit(ToolInputDelta(call.id, piece))
        call.sent = len(call.pieces)

    def _free_id(self, call: _Call) -> str:
        wanted, position = call.given_id, self._calls.index(call) + 1
        while not wanted or wanted in self._ids:
            wanted = call_id(self.request, position)
            position += len(self._calls)
        self._ids.add(wanted)
        return wanted


def is_object(text: str) -> bool:
    """Whether the text is a JSON object."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return False
    try:
        return type(orjson.loads(text)) is dict
    except orjson.JSONDecodeError:
        return False


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is str:
        return value
    if type(value) in (dict, list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    raise Broken("tool call arguments that are neither text nor an object")


def _number(value: Any) -> int | None:
    if type(value) is str and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _id(value: Any) -> str:
    if type(value) is int:
        return str(value)
    return encodable(value) if type(value) is str else ""
