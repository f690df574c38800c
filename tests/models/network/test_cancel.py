"""Cancelling a request, wherever it is: its connection closes at once, and nothing is left."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from crush_trio import limits
from crush_trio.agent.ports import ModelEvent, StreamReset
from crush_trio.http.connections import Connections
from crush_trio.models.network.model import NetworkModel
from tests.models.kit import request
from tests.models.network.kit import HELLO, asked, model_at, say, text_of
from tests.models.network.provider import (
    STREAM,
    Exchange,
    FakeProvider,
    fake_provider,
    head,
    in_turn,
    sending,
    silent,
    streaming,
    whole,
)

CLOSES_WITHIN_S = 0.25
"""So late at most a provider sees that nobody listens."""


async def hangs_in_the_body(exchange: Exchange) -> None:
    await exchange.send(STREAM, say("Hel"))
    await exchange.closed.wait()


async def hangs_in_the_head(exchange: Exchange) -> None:
    await exchange.send(STREAM[:20])
    await exchange.closed.wait()


async def hangs_in_an_error(exchange: Exchange) -> None:
    await exchange.send(head(500, content_length="100") + b"sorry")
    await exchange.closed.wait()


async def stopped(model: NetworkModel, when: Callable[[], Awaitable[object]]) -> list[ModelEvent]:
    """Ask, and cancel when ``when`` returns; what was streamed until then."""
    events: list[ModelEvent] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(model.stream, request(), events.append)
        await when()
        nursery.cancel_scope.cancel()
    return events


@pytest.mark.parametrize(
    "answer", [silent, hangs_in_the_head, hangs_in_the_body, hangs_in_an_error]
)
async def test_the_provider_sees_a_cancelled_request_close_at_once(
    answer: Callable[[Exchange], Awaitable[None]],
) -> None:
    """Within 250 ms, wherever the answer was."""
    async with asked(answer) as (model, provider, connections):

        async def arrived() -> None:
            await provider.arrived.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)

        await stopped(model, arrived)
        with trio.fail_after(CLOSES_WITHIN_S):
            await provider.exchanges[0].closed.wait()
        assert connections.open_connections == (0, 0)


async def test_what_was_streamed_before_a_cancel_has_been_seen() -> None:
    async with asked(hangs_in_the_body) as (model, provider, _):
        seen = trio.Event()
        events: list[ModelEvent] = []
        async with trio.open_nursery() as nursery:

            def emit(event: ModelEvent) -> None:
                events.append(event)
                seen.set()

            nursery.start_soon(model.stream, request(), emit)
            await seen.wait()
            nursery.cancel_scope.cancel()
        assert text_of(events) == "Hel"
        await provider.exchanges[0].closed.wait()


@attrs.define
class Listener:
    """A peer that takes bytes and never says a word, except perhaps the first."""

    port: int
    greeting: bytes = b""
    accepted: trio.Event = attrs.field(factory=trio.Event)
    closed: trio.Event = attrs.field(factory=trio.Event)

    async def hear(self, stream: trio.SocketStream) -> None:
        """One connection."""
        await stream.receive_some()
        if self.greeting:
            await stream.send_all(self.greeting)
            await stream.receive_some()
        self.accepted.set()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:  # closed with unread bytes
            pass
        self.closed.set()


@asynccontextmanager
async def listening(greeting: bytes = b"") -> AsyncIterator[Listener]:
    """One of those."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = Listener(listeners[0].socket.getsockname()[1], greeting)
        await nursery.start(trio.serve_listeners, listener.hear, listeners)
        yield listener
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 200 Connection established\r\n\r\n"])
@pytest.mark.parametrize("through", ["proxy", "directly"])
async def test_a_handshake_that_hangs_closes_when_cancelled(through: str, greeting: bytes) -> None:
    """TLS, the question to a proxy, and TLS behind a proxy."""
    async with listening(greeting if through == "proxy" else b"") as listener:
        here = f"127.0.0.1:{listener.port}"
        environ = {"HTTPS_PROXY": f"http://{here}"} if through == "proxy" else {}
        url = "https://api.x.test" if through == "proxy" else f"https://{here}"
        async with Connections(environ=environ) as connections:
            await stopped(model_at(url, connections), listener.accepted.wait)
            with trio.fail_after(CLOSES_WITHIN_S):
                await listener.closed.wait()
            assert connections.open_connections == (0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog drops connections on Linux")
async def test_connecting_to_who_does_not_accept_can_be_cancelled() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        async with Connections(environ={}) as connections:
            model = model_at(f"http://127.0.0.1:{full.getsockname()[1]}", connections)
            await connections.ready()
            before = open_files()
            with trio.fail_after(CLOSES_WITHIN_S):
                await stopped(model, partial(trio.testing.wait_all_tasks_blocked, 0.05))
            assert open_files() == before


async def test_the_wait_before_a_retry_can_be_cancelled() -> None:
    async with asked(sending(whole(503, b""))) as (model, provider, connections):
        reset = trio.Event()

        def emit(event: ModelEvent) -> None:
            assert isinstance(event, StreamReset)
            reset.set()

        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(model.stream, request(), emit)
                await reset.wait()
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert len(provider.exchanges) == 1
        assert connections.open_connections == (0, 1)


async def test_two_hundred_cancels_leave_nothing_and_the_next_call_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No connection, socket or task is left, and no place in the pool is lost."""
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 5)
    chance = random.Random(7)
    async with asked(in_turn(*([hangs_in_the_body] * 1_000))) as (model, provider, connections):
        await stopped(model, provider.arrived.wait)
        await gone(provider)
        before = open_files(), trio.lowlevel.current_statistics().tasks_living
        for _ in range(200):
            with trio.move_on_after(chance.random() * 0.006):
                await model.stream(request(), lambda _: None)
        assert connections.open_connections == (0, 0)
        await gone(provider)
        with trio.fail_after(5):  # the provider's own tasks end a moment later
            while (open_files(), trio.lowlevel.current_statistics().tasks_living) != before:  # noqa: ASYNC110  # no event says it
                await trio.sleep(0.01)
        assert len(provider.exchanges) > 20  # not all of them were cancelled before they arrived
        async with fake_provider(streaming(*HELLO)) as other:
            events: list[ModelEvent] = []
            await model_at(other.url, connections).stream(request(), events.append)
            assert text_of(events) == "Hello."


async def test_fifty_streams_at_once_do_not_mix() -> None:
    waiting = trio.Event()

    async def answer(exchange: Exchange) -> None:
        if len(provider.exchanges) == 50:
            waiting.set()
        await waiting.wait()  # so that all of them are open at once
        number = exchange.headers["x-number"]
        await exchange.send(
            STREAM, *[say(f"{number}.") for _ in range(20)], *HELLO[2:], b"0\r\n\r\n"
        )

    async def one(number: int) -> None:
        model = model_at(provider.url, connections, headers={"x-number": str(number)})
        events: list[ModelEvent] = []
        end = await model.stream(request(), events.append)
        assert end.reason == "end_turn"
        assert text_of(events) == f"{number}." * 20

    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        busy, idle = connections.open_connections
        assert busy == 0
        assert 0 < idle <= 16
        assert provider.connections == 50


async def test_closing_the_connections_ends_the_requests_that_still_use_them() -> None:
    async with fake_provider(hangs_in_the_body) as provider:
        connections = Connections(environ={})
        model = model_at(provider.url, connections)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stopped, model, trio.sleep_forever)
            await provider.arrived.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            await connections.aclose()
            with trio.fail_after(CLOSES_WITHIN_S):
                await provider.exchanges[0].closed.wait()
            nursery.cancel_scope.cancel()
        await connections.aclose()
        with pytest.raises(trio.ClosedResourceError):
            connections.client(is_local=True)


async def gone(provider: FakeProvider) -> None:
    """Wait until the provider has no connection left."""
    while provider.open_connections:
        await trio.testing.wait_all_tasks_blocked()


def open_files() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/dev/fd"))
