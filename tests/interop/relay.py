"""A relay of TCP connections that keeps what the client sent and when it hung up."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import attrs


@attrs.define(eq=False)
class Passage:
    """One connection: what came from the client so far, and when it was at its end.

    ``closed`` is on the monotonic clock, taken when the client's end of stream (or reset) was read
    here; ``None`` while the connection is open.
    """

    sent: bytearray = attrs.field(factory=bytearray)
    closed: float | None = None
    gone: threading.Event = attrs.field(factory=threading.Event)

    def bodies(self) -> Iterator[tuple[str, Any]]:
        """The requests on it that carry JSON: path and body."""
        data = bytes(self.sent)
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:])
            length = int(fields.get("content-length", "0"))
            if length and len(rest) >= length:
                yield lines[0].split()[1], json.loads(rest[:length])
            data = rest[length:]


@attrs.define(eq=False)
class Relay:
    """Passes each connection on to ``target``; one thread for each direction."""

    listener: socket.socket
    target: tuple[str, int]
    passages: list[Passage] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def asked(self, words: str) -> list[tuple[str, Any]]:
        """The requests whose body holds ``words``, oldest connection first: path and body."""
        found = []
        for passage in list(self.passages):
            if words.encode() in passage.sent:
                found += [each for each in passage.bodies() if words in json.dumps(each[1])]
        return found

    def carrying(self, words: str) -> Passage:
        """The last connection on which ``words`` were sent."""
        return next(each for each in reversed(self.passages) if words.encode() in each.sent)

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            passage = Passage()
            self.passages.append(passage)
            for work, args in ((_up, (client, server, passage)), (_down, (server, client))):
                threading.Thread(target=work, args=args, daemon=True).start()


def _up(client: socket.socket, server: socket.socket, passage: Passage) -> None:
    with contextlib.suppress(OSError):  # a reset is an end, too
        while data := client.recv(65_536):
            passage.sent += data
            server.sendall(data)
    passage.closed = time.monotonic()
    passage.gone.set()
    _end(server)


def _down(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError), server, client:
        while data := server.recv(65_536):
            client.sendall(data)
        _end(client)


def _end(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        peer.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(url: str) -> Iterator[Relay]:
    """A relay to the server at ``url`` for as long as the block lasts."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Relay(listener, (host, int(port)))
        thread = threading.Thread(target=made.serve, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
