"""Subscribers in a process of their own: N websockets that count, and say what a turn looked like.

    python -I -S sink.py SOCKET PATH N [ENDS]

Standard library only and little work per frame, so that the subscribers are not what is measured.
After each turn (ENDS terminal events, 1 if not said, on every connection) one line of JSON goes to
stdout; ends with stdin. A delta whose text is a number is taken for the monotonic time, in ns, of
its writing.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import sys
import time
from typing import Any

LIFETIME_S = 600  # a sink that was forgotten ends by itself
RECEIVE_BYTES = 1 << 20
DELTA = b'"type":"message_delta"'
EVENT = b'{"seq":'
SEQ = re.compile(rb'\{"seq":(\d+),"ts_ms"')
TERMINAL = b'"type":"run_complete"'
RUN_ID = re.compile(rb'"run_id":"([^"]*)"')
STAMP = re.compile(rb'"text":"(\d{12,})"')
SAMPLE = re.compile(rb'\{"type":"message_delta"[^{}]*\}')


def percentile(values: list[int], share: float) -> float:
    """The value below which ``share`` of the sorted values lie."""
    return float(values[min(len(values) - 1, int(len(values) * share))])


class Turn:
    """What all connections together have seen since the last terminal event."""

    def __init__(self, last_seq: dict[int, int], ends: int) -> None:
        self.bytes = self.frames = self.deltas = self.events = 0
        self.first_ns = self.end_ns = 0
        self.first_stamp = self.last_stamp = 0
        self.stamps_from = 0  # arrival of the first stamped delta
        self.lags: list[int] = []
        self.samples: list[bytes] = []
        self.run_id = ""
        self.ends = ends
        self.terminal: dict[int, int] = {}  # terminal events of each connection
        self.ended: set[int] = set()
        self.each: dict[int, int] = {}  # deltas of each connection
        self.last_seq = last_seq  # of each connection; kept from turn to turn
        self.gaps = 0

    def take(self, connection: int, payload: bytes, now: int) -> None:
        """Count one frame."""
        self.bytes += len(payload)
        self.frames += 1
        deltas = payload.count(DELTA)
        self.each[connection] = self.each.get(connection, 0) + deltas
        if EVENT in payload:
            self._take_events(connection, payload)
        if deltas:
            self.deltas += deltas
            self.first_ns = self.first_ns or now
            self._take_stamps(payload, now)
            if connection == 0 and len(self.samples) < 2 and (found := SAMPLE.search(payload)):
                self.samples.append(found[0])
        if TERMINAL in payload:
            self.run_id = RUN_ID.findall(payload[payload.index(TERMINAL) :])[0].decode()
            seen = self.terminal.get(connection, 0) + payload.count(TERMINAL)
            self.terminal[connection] = seen
            if seen >= self.ends:
                self.ended.add(connection)
            self.end_ns = now

    def _take_events(self, connection: int, payload: bytes) -> None:
        """Each event must follow the one before it; nothing is filtered here."""
        for found in SEQ.findall(payload):
            seq, last = int(found), self.last_seq.get(connection)
            self.gaps += last is not None and seq != last + 1
            self.last_seq[connection] = seq
            self.events += 1

    def _take_stamps(self, payload: bytes, now: int) -> None:
        for text in STAMP.findall(payload):
            stamp = int(text)
            if not self.first_stamp:
                self.first_stamp, self.stamps_from = stamp, now
            self.last_stamp = max(self.last_stamp, stamp)
            self.lags.append(now - stamp)

    def summary(self, connections: int) -> dict[str, Any]:
        """The line for stdout; times in ns."""
        lags = sorted(self.lags)
        return {
            "run_id": self.run_id,
            "connections": connections,
            "bytes": self.bytes,
            "frames": self.frames,
            "deltas": self.deltas,
            "events": self.events,
            "deltas_each": [min(self.each.values()), max(self.each.values())],
            "gaps": self.gaps,
            "first_ns": self.first_ns,
            "end_ns": self.end_ns,
            "first_stamp": self.first_stamp,
            "last_stamp": self.last_stamp,
            "first_lag": self.stamps_from - self.first_stamp,
            "lags": [percentile(lags, share) for share in (0.5, 0.95, 0.99)] if lags else None,
            "envelopes": [len(s) - len(json.loads(s)["text"]) for s in self.samples],
        }


class Subscriber:
    """One websocket; server frames come unmasked and unfragmented."""

    def __init__(self, number: int, path: str, target: str) -> None:
        self.number = number
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.waiting = b""
        while b"\r\n\r\n" not in self.waiting:
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                raise SystemExit(f"no upgrade: {self.waiting[:300]!r}")
            self.waiting += data
        head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
        if b" 101 " not in head[:16]:
            raise SystemExit(f"no upgrade: {head!r}")

    def read(self) -> list[bytes]:
        """The frames that are complete after one read."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise SystemExit("the server has closed a subscriber")
        return self.take(data)

    def take(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes."""
        data = self.waiting + data if self.waiting else data
        frames, position, size = [], 0, len(data)
        while size - position >= 2:
            length, start = data[position + 1] & 0x7F, position + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if start + length > size:
                break
            frames.append(data[start : start + length])
            position = start + length
        self.waiting = data[position:]
        return frames

    def wait_ready(self) -> None:
        """Read until the server says that from here on it is live."""
        frames = self.take(b"")
        while not any(b'"type":"replayed"' in frame for frame in frames):
            frames = self.read()
        self.socket.settimeout(None)


def main() -> None:
    """Connect, say ``ready``, then report turns until stdin ends."""
    signal.alarm(LIFETIME_S)
    path, target, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ends = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    selector = selectors.DefaultSelector()
    for number in range(count):
        subscriber = Subscriber(number, path, target)
        subscriber.wait_ready()
        selector.register(subscriber.socket, selectors.EVENT_READ, subscriber)
    selector.register(0, selectors.EVENT_READ, None)
    print("ready", flush=True)
    last_seq: dict[int, int] = {}
    turn = Turn(last_seq, ends)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                if not os.read(0, 1024):
                    return
                continue
            frames = key.data.read()
            now = time.monotonic_ns()
            for frame in frames:
                turn.take(key.data.number, frame, now)
            if len(turn.ended) == count:
                print(json.dumps(turn.summary(count)), flush=True)
                turn = Turn(last_seq, ends)


if __name__ == "__main__":
    main()
