"""Server-sent events out of bytes as they come, and what some servers send instead of them."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from crush_trio import limits
from crush_trio.models.failures import Failure, Kind

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
        self._parts: list[bytes] = []  # of an unfinished line
        self._parts_size = 0
        self._begun = False
        self._half = b""  # a CR that may be the first half of a CRLF
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._whole = False  # the body is one JSON value over many lines

    def feed(self, piece: bytes) -> Iterator[tuple[str, str]]:
        """The events that ``piece`` completes. The iterator must be used up before the next call.

        Raises:
            Failure: `Kind.MALFORMED`: an event or a line is longer than the limit.
        """
        if self._half:
            piece, self._half = self._half + piece, b""
        if piece.endswith(b"\r"):
            piece, self._half = piece[:-1], b"\r"
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._whole or b"\n" not in piece:
            self._keep(piece)
            return
        lines = piece.split(b"\n")
        self._keep(lines[0])
        lines[0] = self._unfinished()
        rest = lines.pop()
        for number, line in enumerate(lines):
            if line.startswith((b"{", b"[")) and not _is_json(line):
                self._whole = True
                self._keep(b"\n".join([*lines[number:], rest]))
                return
            event = self._line(line)
            if event is not None:
                yield event
        self._keep(rest)

    def end(self) -> Iterator[tuple[str, str]]:
        """What the end of the body completes."""
        if self._half and not self._whole:
            yield from self.feed(b"\n")  # it was a line end by itself
        line = self._unfinished()
        if self._whole or line.startswith((b"{", b"[")):
            if _is_json(line):
                yield "message", _text(line)
            return
        if line:
            self._line(line)
        data = b"\n".join(self._data)
        event = self._dispatch()
        if event is not None and (data == b"[DONE]" or _is_json(data)):
            yield event

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._parts_size += len(part)
            if self._parts_size + self._size > self._max_bytes:
                raise self._too_long()

    def _unfinished(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._parts_size = [], 0
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        return line

    def _line(self, line: bytes) -> tuple[str, str] | None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._size += len(line)
            if self._size > self._max_bytes:
                raise self._too_long()
        elif not line:
            return self._dispatch()
        elif line.startswith(b"event:"):
            self._event = _text(line[6:].removeprefix(b" "))
        elif line == b"data":
            self._data.append(b"")
        elif line.startswith((b"{", b"[")):
            return "message", _text(line)
        return None

    def _dispatch(self) -> tuple[str, str] | None:
        event, data = self._event, self._data
        self._event, self._data, self._size = "", [], 0
        return (event or "message", _text(b"\n".join(data))) if data else None

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
