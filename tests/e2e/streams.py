"""Subscribers for tests of the stream: several workspaces, other limits, what a client holds."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import unix_connect

from tests.e2e.kit import Json, Server, Stream

_WITH_LIMITS = """
import sys
from crush_trio import limits
for pair in sys.argv.pop(1).split(","):
    name, value = pair.split("=")
    setattr(limits, name, type(getattr(limits, name))(value))
from crush_trio.cli.main import main
main()
"""


def with_limits(home: Path, *arguments: str, **limits: float) -> Server:
    """A server, not yet started, some of whose limits are other ones."""
    server = Server(home, *arguments)
    pairs = ",".join(f"{name}={value}" for name, value in limits.items())
    server.command = (sys.executable, "-c", _WITH_LIMITS, pairs)
    return server


@contextlib.contextmanager
def ended(server: Server) -> Iterator[Server]:
    """A started server that is gone after the block."""
    try:
        yield server.start()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


class Many(Stream):
    """A client of ``/v1/ws``."""

    def send(self, *objects: Json) -> None:
        """Send objects in one frame."""
        self.connection.send(json.dumps(objects))

    def subscribe(self, workspace: str, **more: Any) -> Json:
        """Ask for a workspace; the answer, all before it is kept in ``seen``."""
        self.send({"type": "subscribe", "workspace_id": workspace, **more})
        return self.until_control(workspace, "subscribed", "error")[-1]

    def until_control(self, workspace: str, *kinds: str) -> list[Json]:
        """The objects up to a control object of one of these kinds for this workspace."""
        return self.until(lambda f: f["type"] in kinds and f.get("workspace_id") == workspace)

    def events_of(self, workspace: str) -> list[Json]:
        """The events of one workspace that were received so far."""
        return [f for f in self.seen if is_event(f) and f["workspace_id"] == workspace]


@contextlib.contextmanager
def many(server: Server) -> Iterator[Many]:
    """One socket for several workspaces."""
    with unix_connect(
        server.socket_path,
        uri="ws://localhost/v1/ws",
        compression=None,
        max_size=None,
        ping_interval=None,
    ) as connection:
        yield Many(connection)


def is_event(frame: Json) -> bool:
    """Whether an object is an event of the journal."""
    return "ts_ms" in frame


def stalled(server: Server, workspace: str, query: str = "after=now") -> socket.socket:
    """A subscriber that says what it wants and then never reads."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(server.socket_path)
    peer.sendall(
        f"GET /v1/workspaces/{workspace}/ws?{query} HTTP/1.1\r\nHost: x\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert peer.recv(12) == b"HTTP/1.1 101"
    return peer


class Holding:
    """What a client holds that applies every object it is sent, as contract 4 tells it to (G8)."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.messages: dict[str, Json] = {}
        self.sessions: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.resyncs: list[str] = []

    @property
    def cursor(self) -> int:
        """The newest event that was applied."""
        return self.seqs[-1] if self.seqs else 0

    def take(self, frame: Json) -> None:
        """Apply one object."""
        if frame["type"] == "message_delta":
            self._append(frame)
        elif is_event(frame) or frame["type"] == "message":
            self._put(frame)
        elif frame["type"] == "resync":
            self.resyncs.append(frame["reason"])

    def _put(self, frame: Json) -> None:
        if "seq" in frame:
            assert frame["seq"] > self.cursor, "an event came twice, or out of order"
            self.seqs.append(frame["seq"])
        kinds = {"message": self.messages, "session": self.sessions, "run": self.runs}
        if frame["type"] in kinds:
            inner = frame["payload"]["payload"]
            kinds[frame["type"]][inner["id"]] = inner

    def _append(self, delta: Json) -> None:
        message = self.messages.get(delta["message_id"])
        if message is None or any(part["type"] == "finish" for part in message["parts"]):
            return  # its state comes with the next present state or event
        parts, field = message["parts"], _TEXT_OF[delta["part"]]
        if delta["index"] == len(parts):
            parts.append({"type": _PART_OF[delta["part"]], "data": {field: ""}})
        data = parts[delta["index"]]["data"]
        assert delta["offset"] == len(data[field]), "a delta that continues nothing"
        data[field] += delta["text"]


_TEXT_OF = {"text": "text", "reasoning": "thinking", "tool_input": "input"}
_PART_OF = {"text": "text", "reasoning": "reasoning", "tool_input": "tool_call"}
