"""What others say of a request: never its key, never at length, and not after a whole answer."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from crush_trio import limits
from crush_trio.agent.ports import ModelError, ModelEvent
from crush_trio.http.certificates import Certificates
from crush_trio.http.connections import Connections
from crush_trio.http.dialing import Line, Origin
from crush_trio.http.proxies import Proxy
from tests.models.kit import request, user
from tests.models.network.kit import HELLO, asked_in_memory, model_at, text_of
from tests.models.network.provider import (
    Answering,
    Exchange,
    chunk,
    event,
    provider_in_memory,
    sending,
    streaming,
    whole,
)

KEY = "swordfish 4711"
SAYS = b'{"error":{"message":"nobody knows swordfish 4711","code":400}}'


async def words(answer: Answering, key: str = KEY, **headers: str) -> str:
    """The sentence that asking with this key ends with."""
    async with (
        provider_in_memory(answer) as (provider, dial),
        Connections(environ={}, dial=dial) as connections,
    ):
        model = model_at(provider.url, connections, key=key, headers=headers)
        with pytest.raises(ModelError) as caught:
            await model.stream(request(), lambda _: None)
    return caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        sending(whole(401, SAYS)),
        sending(whole(400, b"nobody knows swordfish 4711")),
        streaming(event(SAYS.decode())),
        sending(b"HTTP/1.1 200 OK\r\nswordfish 4711\r\n\r\n", then_close=True),
        sending(b"HTTP/1.1 302 Found\r\nlocation: http://x/swordfish 4711\r\n\r\n"),
    ],
    ids=["status", "text", "stream", "head", "redirect"],
)
async def test_a_key_that_is_said_back_is_not_passed_on(
    answer: Answering, autojump_clock: trio.testing.MockClock
) -> None:
    assert "swordfish" not in await words(answer)
    assert "swordfish" not in await words(answer, "", **{"x-who": KEY})


async def test_the_name_of_a_provider_is_no_key() -> None:
    said = await words(sending(whole(401, b'{"error":{"message":"who is acme?"}}')), "acme")
    assert "who is acme?" in said


async def test_a_head_that_is_no_http_is_quoted_in_part(
    autojump_clock: trio.testing.MockClock,
) -> None:
    said = await words(sending(b"HTTP/1.1 200 OK\r\n" + b"x " * 20_000 + b"\r\n\r\n"))
    assert "not HTTP" in said
    assert len(said) < 2 * limits.PROVIDER_WORDS_CHARS


async def test_an_answer_that_was_whole_is_not_asked_for_again() -> None:
    packed = gzip.compress(b"".join(HELLO))

    async def answer(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + chunk(packed[:-4])
        )
        await trio.testing.wait_all_tasks_blocked()  # it has been read by now
        await exchange.send(chunk(b"ruin"))

    async with asked_in_memory(answer) as (model, provider, _):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
    assert text_of(events) == "Hello."
    assert len(provider.exchanges) == 1


async def test_a_long_request_leaves_others_their_turn() -> None:
    sent = 0

    async with provider_in_memory(streaming(*HELLO)) as (provider, connect):

        async def dial(origin: Origin, proxy: Proxy | None, certificates: Certificates) -> Line:
            line = await connect(origin, proxy, certificates)
            assert isinstance(line.stream, trio.StapledStream)
            pump = line.stream.send_stream.send_all_hook

            async def counted() -> None:
                nonlocal sent
                sent += 1
                await pump()

            line.stream.send_stream.send_all_hook = counted
            return line

        async with Connections(environ={}, dial=dial) as connections:
            asked = attrs.evolve(request(), messages=(user("x" * 4 * limits.HTTP_SEND_BYTES),))
            await model_at(provider.url, connections).stream(asked, lambda _: None)
            assert sent == 5
            assert "x" * 4 * limits.HTTP_SEND_BYTES in provider.exchanges[0].body.decode()
            sent = 0
            await model_at(provider.url, connections).stream(request(), lambda _: None)
            assert sent == 1


async def test_certificates_on_a_disk_that_does_not_answer_hold_up_no_cancel(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "ca.pem"
    os.mkfifo(pipe)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Certificates(pipe, {}).context)
            opened = await trio.to_thread.run_sync(os.open, pipe, os.O_WRONLY)  # when it is read
            try:
                scope.cancel()
                with trio.CancelScope(shield=True), trio.fail_after(5):
                    while nursery.child_tasks:
                        await trio.lowlevel.checkpoint()
            finally:
                os.close(opened)
    assert scope.cancelled_caught
