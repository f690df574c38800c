"""Server-sent events out of bytes as they come, and what some servers send instead of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

from crush_trio import limits
from crush_trio.models.failures import Failure, Kind

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventDecoder:
    """Takes an answer's bytes in pieces of any size; gives ``(event, data)`` pairs.

    The rules are those of the HTML standard (9.2.6); ids and retry times mean nothing here. Beyond
    them, a line that is a JSON value is an event by itself, and a body that is one JSON value over
    many lines is one event, given at its end: so answer servers that do not stream, and errors
    come so, too. What is cut off in the middle is not given, unless it is complete JSON.
    """

    def __init__(self, max_bytes: int = limits.MODEL_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()  # an unfinished line
        self._scanned = 0  # so far there is no line end in it
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False
        self._whole = False  # the body is one JSON value over many lines

    def feed(self, piece: bytes) -> Iterator[tuple[str, str]]:
        """The events that ``piece`` completes. The iterator must be used up before the next call.

        Raises:
            Failure: `Kind.MALFORMED`: an event or a line is longer than the limit.
        """
        rest = self._rest
        rest += piece
        if not self._begun:
            if len(rest) < len(_BOM) and _BOM.startswith(rest):
                return
            self._begun = True
            if rest.startswith(_BOM):
                del rest[: len(_BOM)]
        while not self._whole:
            # A CR at the very end may be the first half of a CRLF.
            found = _LINE_END.search(rest, self._scanned)
            if found is None or (found.end() == len(rest) and found[0] == b"\r"):
                self._scanned = len(rest) if found is None else found.start()
                break
            line = bytes(rest[: found.start()])
            del rest[: found.end()]
            self._scanned = 0
            event = self._line(line, found[0])
            if event is not None:
                yield event
        if len(rest) + self._size > self._max_bytes:
            raise self._too_long()

    def end(self) -> Iterator[tuple[str, str]]:
        """What the end of the body completes."""
        line = bytes(self._rest).rstrip(b"\r\n")
        self._rest.clear()
        if self._whole or line.startswith((b"{", b"[")):
            if _is_json(line):
                yield "message", _text(line)
            return
        event = self._line(line, b"") if line else None
        if event is not None:
            yield event
        elif self._data:
            data = b"\n".join(self._data)
            if data == b"[DONE]" or _is_json(data):
                yield self._dispatch()

    def _line(self, line: bytes, ending: bytes) -> tuple[str, str] | None:
        if not line:
            event = self._dispatch() if self._data else None
            self._forget()
            return event
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._size += len(line)
            if self._size > self._max_bytes:
                raise self._too_long()
        elif line.startswith(b"event:"):
            self._event = _text(line[6:].removeprefix(b" "))
        elif line.startswith((b"{", b"[")):
            if _is_json(line):
                return "message", _text(line)
            self._whole = True
            self._rest[:0] = line + ending
        elif line == b"data":
            self._data.append(b"")
        return None

    def _dispatch(self) -> tuple[str, str]:
        return self._event or "message", _text(b"\n".join(self._data))

    def _forget(self) -> None:
        self._event, self._data, self._size = "", [], 0

    def _too_long(self) -> Failure:
        return Failure(
            Kind.MALFORMED, f"An event of the answer is longer than {self._max_bytes} bytes."
        )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True
