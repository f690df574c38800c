"""Each correction to Hypercorn and Quart-Trio against a real socket; without it, its test fails."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import websocket
from quart_trio.wrappers import TrioResponse

from crush_trio.limits import LINGER_S
from crush_trio.server.edge import http1, hypercorn_fixes
from crush_trio.server.edge.answers import json_response
from crush_trio.server.edge.app_base import EdgeApp, create_quart_app
from crush_trio.server.edge.call import accept_websocket, current_call
from crush_trio.server.edge.gate import Gate
from crush_trio.server.edge.sockets import TcpBind
from tests.server.edge_kit import Running, Wire, serving

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)


class Watched:
    """What happened to the handlers of the app under test."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.messages: list[Any] = []


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def app(watched: Watched) -> EdgeApp:
    app = create_quart_app(Gate(uid=os.getuid()))

    @app.get("/quick")
    async def quick() -> TrioResponse:
        return json_response(b'"quick"')

    @app.post("/ignores")
    async def ignores() -> TrioResponse:
        return json_response(b'"ignored"')

    @app.get("/peer")
    async def peer() -> TrioResponse:
        one = current_call().peer
        return json_response(f"[{one.pid},{one.uid},{one.gid}]".encode())

    @app.get("/takes/<float:seconds>")
    async def takes(seconds: float) -> TrioResponse:
        watched.begun.set()
        try:
            await trio.sleep(seconds)
        finally:
            watched.ended.set()
        return json_response(b'"done"')

    @app.websocket("/flood")
    async def flood() -> None:
        await accept_websocket()
        watched.begun.set()
        try:
            while True:
                await websocket.send("x" * 65536)
        finally:
            watched.ended.set()

    @app.websocket("/listen")
    async def listen() -> None:
        await accept_websocket()
        watched.begun.set()
        try:
            while True:
                watched.messages.append(await websocket.receive())
        finally:
            watched.ended.set()

    @app.websocket("/fails")
    async def fails() -> None:
        await accept_websocket()
        raise ValueError("a bug in a handler")

    return app


async def upgrade(server: Running, path: str, more: str = "") -> tuple[Wire, str]:
    """A connection on which the server has accepted (or refused) an upgrade, and its answer."""
    wire = await server.connect()
    await wire.send(UPGRADE.format(path=path, more=more))
    head = b""
    while b"\r\n\r\n" not in head:
        got = await wire.stream.receive_some(1)
        if not got:
            break
        head += got
    return wire, head.decode("latin1").lower()


def frame(payload: bytes, opcode: int = 1, first: int = 0x80) -> bytes:
    """A masked frame from a client (the mask is zero)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        length = bytes([0x80 | 127]) + struct.pack("!Q", size)
    return bytes([first | opcode]) + length + bytes(4) + payload


# --- A: what happens after the answer ------------------------------------------------------


async def test_connection_close_is_obeyed_at_once(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        answer = await wire.request("GET", "/quick", {"Connection": "close"})
        assert answer.status == 200
        assert await wire.seconds_to_eof(within=2) < 1


async def test_an_idle_keep_alive_connection_ends_at_its_timeout(
    app: EdgeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypercorn_fixes, "KEEP_ALIVE_S", 0.3)
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        for _ in range(3):
            assert (await wire.request("GET", "/quick")).status == 200
            await trio.sleep(0.2)  # within the timeout, which begins again with each request
        assert await wire.seconds_to_eof(within=2) < 1


async def test_an_answer_that_nobody_takes_is_no_error(
    app: EdgeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler is cut off after the head; Hypercorn would put a 500 behind it."""
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        wire.stream.socket.shutdown(socket.SHUT_RD)  # the head meets a broken pipe
        await wire.send("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await (await server.connect()).request("GET", "/quick")).status == 200
    assert caplog.text == ""


async def test_a_connection_survives_100_posts_whose_body_nobody_looks_at(
    app: EdgeApp, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        for number in range(100):
            # The body comes late, so that a handler that does not wait for it would be first.
            with trio.fail_after(5):
                answer = await wire.request("POST", "/ignores", body=b'{"n": %d}' % number)
            assert answer.status == 200
            assert "connection" not in answer.headers


# --- B: sends are bounded ------------------------------------------------------------------


async def test_a_send_to_a_client_that_stops_reading_ends_at_its_bound(
    app: EdgeApp, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypercorn_fixes, "SEND_BLOCKED_S", 0.5)
    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/flood")
        with trio.fail_after(5):
            await watched.ended.wait()
        assert await wire.seconds_to_eof(within=2) < 1


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_client_that_stops_reading_cannot_hold_up_the_end(
    app: EdgeApp, watched: Watched, tmp_path: Path, tcp: bool
) -> None:
    app.gate = Gate(uid=os.getuid(), bound=frozenset({("localhost", 80)}))
    app.before_websocket_funcs.clear()  # the token is not what this is about
    async with serving(app, TcpBind("127.0.0.1", 0) if tcp else tmp_path) as server:
        wire, head = await upgrade(server, "/flood")
        assert "101" in head
        await watched.begun.wait()
        await trio.sleep(0.3)  # long enough to have filled the kernel's buffers
        assert await server.seconds_to_end(within=5) < 2
        assert watched.ended.is_set()
        wire.close()


async def test_a_peer_that_leaves_wakes_a_blocked_send(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/flood")
        await watched.begun.wait()
        await trio.sleep(0.2)
        wire.close()
        with trio.fail_after(2):
            await watched.ended.wait()


# --- the end of the server -----------------------------------------------------------------


async def test_the_end_does_not_wait_for_idle_connections(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path, graceful_timeout_s=5) as server:
        fresh, used = await server.connect(), await server.connect()
        assert (await used.request("GET", "/quick")).status == 200
        assert await server.seconds_to_end(within=4) < 1
        assert await fresh.seconds_to_eof(within=1) < 1
        assert await used.seconds_to_eof(within=1) < 1


async def test_the_end_waits_for_a_request_that_is_nearly_done(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    async with serving(app, tmp_path, graceful_timeout_s=5) as server:
        wire = await server.connect()
        await wire.send("GET /takes/0.2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await watched.begun.wait()
        # Less than the time we take in what a peer still sends: this one sends nothing more.
        assert 0.1 < await server.seconds_to_end(within=4) < 0.2 + LINGER_S
        answer = await wire.answer()
        assert (answer.json, answer.headers["connection"]) == ("done", "close")


@pytest.mark.parametrize("what", ["long request", "open websocket"])
async def test_the_end_comes_within_its_bound(
    app: EdgeApp, watched: Watched, tmp_path: Path, what: str
) -> None:
    async with serving(app, tmp_path, graceful_timeout_s=0.5) as server:
        if what == "long request":
            wire = await server.connect()
            await wire.send("GET /takes/60.0 HTTP/1.1\r\nHost: x\r\n\r\n")
        else:
            wire, _ = await upgrade(server, "/listen")
        await watched.begun.wait()
        assert 0.4 < await server.seconds_to_end(within=4) < 2
        assert watched.ended.is_set()
        assert await wire.seconds_to_eof(within=1) < 1


async def test_new_connections_are_refused_as_soon_as_the_end_begins(
    app: EdgeApp, watched: Watched
) -> None:
    async with serving(app, TcpBind("127.0.0.1", 0), graceful_timeout_s=2) as server:
        app.before_request_funcs.clear()
        wire = await server.connect()
        await wire.send("GET /takes/1.0 HTTP/1.1\r\nHost: x\r\n\r\n")
        await watched.begun.wait()
        server.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="all attempts to connect"):
            await server.connect()
        assert not server.ended.is_set()


async def test_a_cancellation_from_outside_ends_everything_at_once(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    started = trio.current_time()
    with trio.move_on_after(0.5):
        async with serving(app, tmp_path, graceful_timeout_s=60) as server:
            await upgrade(server, "/flood")
            await trio.sleep_forever()
    assert watched.ended.is_set()
    assert trio.current_time() - started < 2


async def test_an_error_in_one_connection_ends_that_connection_only(
    app: EdgeApp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(self: http1.Http1, event: object) -> None:
        raise RuntimeError("a bug below the application")

    async with serving(app, tmp_path) as server:
        bad, good = await server.connect(), await server.connect()
        with monkeypatch.context() as patch:
            patch.setattr(http1.Http1, "handle", fail)
            await bad.send("GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
            await bad.seconds_to_eof(within=2)
        assert (await good.request("GET", "/quick")).status == 200
    assert "a bug below the application" in caplog.text


# --- what a connection is ------------------------------------------------------------------


async def test_accepted_tcp_connections_do_not_delay_small_frames() -> None:
    seen: list[int] = []

    class Probe(hypercorn_fixes.Connection):
        async def run(self) -> None:
            seen.append(self.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await super().run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypercorn_fixes, "Connection", Probe)
        app = create_quart_app(Gate(uid=os.getuid()))
        async with serving(app, TcpBind("127.0.0.1", 0)) as server:
            wire = await server.connect()
            await wire.request("GET", "/healthz", host=f"localhost:{server.port}")
    assert seen
    assert all(seen)


async def test_a_handler_knows_the_process_at_the_other_end(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        answer = await (await server.connect()).request("GET", "/peer")
        assert answer.json == [os.getpid(), os.getuid(), os.getgid()]


async def test_no_compression_of_frames_is_ever_accepted(app: EdgeApp, tmp_path: Path) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    async with serving(app, tmp_path) as server:
        _, head = await upgrade(server, "/listen", offer)
        assert head.startswith("http/1.1 101")
        assert "extensions" not in head


async def test_http2_is_refused_in_words(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.code) == (505, "bad_request")
        assert await wire.seconds_to_eof(within=3) < 2


async def test_an_offer_of_h2c_is_answered_in_http1(app: EdgeApp, tmp_path: Path) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    async with serving(app, tmp_path) as server:
        answer = await (await server.connect()).request("GET", "/quick", offer)
        assert (answer.status, answer.json) == (200, "quick")


@pytest.mark.parametrize("request_line", ["GET / HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n"])
async def test_bytes_that_are_not_a_request_get_json_and_the_end(
    app: EdgeApp, tmp_path: Path, request_line: str
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send(request_line)
        answer = await wire.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert await wire.seconds_to_eof(within=3) < 2


@pytest.mark.parametrize("slowly", [False, True])
async def test_headers_are_bounded_however_they_arrive(
    app: EdgeApp, tmp_path: Path, slowly: bool
) -> None:
    head = b"GET /quick HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"X-%d: %s\r\n" % (number, b"y" * 500) for number in range(60)
    )
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        if slowly:  # and without an end
            for start in range(0, len(head), 4000):
                await wire.send(head[start : start + 4000])
                await trio.testing.wait_all_tasks_blocked(0.01)
        else:
            await wire.send(head + b"\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.code) == (431, "headers_too_large")


async def test_headers_that_never_end_are_not_waited_for(
    app: EdgeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypercorn_fixes, "HEADERS_TIMEOUT_S", 0.5)
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        assert (await wire.request("GET", "/quick")).status == 200
        await wire.send("GET /quick HTTP/1.1\r\n")

        async def drip() -> None:
            with suppress(trio.BrokenResourceError):  # hung up on, as it should be
                while True:
                    await trio.sleep(0.1)
                    await wire.send("X-More: y\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            elapsed = await wire.seconds_to_eof(within=3)
            nursery.cancel_scope.cancel()
        assert 0.3 < elapsed < 2


# --- websockets ----------------------------------------------------------------------------


async def test_a_broken_handshake_gets_json_and_the_end(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send(UPGRADE.format(path="/listen", more="").replace("13", "7"))
        answer = await wire.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert await wire.seconds_to_eof(within=3) < 2


async def test_a_handler_that_fails_closes_with_1011_not_1000(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/fails")
        close = await wire.stream.receive_some(100)
        assert close[0] == 0x88
        assert struct.unpack("!H", close[2:4]) == (1011,)


async def test_an_empty_binary_message_is_an_empty_message(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/listen")
        await wire.send(frame(b"", opcode=2) + frame(b"", opcode=1) + frame(b"end"))
        await wire.send(frame(b"", opcode=8))
        with trio.fail_after(2):
            await watched.ended.wait()
        assert watched.messages == [b"", "", "end"]


async def test_a_message_that_is_too_large_ends_the_connection(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/listen")
        await wire.send(frame(b"x" * 65536))  # the largest that is taken
        for part in range(200):
            await wire.send(frame(b"x" * 65536, opcode=0 if part else 1, first=0))
        with trio.fail_after(2):
            await watched.ended.wait()
        assert [len(message) for message in watched.messages] == [65536]
        close = await wire.stream.receive_some(4)
        assert struct.unpack("!H", close[2:4]) == (1009,)
        assert await wire.seconds_to_eof(within=3) < 2


async def test_a_disconnect_cancels_the_handler(
    app: EdgeApp, watched: Watched, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("GET /takes/60.0 HTTP/1.1\r\nHost: x\r\n\r\n")
        await watched.begun.wait()
        wire.close()
        with trio.fail_after(2):
            await watched.ended.wait()


async def test_a_close_code_reaches_the_client_and_a_refusal_comes_before_the_upgrade(
    app: EdgeApp, tmp_path: Path
) -> None:
    @app.websocket("/closes")
    async def closes() -> None:
        await accept_websocket()
        await websocket.close(4404, "gone")

    async with serving(app, tmp_path) as server:
        wire, _ = await upgrade(server, "/closes")
        close = await wire.stream.receive_some(100)
        assert struct.unpack("!H", close[2:4]) == (4404,)

        wire = await server.connect()
        await wire.send(UPGRADE.format(path="/nowhere", more=""))
        answer = await wire.answer()
        assert (answer.status, answer.code) == (404, "not_found")
        assert await wire.seconds_to_eof(within=3) < 2
