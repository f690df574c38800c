"""A client of the event stream that takes every byte of HTTP apart itself."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from tests.e2e.kit import Json, Server


class Wire:
    """One connection: writes a request, reads a head, and then chunks one by one.

    Anything that is not exactly HTTP fails an assertion; a connection that ends in the middle
    raises `EOFError`.
    """

    def __init__(self, path: str, timeout: float = 20) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.headers: dict[str, str] = {}
        self.version = ""
        self._buffer = b""

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def request(self, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> int:
        """Send a request without a body and read the head of its answer; the status."""
        lines = [f"{method} {target} HTTP/{version}", "Host: api.crush.localhost", *headers]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self.version, status, _ = self.line().split(" ", 2)
        self.headers = {}
        while line := self.line():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        return int(status)

    def line(self) -> str:
        """A line that ends with CR LF and has neither inside."""
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        assert b"\n" not in line, line
        return line.decode("ascii")

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def chunk(self) -> bytes:
        """The next chunk; the last one, with the empty line behind it, is empty."""
        size = int(self.line(), 16)
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def to_the_end(self) -> bytes:
        """Everything until the server closes the connection."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        data, self._buffer = self._buffer, b""
        return data

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"closed by the server after {self._buffer!r}")
        self._buffer += data


@attrs.define
class Block:
    """What stands between two empty lines: an event, a comment, an id, or several of them."""

    id: int | None = None
    event: Json | None = None
    comment: bool = False

    @property
    def type(self) -> str:
        """The outer type of the event; empty for none."""
        return self.event["type"] if self.event else ""

    @property
    def payload(self) -> Any:
        """The inner payload of the event."""
        assert self.event is not None
        return self.event["payload"]["payload"]


def parse_block(text: str) -> Block:
    """A block, which must be written exactly as Crush writes it, apart from ids and comments."""
    block = Block()
    for line in text.split("\n"):
        if line.startswith("data: "):
            assert block.event is None, text
            block.event = json.loads(line.removeprefix("data: "))
            compact = json.dumps(block.event, separators=(",", ":"), ensure_ascii=False)
            assert len(line) == len("data: " + compact)
            assert list(block.event) == ["type", "payload"]
            assert list(block.event["payload"]) == ["type", "payload"]
        elif line.startswith("id: "):
            block.id = int(line.removeprefix("id: "))
        else:
            assert line == ":", line
            block.comment = True
    return block


class Events:
    """The blocks of one event stream."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.seen: list[Block] = []
        self.ended = False
        self._text = b""

    def next(self) -> Block | None:
        """The next block; ``None`` after the last chunk."""
        while b"\n\n" not in self._text and not self.ended:
            data = self.wire.chunk()
            self.ended = not data
            assert data.endswith(b"\n\n") or not data, "a chunk is whole blocks"
            self._text += data
        if not self._text:
            return None
        text, _, self._text = self._text.partition(b"\n\n")
        self.seen.append(parse_block(text.decode()))
        return self.seen[-1]

    def until(self, wanted: Callable[[Block], bool]) -> list[Block]:
        """The blocks up to and with the first wanted one."""
        found = []
        while True:
            block = self.next()
            assert block is not None, "the stream ended"
            found.append(block)
            if wanted(block):
                return found

    def until_end_of(self, run: str) -> list[Block]:
        """The blocks up to and with a run's terminal event."""
        return self.until(lambda b: b.type == "run_complete" and b.payload["run_id"] == run)

    def rest(self) -> list[Block]:
        """The blocks up to the last chunk."""
        found = []
        while (block := self.next()) is not None:
            found.append(block)
        return found


@contextlib.contextmanager
def events(server: Server, workspace: str, query: str = "", *headers: str) -> Iterator[Events]:
    """An open event stream."""
    wire = Wire(server.socket_path)
    try:
        status = wire.request(f"/v1/workspaces/{workspace}/events?{query}", *headers)
        assert status == 200, wire.to_the_end()
        assert wire.headers["content-type"] == "text/event-stream"
        assert wire.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in wire.headers
        yield Events(wire)
    finally:
        wire.close()
