"""One bounded exchange, over a unix socket and over TCP, with peers that misbehave."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio.client.api import Api
from crush_trio.client.endpoint import TcpEndpoint, UnixEndpoint, peer_uid
from crush_trio.client.errors import BadAnswer, ServerRefused, Unreachable, UnsafeSocket
from crush_trio.client.http import open_http
from tests.client.peer import Peer, Request, tcp_peer, unix_peer


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with unix_peer(tmp_path / "s") as found:
        yield found


async def test_one_connection_carries_many_exchanges(peer: Peer) -> None:
    peer.routes["GET /v1/version"] = (200, {"version": "1"})
    async with open_http(peer.endpoint) as http:
        for _ in range(3):
            assert await Api(http).version() == {"version": "1"}
    assert peer.connections == 1


async def test_a_kept_connection_that_the_server_has_closed_is_replaced(peer: Peer) -> None:
    peer.routes["GET /a"] = (200, {})

    async def hang_up(_: Request) -> None:
        return None

    async with open_http(peer.endpoint) as http:
        await http.exchange("GET", "/a")
        peer.routes["GET /b"] = hang_up
        with pytest.raises(Unreachable, match="hung up"):
            await http.exchange("GET", "/b")  # tried once more on a new connection, then told
    assert [request.path for request in peer.requests] == ["/a", "/b", "/b"]


async def test_a_post_that_is_not_repeatable_is_never_sent_twice(peer: Peer) -> None:
    async def hang_up(_: Request) -> None:
        return None

    peer.routes["GET /a"] = (200, {})
    peer.routes["POST /b"] = hang_up
    async with open_http(peer.endpoint) as http:
        await http.exchange("GET", "/a")
        with pytest.raises(Unreachable):
            await http.exchange("POST", "/b", b"{}")
    assert [request.path for request in peer.requests] == ["/a", "/b"]


async def test_a_silent_server_is_unreachable_after_the_time_limit(peer: Peer) -> None:
    async def silence(_: Request) -> tuple[int, Any]:
        await trio.sleep_forever()
        raise AssertionError

    peer.routes["GET /a"] = silence
    async with open_http(peer.endpoint) as http:
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s") as caught:
            await http.exchange("GET", "/a", timeout=0.05)
    assert not caught.value.refused


async def test_nobody_there_is_unreachable_and_refused(tmp_path: Path) -> None:
    (tmp_path / "dead").write_bytes(b"")
    for endpoint, why in (
        (UnixEndpoint(tmp_path / "none"), "no such file"),
        (UnixEndpoint(tmp_path / "dead"), "connection refused"),
        (UnixEndpoint(tmp_path / ("x" * 200)), "too long"),
        (TcpEndpoint("127.0.0.1", free_port()), "connection refused"),
    ):
        async with open_http(endpoint) as http:
            with pytest.raises(Unreachable, match=why) as caught:
                await http.exchange("GET", "/")
        assert caught.value.refused


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_something_that_is_no_http_server_is_a_bad_answer(tmp_path: Path) -> None:
    async def ssh(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"SSH-2.0-OpenSSH\r\n\r\n")

    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "s"))
    sock.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, ssh, [trio.SocketListener(sock)])
        async with open_http(UnixEndpoint(tmp_path / "s")) as http:
            with pytest.raises(BadAnswer, match="does not speak HTTP"):
                await http.exchange("GET", "/")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("body", "code", "message", "retryable"),
    [
        (
            b'{"message": "later", "code": "queue_full", "retryable": true}',
            "queue_full",
            "later",
            1,
        ),
        (b'{"message": "no"}', "http_429", "no", 0),
        (b"<html>", "http_429", "the server answered 429 without a reason", 0),
        (b"[]", "http_429", "the server answered 429 without a reason", 0),
    ],
)
async def test_a_refusal_keeps_what_the_server_said(
    peer: Peer, body: bytes, code: str, message: str, retryable: int
) -> None:
    peer.routes["POST /v1/workspaces/w/agent"] = (429, body)
    async with open_http(peer.endpoint) as http:
        with pytest.raises(ServerRefused) as caught:
            await Api(http).submit("w", {"run_id": "r"})
    error = caught.value
    found = (error.status, error.code, error.message, error.retryable)
    assert found == (429, code, message, bool(retryable))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff"])
async def test_an_answer_of_the_wrong_shape_is_a_bad_answer(peer: Peer, body: bytes) -> None:
    peer.routes["GET /v1/version"] = (200, body)
    async with open_http(peer.endpoint) as http:
        with pytest.raises(BadAnswer, match="the version"):
            await Api(http).version()


async def test_the_token_travels_in_a_header_and_ids_are_quoted() -> None:
    async with tcp_peer() as peer:
        peer.routes["DELETE /v1/workspaces/a%2Fb/sessions/x%3Fy"] = (200, b"")
        async with open_http(peer.endpoint, "secret") as http:
            await Api(http).delete_session("a/b", "x?y")
    [request] = peer.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["host"] == peer.endpoint.host_header


async def test_two_tasks_may_ask_at_once(peer: Peer) -> None:
    both = trio.Event()
    asked = []

    async def meet(request: Request) -> tuple[int, Any]:
        asked.append(request.path)
        if len(asked) == 2:
            both.set()
        await both.wait()
        return 200, {}

    peer.routes |= {"GET /a": meet, "GET /b": meet}
    async with open_http(peer.endpoint) as http, trio.open_nursery() as nursery:
        nursery.start_soon(http.exchange, "GET", "/a")
        nursery.start_soon(http.exchange, "GET", "/b")
    assert sorted(asked) == ["/a", "/b"]


async def test_a_socket_of_another_user_gets_not_one_byte(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T9: whoever squats the socket's path learns neither prompt nor token."""
    import crush_trio.client.endpoint as endpoint_module

    monkeypatch.setattr(endpoint_module, "peer_uid", lambda sock: 12345)
    async with open_http(peer.endpoint, "secret") as http:
        with pytest.raises(UnsafeSocket, match="served by user 12345"):
            await http.exchange("POST", "/v1/workspaces", b"{}")
    assert peer.requests == []


async def test_the_peer_of_our_own_socket_is_us() -> None:
    import os

    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) in (os.getuid(), None)
