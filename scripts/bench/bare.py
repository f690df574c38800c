"""The bare handlers that the server is compared with: the same stack, nothing behind it.

    python bare.py SOCKET [--plain]

Quart-Trio on Hypercorn behind our own edge (gate, access log, bounded sends), and then only this:
``POST /accept`` decodes its body, publishes one event and answers 202; ``POST /play`` publishes
deltas of the size of ours; ``/ws`` hands each subscriber what is published, through one memory
channel each, every event in a frame of its own (``mode=each``: a bare ``websocket.send``) or
what waits joined in one frame (``mode=join``). ``--plain`` serves one route without anything of
ours, not even the edge: the floor for memory and start. Ends with stdin.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

JOIN_BYTES = 64 * 1024
PIECES_PER_CHECKPOINT = 32  # as the scripted model
RECEIPT = (
    b'{"run_id":"abcdefghijklm","session_id":"abcdefghijklm","seq":1,"disposition":"started",'
    b'"position":0,"ignored":[]}'
)


class Hub:
    """One memory channel for each subscriber."""

    def __init__(self) -> None:
        self.channels: set[trio.MemorySendChannel[bytes]] = set()
        self.stop = trio.Event()

    @contextmanager
    def subscriber(self) -> Any:
        """The receiving end for one subscriber."""
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self.channels.add(send)
        try:
            yield receive
        finally:
            self.channels.discard(send)

    def publish(self, data: bytes) -> None:
        """Hand ``data`` to every subscriber, without waiting."""
        for channel in self.channels:
            channel.send_nowait(data)


def _delta(offset: int, text: str) -> bytes:
    import orjson

    return orjson.dumps(
        {
            "type": "message_delta",
            "message_id": "abcdefghijklm",
            "session_id": "abcdefghijklm",
            "run_id": "abcdefghijklm",
            "index": 0,
            "part": "text",
            "offset": offset,
            "text": text,
        }
    )


TERMINAL = (
    b'{"seq":1,"type":"run_complete","payload":{"type":"updated","payload":'
    b'{"run_id":"abcdefghijklm"}}}'
)


async def play(hub: Hub, tokens: int, every_ms: float) -> None:
    """Publish ``tokens`` deltas, on a beat or as fast as they are taken, and the end."""
    start = trio.current_time()
    for count in range(tokens):
        if every_ms:
            await trio.sleep_until(start + count * every_ms / 1000)
        text = str(_monotonic_ns()) if every_ms else "word "
        hub.publish(_delta(count * 5, text))
        if not every_ms and count % PIECES_PER_CHECKPOINT == PIECES_PER_CHECKPOINT - 1:
            await trio.lowlevel.checkpoint()
    hub.publish(TERMINAL)


def _monotonic_ns() -> int:
    import time

    return time.monotonic_ns()


def _edge_app(hub: Hub, nursery: trio.Nursery, directory: Path) -> Any:
    import orjson
    from quart import websocket

    from crush_trio.server.edge.access_log import AccessLog
    from crush_trio.server.edge.answers import json_response
    from crush_trio.server.edge.app_base import create_quart_app
    from crush_trio.server.edge.call import accept_websocket, current_call
    from crush_trio.server.edge.gate import Gate

    app = create_quart_app(Gate(uid=os.getuid()), AccessLog(directory / "access.log"))

    @app.post("/accept")
    async def accept() -> Any:
        orjson.loads(current_call().body)
        hub.publish(TERMINAL)
        return json_response(RECEIPT, 202)

    @app.post("/play")
    async def start() -> Any:
        body = orjson.loads(current_call().body)
        nursery.start_soon(play, hub, body["tokens"], body["every_ms"])
        return json_response(b"{}", 202)

    @app.websocket("/ws")
    async def subscribe() -> None:
        send = send_each if websocket.args["mode"] == "each" else send_joined
        with hub.subscriber() as receive:
            await accept_websocket()
            await websocket.send('[{"type":"replayed"}]')
            await send(receive)

    async def send_each(receive: trio.MemoryReceiveChannel[bytes]) -> None:
        async for data in receive:
            await websocket.send(data.decode())

    async def send_joined(receive: trio.MemoryReceiveChannel[bytes]) -> None:
        async for data in receive:
            batch, size = [data], len(data)
            with suppress(trio.WouldBlock):
                while size < JOIN_BYTES:
                    batch.append(receive.receive_nowait())
                    size += len(batch[-1])
            await websocket.send((b"[%b]" % b",".join(batch)).decode())

    return app


async def serve_edge(path: Path) -> None:
    """Serve the bare handlers behind our edge."""
    from functools import partial

    from crush_trio.server.edge.hypercorn_fixes import serve_http
    from crush_trio.server.edge.sockets import UnixBind, bind

    hub = Hub()
    with bind(UnixBind(path)) as bound:
        async with trio.open_nursery() as nursery:
            app = _edge_app(hub, nursery, path.parent)
            await nursery.start(
                partial(serve_http, app, [bound.listener], stop=hub.stop, graceful_timeout_s=1.0)
            )
            _announce()


async def serve_plain(path: Path) -> None:
    """Serve one route on the plain stack."""
    from hypercorn.config import Config
    from hypercorn.trio import serve
    from quart_trio import QuartTrio

    app = QuartTrio(__name__)

    @app.get("/healthz")
    async def alive() -> str:
        return "ok"

    config = Config()
    config.bind = [f"unix:{path}"]
    config.accesslog = config.errorlog = None
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, app, config)
        _announce()


def _announce() -> None:
    print("listening", flush=True)


def end_with_stdin() -> None:
    """So that a server never outlives a benchmark that was killed."""
    while os.read(0, 1024):  # not `sys.stdin`, which the interpreter locks at its end
        pass
    os._exit(0)


def main() -> None:
    """Serve."""
    threading.Thread(target=end_with_stdin, daemon=True).start()
    path = Path(sys.argv[1])
    trio.run(serve_plain if "--plain" in sys.argv[2:] else serve_edge, path)


if __name__ == "__main__":
    main()
