"""Four time limits, each of which names itself, in virtual time."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ModelError, ModelEvent, StreamReset
from crush_trio.http.certificates import Certificates
from crush_trio.http.connections import Connections
from crush_trio.http.dialing import Line, Origin
from crush_trio.http.proxies import Proxy
from crush_trio.models.network.attempt import TimeLimits
from tests.models.kit import request
from tests.models.network.kit import (
    DONE,
    STOP,
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
    MemoryEnd,
    chunk,
    event,
    silent,
)


@pytest.fixture(autouse=True)
def nothing_to_jump_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time must not jump while a thread expands a key."""
    monkeypatch.setattr(limits, "MODEL_ACCESS_S", math.inf)


async def end_of(answer: Answering) -> tuple[ModelError, list[ModelEvent], float]:
    """How asking failed, what was streamed, and how many seconds the first attempt took."""
    async with asked_in_memory(answer) as (model, _, connections):
        started, first = trio.current_time(), 0.0
        events: list[ModelEvent] = []

        def emit(piece: ModelEvent) -> None:
            nonlocal first
            events.append(piece)
            if isinstance(piece, StreamReset) and not first:
                first = trio.current_time() - started

        with pytest.raises(ModelError) as caught:
            await model.stream(request(), emit)
        assert connections.open_connections == (0, 0)
        return caught.value, events, first


COUNTED = event('{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}')


async def keeps_alive(exchange: Exchange) -> None:
    """Sends comments, empty pieces and counts for ever, as proxies and loading servers do."""
    while not exchange.closed.is_set():
        await exchange.send(chunk(b": still here\n\n"), say(""), COUNTED)
        await trio.sleep(10)


async def test_a_provider_that_says_nothing_is_silent(autojump_clock: MockClock) -> None:
    error, _, first = await end_of(silent)
    assert error.code == "provider_silent"
    assert error.retryable
    assert error.message == (
        "Acme took the request but sent nothing for 600 s. It was asked 2 times."
    )
    assert first == pytest.approx(limits.MODEL_FIRST_BYTE_S, abs=1)


async def test_signs_of_life_are_no_content(autojump_clock: MockClock) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM)
        await keeps_alive(exchange)

    error, _, first = await end_of(answer)
    assert error.message.startswith("Acme began to answer but sent no content for 600 s.")
    assert first == pytest.approx(limits.MODEL_FIRST_BYTE_S, abs=1)


async def test_an_answer_that_stops_in_the_middle_is_named_as_such(
    autojump_clock: MockClock,
) -> None:
    """A stalled stream, with signs of life that are no content."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM, say("Hel"))
        await keeps_alive(exchange)

    error, events, first = await end_of(answer)
    assert error.code == "provider_silent"
    assert error.message.startswith("Acme stopped in the middle of its answer for 300 s.")
    assert first == pytest.approx(limits.MODEL_SILENCE_S, abs=1)
    (reset,) = resets(events)
    assert reset.cause == "Acme stopped in the middle of its answer for 300 s."


async def test_an_answer_without_end_is_cut(autojump_clock: MockClock) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM)
        while not exchange.closed.is_set():
            await exchange.send(say("more"))
            await trio.sleep(200)

    error, events, _ = await end_of(answer)
    assert error.message == "Acme did not come to the end of its answer within 3600 s."
    assert resets(events) == []  # an hour was enough: see MODEL_RETRY_WITHIN_S


async def test_who_goes_on_talking_is_waited_for(autojump_clock: MockClock) -> None:
    async def answer(exchange: Exchange) -> None:
        await trio.sleep(limits.MODEL_FIRST_BYTE_S - 10)
        await exchange.send(STREAM, say("a"))
        for _ in range(4):
            await trio.sleep(limits.MODEL_SILENCE_S - 10)
            await exchange.send(say("b"))
        await exchange.send(STOP, DONE, END)

    async with asked_in_memory(answer) as (model, _, _):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
        assert text_of(events) == "abbbb"


@pytest.mark.parametrize(("is_local", "limit_s"), [(False, 15), (True, 3)])
async def test_a_connection_that_is_never_made_is_given_up(
    is_local: bool, limit_s: float, autojump_clock: MockClock
) -> None:
    async def never(origin: Origin, proxy: Proxy | None, certificates: Certificates) -> Line:
        await trio.sleep_forever()
        raise AssertionError

    async with Connections(environ={}, dial=never) as connections:
        started = trio.current_time()
        events: list[ModelEvent] = []
        model = model_at("http://127.0.0.1:1", connections, is_local=is_local)
        with pytest.raises(ModelError) as caught:
            await model.stream(request(), events.append)
        assert caught.value.code == "provider_unreachable"
        assert caught.value.message == (
            f"No connection to Acme could be made within {limit_s} s. It was asked 4 times."
        )
        waits = sum(reset.delay_s for reset in resets(events))
        took = trio.current_time() - started
        assert took == pytest.approx(4 * limit_s + waits)


async def test_a_provider_that_does_not_take_the_request_is_named_as_such(
    autojump_clock: MockClock,
) -> None:
    async def full(origin: Origin, proxy: Proxy | None, certificates: Certificates) -> Line:
        ours, _ = trio.testing.lockstep_stream_pair()
        end, _ = trio.testing.memory_stream_pair()
        await trio.lowlevel.checkpoint()
        return Line(ours, MemoryEnd(end))

    async with Connections(environ={}, dial=full) as connections:
        model = model_at("http://127.0.0.1:1", connections)
        with pytest.raises(ModelError, match="did not take the whole request within 600 s"):
            await model.stream(request(), lambda _: None)


async def test_too_many_requests_at_once_wait_and_say_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 1)
    async with (
        asked_in_memory(silent) as (model, provider, connections),
        trio.open_nursery() as nursery,
    ):
        # No deadline of its own, for time would jump to it while a thread expands the other's key.
        patient = TimeLimits(math.inf, math.inf, math.inf, math.inf)
        first = model_at(provider.url, connections, times=patient)
        nursery.start_soon(first.stream, request(), lambda _: None)
        await provider.arrived.wait()
        with pytest.raises(ModelError, match="1 requests to models are under way"):
            await model.stream(request(), lambda _: None)
        assert provider.connections == 1
        nursery.cancel_scope.cancel()
