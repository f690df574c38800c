"""The bare loops that a run's stream is compared with: they read the same answers, and no more.

    python bare_reader.py PORT socket|httpx MODEL COUNT

``socket`` is one loop over COUNT raw sockets, ``httpx`` COUNT tasks that iterate over an answer's
lines; both parse each event's JSON and take its text. One line of JSON on stdout when all answers
have ended: how many tokens, when the first and the last came (monotonic ns), and the percentiles
of how long the stamped ones were on their way.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Any

import orjson

STAMP_DIGITS = 12
BODY: dict[str, Any] = {
    "stream": True,
    "messages": [{"role": "user", "content": "go"}],
    "tools": [],
}


class Tally:
    """What all answers together were."""

    def __init__(self) -> None:
        self.tokens = self.first_ns = self.last_ns = self.characters = 0
        self.lags: list[int] = []

    def line(self, line: bytes | str, now: int) -> bool:
        """Take a line of an answer; whether it was its last."""
        mark = "data: " if isinstance(line, str) else b"data: "
        if not line.startswith(mark):  # type: ignore[arg-type]
            return False
        data = line[len(mark) :]
        if data in ("[DONE]", b"[DONE]"):
            return True
        text = orjson.loads(data)["choices"][0]["delta"].get("content")
        if text:
            self.first_ns = self.first_ns or now
            self.last_ns = now
            self.tokens += 1
            self.characters += len(text)
            if len(text) > STAMP_DIGITS:
                self.lags.append(now - int(text))
        return False

    def summary(self) -> str:
        """The line for stdout."""
        lags = sorted(self.lags)
        shares = [lags[int(len(lags) * share)] for share in (0.5, 0.95)] if lags else None
        times = {"first_ns": self.first_ns, "last_ns": self.last_ns}
        return json.dumps({"tokens": self.tokens, **times, "lags": shares})


def by_socket(port: int, model: str, count: int) -> Tally:
    """Read with one loop over raw sockets."""
    body = orjson.dumps({**BODY, "model": model})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    selector, tally = selectors.DefaultSelector(), Tally()
    halves: dict[socket.socket, bytes] = {}
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head.encode() + body)
        halves[connection] = b""
        selector.register(connection, selectors.EVENT_READ)
    while halves:
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(1 << 16)
            now = time.monotonic_ns()
            *lines, halves[connection] = (halves[connection] + data).split(b"\n")
            ended = [tally.line(line.rstrip(b"\r"), now) for line in lines]
            if any(ended) or not data:
                selector.unregister(connection)
                del halves[connection]
                connection.close()
    return tally


def by_httpx(port: int, model: str, count: int) -> Tally:
    """Read with the HTTP library that the server uses, as its documentation shows."""
    import httpx2
    import trio

    tally = Tally()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def one(client: httpx2.AsyncClient) -> None:
        async with client.stream("POST", url, json={**BODY, "model": model}) as response:
            async for line in response.aiter_lines():
                tally.line(line, time.monotonic_ns())

    async def every() -> None:
        limits = httpx2.Limits(max_connections=count)
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(count):
                nursery.start_soon(one, client)

    trio.run(every)
    return tally


def main() -> None:
    """Read and report."""
    port, how, model, count = sys.argv[1:]
    read = {"socket": by_socket, "httpx": by_httpx}[how]
    print(read(int(port), model, int(count)).summary(), flush=True)


if __name__ == "__main__":
    main()
