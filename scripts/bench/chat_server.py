"""A provider in a process of its own: Chat Completions on loopback, raw sockets, little work.

    python -I -S chat_server.py

Standard library only. The first line of stdout is its port; ends with stdin. What it streams is
the model's name: ``paced-N-MS`` is N pieces, one each MS milliseconds, whose text is the monotonic
time in ns at which they are written; ``fast-N`` is N tokens as fast as they are taken. Every piece
is a chunk of HTTP by itself. A request for a title (it offers no tools) gets one word.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

TOKEN = " token"
BLOCK_BYTES = 16 * 1024
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"connection: keep-alive\r\n\r\n"
)
SHAPE = (
    '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1763866800,"model":"bench",'
    '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]%s}'
)
USAGE = ',"usage":{"prompt_tokens":100,"completion_tokens":%d,"total_tokens":%d}'


def chunk(data: str) -> bytes:
    """A server-sent event as one chunk of HTTP."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def piece(text: str) -> bytes:
    """A piece of the answer."""
    return chunk(SHAPE % (json.dumps({"content": text}), "null", ""))


def end(count: int) -> bytes:
    """What comes after the last piece."""
    last = SHAPE % ("{}", '"stop"', USAGE % (count, count + 100))
    return chunk(last) + chunk("[DONE]") + b"0\r\n\r\n"


def answer(model: str) -> Iterator[bytes]:
    """The pieces of an answer, each to be written at once, on their beat."""
    kind, *numbers = model.split("-")
    if kind == "paced":
        count, every_s = int(numbers[0]), int(numbers[1]) / 1000
        begun = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begun + number * every_s - time.monotonic()))
            yield piece(str(time.monotonic_ns()))
    else:
        count = int(numbers[0])
        token = piece(TOKEN)
        block = BLOCK_BYTES // len(token)
        for start in range(0, count, block):
            yield token * min(block, count - start)
    yield end(count)


def serve(connection: socket.socket) -> None:
    """Answer the requests of one connection."""
    waiting = b""
    with connection, suppress(OSError):  # whoever asks may leave
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in waiting:
                data = connection.recv(1 << 16)
                if not data:
                    return
                waiting += data
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            sizes = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
            while len(waiting) < sum(sizes):
                waiting += connection.recv(1 << 20)
            body, waiting = json.loads(waiting[: sum(sizes)]), waiting[sum(sizes) :]
            connection.sendall(HEAD)
            for data in answer(body["model"] if "tools" in body else "fast-1"):
                connection.sendall(data)


def main() -> None:
    """Accept until stdin ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    while os.read(0, 1024):
        pass


if __name__ == "__main__":
    main()
