"""The connections of a server: when they are made, kept and closed."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
import zlib

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ModelError, ModelEvent
from crush_trio.http.connections import Connections
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.network.get import get
from tests.models.kit import request
from tests.models.network.kit import (
    HELLO,
    asked,
    asked_in_memory,
    model_at,
    resets,
    say,
    text_of,
)
from tests.models.network.provider import (
    END,
    STREAM,
    Answering,
    Exchange,
    chunk,
    fake_provider,
    head,
    in_turn,
    sending,
    silent,
    streaming,
    whole,
)

HELLO_ANSWER = streaming(*HELLO)


def test_a_server_that_asks_nobody_does_not_pay_for_it() -> None:
    """What is needed to ask is loaded in a thread when it is, so that nobody has to wait."""
    code = (
        "import sys, threading, trio, crush_trio.server.serve\n"
        "from crush_trio.http.connections import Connections\n"
        "connections = Connections()\n"
        "print([name for name in sys.modules if name.startswith(('httpx', 'httpcore'))])\n"
        "class Watch:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'httpx2':\n"
        "            print(threading.current_thread() is threading.main_thread())\n"
        "sys.meta_path.insert(0, Watch())\n"
        "trio.run(connections.ready)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["[]", "False"]


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with asked(HELLO_ANSWER) as (model, provider, connections):
        for _ in range(3):
            await model.stream(request(), lambda _: None)
        assert provider.connections == 1
        assert connections.open_connections == (0, 1)


async def test_a_connection_is_kept_for_its_own_provider_only() -> None:
    async with (
        fake_provider(streaming(say("one"), *HELLO[2:])) as one,
        fake_provider(streaming(say("two"), *HELLO[2:])) as two,
        Connections(environ={}) as connections,
    ):
        for provider, said in ((one, "one"), (two, "two"), (one, "one")):
            events: list[ModelEvent] = []
            await model_at(provider.url, connections).stream(request(), events.append)
            assert text_of(events) == said
        assert (one.connections, two.connections) == (1, 1)


async def test_a_kept_connection_that_has_ended_is_no_failure() -> None:
    """It closed while nobody used it: no retry is counted, no wait, no event."""

    async def answer(exchange: Exchange) -> None:
        await HELLO_ANSWER(exchange)
        await exchange.hang_up()

    async with asked(answer) as (model, provider, _):
        for _ in range(3):
            events: list[ModelEvent] = []
            await model.stream(request(), events.append)
            assert (text_of(events), resets(events)) == ("Hello.", [])
        assert provider.connections == 3


async def test_a_kept_connection_that_ends_while_it_is_asked_is_no_failure() -> None:
    async def hang_up(exchange: Exchange) -> None:
        await exchange.hang_up()

    async with asked(in_turn(HELLO_ANSWER, hang_up, HELLO_ANSWER)) as (model, provider, _):
        for _ in range(2):
            events: list[ModelEvent] = []
            await model.stream(request(), events.append)
            assert (text_of(events), resets(events)) == ("Hello.", [])
        assert len(provider.exchanges) == 3
        assert provider.connections == 2


async def test_what_comes_unasked_is_not_the_next_answer() -> None:
    async def says_more(exchange: Exchange) -> None:
        await HELLO_ANSWER(exchange)
        await exchange.send(whole(408, b"too slow", connection="close"))

    async with asked(in_turn(says_more, HELLO_ANSWER)) as (model, provider, _):
        for _ in range(2):
            events: list[ModelEvent] = []
            await model.stream(request(), events.append)
            assert (text_of(events), resets(events)) == ("Hello.", [])
            await trio.testing.wait_all_tasks_blocked(0.01)  # it has come by now
        assert provider.connections == 2


async def test_a_connection_unused_for_long_is_not_used_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MODEL_ACCESS_S", math.inf)  # time must not jump to it
    async with asked_in_memory(HELLO_ANSWER) as (model, provider, _):
        for wait_s, connections in ((limits.HTTP_KEEP_S - 1, 1), (limits.HTTP_KEEP_S, 2)):
            await model.stream(request(), lambda _: None)
            await trio.sleep(wait_s)
            await model.stream(request(), lambda _: None)
            assert provider.connections == connections


async def test_who_says_it_is_done_and_goes_on_is_left() -> None:
    """An answer that is not read to its end never leaves its connection to the next request."""

    async def goes_on(exchange: Exchange) -> None:
        await exchange.send(STREAM, *HELLO)
        await exchange.closed.wait()

    async with asked(goes_on) as (model, provider, connections):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
        assert text_of(events) == "Hello."
        assert connections.open_connections == (0, 0)
        with trio.fail_after(0.25):
            await provider.exchanges[0].closed.wait()


async def test_an_answer_that_closes_is_not_kept() -> None:
    body = b"".join(HELLO)
    closing = head(
        200, content_type="text/event-stream", transfer_encoding="chunked", connection="close"
    )
    async with asked(sending(closing + body + END)) as (model, _, connections):
        await model.stream(request(), lambda _: None)
        assert connections.open_connections == (0, 0)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_read_all_the_same(encoding: str) -> None:
    plain = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    packed = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)
    pieces = [chunk(packed[place : place + 7]) for place in range(0, len(packed), 7)]
    begin = head(
        200,
        content_type="text/event-stream",
        content_encoding=encoding,
        transfer_encoding="chunked",
    )
    async with asked(sending(begin + b"".join(pieces) + END)) as (model, _, _):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
        assert text_of(events) == "Hi"


async def test_who_is_not_there_is_named_with_the_reason_and_asked_again() -> None:
    async with Connections(environ={}) as connections, trio.open_nursery() as nursery:
        causes: list[str] = []

        def emit(event: ModelEvent) -> None:
            causes.extend(reset.cause for reset in resets([event]))
            nursery.cancel_scope.cancel()

        await model_at("http://no.such.host.invalid", connections).stream(request(), emit)
    assert "cannot be found" in causes[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_where_nothing_listens_on_this_machine_nobody_waits_for_it(host: str) -> None:
    events: list[ModelEvent] = []
    async with Connections(environ={}) as connections:
        with pytest.raises(ModelError) as raised:
            await model_at(f"http://{host}:1", connections).stream(request(), events.append)
    assert raised.value.code == Kind.NETWORK.value
    assert raised.value.retryable
    assert f"Nothing listens on {host}:1: start the model server" in raised.value.message
    assert resets(events) == []


# --- one small GET ------------------------------------------------------------------------


async def test_a_get_gives_whatever_answer_there_is() -> None:
    async with (
        fake_provider(sending(whole(418, b"tea", x_kind="Pot"))) as provider,
        Connections(environ={}) as connections,
    ):
        answer = await get(connections, f"{provider.url}/x?y=1", headers={"x-a": "b"})
        assert (answer.status, answer.body, answer.headers["x-kind"]) == (418, b"tea", "Pot")
        assert provider.exchanges[0].target == "/x?y=1"
        assert provider.exchanges[0].headers["x-a"] == "b"
        assert provider.exchanges[0].body == b""
        assert connections.open_connections == (0, 1)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (silent, Kind.SILENT, "did not answer within 0.05 s."),
        (sending(whole(200, b"x" * 101)), Kind.MALFORMED, "exceeds 100 bytes."),
        (sending(head(200, content_length="9") + b"x", then_close=True), Kind.TRUNCATED, "broke"),
        (sending(b"", then_close=True), Kind.NETWORK, "closed the connection without an answer."),
    ],
    ids=["silent", "long", "cut", "closed"],
)
async def test_a_get_is_bounded_in_time_and_size(answer: Answering, kind: Kind, words: str) -> None:
    async with (
        fake_provider(answer) as provider,
        Connections(environ={}) as connections,
    ):
        within_s = 0.05 if kind is Kind.SILENT else 5.0
        with pytest.raises(Failure, match=words) as caught:
            await get(connections, provider.url, within_s=within_s, most_bytes=100)
        assert caught.value.kind is kind
        assert connections.open_connections == (0, 0)


async def test_no_cookie_is_sent_back() -> None:
    """Requests of one session must not be told from another's by what is kept in between."""
    async with (
        fake_provider(sending(whole(200, b"", set_cookie="a=b; Path=/"))) as provider,
        Connections(environ={}) as connections,
    ):
        for _ in range(2):
            await get(connections, provider.url)
        assert all("cookie" not in exchange.headers for exchange in provider.exchanges)


async def test_a_get_follows_nobody() -> None:
    async with (
        fake_provider(sending(whole(302, b"", location="http://127.0.0.1:1/"))) as provider,
        Connections(environ={}) as connections,
    ):
        assert (await get(connections, provider.url)).status == 302


async def test_an_event_that_is_too_long_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_RETRIES", 0)
    async with asked(streaming(say("x" * 1_000_000), *[say("y")] * 3, *HELLO)) as (model, _, _):
        await model.stream(request(), lambda _: None)
    line = [chunk(b"data: " + b"x" * 4_000_000)] + [chunk(b"x" * 4_000_000)] * 8
    async with asked(streaming(*line)) as (model, _, connections):
        with pytest.raises(ModelError, match="longer than 33554432 bytes"):
            await model.stream(request(), lambda _: None)
        assert connections.open_connections == (0, 0)
