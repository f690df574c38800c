"""Many subscribers in one thread: raw sockets, so that the crowd is cheaper than its server."""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import time
from collections.abc import Iterator

from tests.e2e.kit import Json, Server

RECEIVE_BYTES = 1 << 20


def raise_file_limit(least: int) -> None:
    """Let this process, and the servers it starts, have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(least, hard), hard))


class Member:
    """One subscriber: what it was sent, each object once."""

    def __init__(self, server: Server, workspace: str, query: str) -> None:
        self.objects: list[Json] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(server.socket_path)
        self.socket.sendall(
            f"GET /v1/workspaces/{workspace}/ws?{query} HTTP/1.1\r\nHost: x\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self._waiting = b""
        while b"\r\n\r\n" not in self._waiting:
            self._waiting += self.socket.recv(RECEIVE_BYTES)
        head, _, self._waiting = self._waiting.partition(b"\r\n\r\n")
        assert b" 101 " in head[:16], head
        self._take(b"")  # what came with the head

    def read(self) -> None:
        """Take what has come."""
        data = self.socket.recv(RECEIVE_BYTES)
        assert data, "the server closed the connection"
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Frames of a server are neither masked nor fragmented."""
        data, position = self._waiting + data, 0
        while len(data) - position >= 2:
            length, start = data[position + 1] & 0x7F, position + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                length, start = int.from_bytes(data[start : start + wide], "big"), start + wide
            if start + length > len(data):
                break
            self.objects += json.loads(data[start : start + length])
            position = start + length
        self._waiting = data[position:]

    def has(self, kind: str) -> bool:
        """Whether an object of a kind has come."""
        return any(item["type"] == kind for item in self.objects)


@contextlib.contextmanager
def crowd(server: Server, workspace: str, count: int, query: str) -> Iterator[list[Member]]:
    """So many subscribers, connected."""
    with contextlib.ExitStack() as stack:
        members = []
        for _ in range(count):
            member = Member(server, workspace, query)
            stack.callback(member.socket.close)
            members.append(member)
        yield members


def read_until(members: list[Member], kind: str, timeout: float = 30) -> None:
    """Read everything that comes until every member has an object of this kind."""
    with selectors.DefaultSelector() as selector:
        for member in members:
            selector.register(member.socket, selectors.EVENT_READ, member)
        missing = {member for member in members if not member.has(kind)}
        deadline = time.monotonic() + timeout
        while missing:
            assert time.monotonic() < deadline, f"{len(missing)} never got {kind}"
            for key, _ in selector.select(timeout=1):
                key.data.read()
                if key.data in missing and key.data.has(kind):
                    missing.discard(key.data)
