"""A subscriber that keeps its cursor over every restart and notes what is wrong at once."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from typing import Any

import attrs
from websockets.exceptions import WebSocketException
from websockets.sync.client import unix_connect

from tests.chaos.history import History
from tests.chaos.server import ChaosServer


@attrs.frozen
class Seen:
    """What is kept of one event."""

    seq: int
    kind: str
    run_id: str
    session_id: str
    digest: str
    payload: Any = None
    """Of ``run`` and ``run_complete`` only."""


def seen_of(frame: dict[str, Any]) -> Seen:
    """An event of the stream, in short."""
    inner = frame["payload"]["payload"]
    kind = frame["type"]
    run_id = inner.get("id") if kind == "run" else inner.get("run_id")
    text = json.dumps(frame, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()[:16]
    payload = inner if kind in ("run", "run_complete") else None
    session = inner.get("id") if kind == "session" else inner.get("session_id")
    return Seen(frame["seq"], kind, run_id or "", session or "", digest, payload)


@attrs.define(eq=False)
class Subscriber:
    """Follows a workspace from its first event on.

    ``strict``: nothing may be missing between two events, because nothing here is deleted.
    """

    server: ChaosServer
    history: History
    workspace: str
    strict: bool
    up: threading.Event
    over: threading.Event
    dice: random.Random
    events: list[Seen] = attrs.field(factory=list)
    epoch: str = ""
    connections: int = 0
    thread: threading.Thread | None = None

    @property
    def cursor(self) -> int:
        """The last event it has."""
        return self.events[-1].seq if self.events else 0

    def start(self) -> None:
        """Begin to follow, in a thread."""
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        while not self.over.is_set():
            if self.up.wait(0.05):
                try:
                    self._connection()
                except (OSError, WebSocketException, EOFError, TimeoutError):
                    self.over.wait(0.02)

    def _connection(self) -> None:
        query = f"after={self.cursor}" + (f"&epoch={self.epoch}" if self.epoch else "")
        uri = f"ws://localhost/v1/workspaces/{self.workspace}/ws?{query}"
        with unix_connect(
            str(self.server.socket), uri=uri, compression=None, max_size=None, ping_interval=None
        ) as connection:
            self.connections += 1
            leaves_at = time.monotonic() + self.dice.uniform(0.2, 8)
            while not self.over.is_set() and time.monotonic() < leaves_at:
                try:
                    text = connection.recv(timeout=0.2)
                except TimeoutError:
                    continue
                for frame in json.loads(text):
                    self.take(frame)

    def take(self, frame: dict[str, Any]) -> None:
        """Note one object of the stream."""
        if frame["type"] == "hello":
            if self.epoch and frame["epoch"] != self.epoch:
                self.history.violation(f"epoch {self.epoch} became {frame['epoch']}")
            self.epoch = frame["epoch"]
        elif frame["type"] == "resync":
            self.history.violation(f"resync at cursor {self.cursor}: {frame}")
        elif "seq" in frame and "ts_ms" in frame:
            event = seen_of(frame)
            wrong = event.seq != self.cursor + 1 if self.strict else event.seq <= self.cursor
            if wrong:
                self.history.violation(
                    f"event {event.seq} ({event.kind}) came after {self.cursor} in {self.workspace}"
                )
            self.events.append(event)


def replay(server: ChaosServer, workspace: str) -> list[Seen]:
    """Every event that is stored, by a fresh subscriber."""
    uri = f"ws://localhost/v1/workspaces/{workspace}/ws?after=start"
    found: list[Seen] = []
    with unix_connect(
        str(server.socket), uri=uri, compression=None, max_size=None, ping_interval=None
    ) as connection:
        while True:
            for frame in json.loads(connection.recv(timeout=20)):
                if frame["type"] == "replayed":
                    return found
                if "seq" in frame and "ts_ms" in frame:
                    found.append(seen_of(frame))
