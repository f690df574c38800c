"""Status × headers × body × point in the stream, for every dialect, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
import trio

from crush_trio import limits
from crush_trio.agent.ports import ModelEvent, StepEnd, TextDelta, ToolCallEnd
from crush_trio.http.connections import Connections
from crush_trio.models.dialects import DIALECTS, dialect
from crush_trio.models.failures import CLASSES, Failure, Kind
from crush_trio.models.network.attempt import TimeLimits, attempt
from crush_trio.models.provider import Access
from tests.models.dialects.kit import target
from tests.models.kit import request
from tests.models.network.kit import BASE
from tests.models.network.provider import (
    END,
    STREAM,
    Exchange,
    FakeProvider,
    chunk,
    fake_provider,
    head,
    provider_in_memory,
)
from tests.models.network.streams import SHORT

KEY = "sk-very-secret"
TIMES = TimeLimits(5.0, 5.0, 5.0, 5.0)


async def ask(
    name: str, provider: FakeProvider, connections: Connections, times: TimeLimits = TIMES
) -> tuple[StepEnd | Failure, list[ModelEvent]]:
    """How one attempt ended, and what it streamed."""
    events: list[ModelEvent] = []
    aimed = target(name, access=Access(f"{provider.url}{BASE[name]}", KEY))
    asked, speaks = request(), dialect(name)
    try:
        end: StepEnd | Failure = await attempt(
            connections.client(is_local=aimed.provider.is_local),
            speaks,
            speaks.call(asked, aimed, aimed.provider.access()),
            lambda emit: speaks.reader(asked, aimed, emit),
            aimed,
            events.append,
            times,
        )
    except Failure as exc:
        end = exc
    return end, events


def check_sentence(failure: Failure) -> None:
    """It is short, for people, and tells nothing that is secret."""
    assert KEY not in failure.message
    assert "\n" not in failure.message
    assert 10 < len(failure.message) < 700
    assert failure.message[-1] in ".?!"


# --- points in the stream -----------------------------------------------------------------


def cuts(name: str) -> Iterator[tuple[str, bytes, set[Kind] | None]]:
    """Where the connection ends, what was sent until then, and what that is; ``None`` is a whole
    answer."""
    short = SHORT[name]
    begin = b"".join(short.begin)
    text = begin + b"".join(short.text)
    finished = text + b"".join(short.arguments) + b"".join(short.finish)
    crab = text.index("\U0001f980".encode()) + 2
    broke = {Kind.TRUNCATED}
    yield "before the head", b"", {Kind.NETWORK}
    yield "inside the head", STREAM[:30], {Kind.NETWORK}
    yield "before the first event", STREAM, broke
    yield "inside a chunk's size", STREAM + b"1", broke
    yield "inside an event", STREAM + chunk(short.whole[: len(begin) + 12]), broke
    yield "inside a character", STREAM + chunk(text[:crab]), broke
    yield "after text", STREAM + chunk(text), broke
    yield "inside a chunk", STREAM + chunk(text)[:-4], broke
    if short.arguments:
        yield "inside arguments", STREAM + chunk(text + b"".join(short.arguments)), broke
    if short.done:
        yield "before it says it is done", STREAM + chunk(finished), broke
        yield "after it says it is done", STREAM + chunk(short.whole), None
    else:
        yield "before the end of the body", STREAM + chunk(short.whole), broke
    yield "after all", STREAM + chunk(short.whole) + END, None
    yield "after all, in bytes", STREAM + b"".join(map(chunk, _bytes(short.whole))) + END, None
    known = head(200, content_type="text/event-stream", content_length=str(len(short.whole)))
    yield "after all, of known length", known + short.whole, None
    yield "one byte early, of known length", known + short.whole[:-40], broke
    closing = head(200, content_type="text/event-stream", connection="close")
    yield "after all, without framing", closing + short.whole, None
    yield "inside a character, without framing", closing + text[:crab], broke
    yield "without anything", closing, {Kind.EMPTY, Kind.TRUNCATED}
    yield "after an error event", STREAM + chunk(text + short.error) + END, _RETRIED
    yield "garbage for a head", b"\x15\x03\x01\x00\x02\x02\x46", {Kind.MALFORMED, Kind.NETWORK}
    yield "garbage for a chunk", STREAM + b"zzz\r\n", {Kind.MALFORMED}
    yield "an event that is no JSON", STREAM + chunk(b"data: {nonsense}\n\n") + END, _RETRIED
    yield "an unasked-for encoding", head(200, content_encoding="br"), {Kind.MALFORMED}
    yield "a web page", head(200, content_type="text/html") + b"<html>", {Kind.URL}


_RETRIED = {kind for kind, meaning in CLASSES.items() if meaning.retries}


def _bytes(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


@pytest.mark.parametrize("name", DIALECTS)
async def test_wherever_an_answer_ends_it_is_whole_or_a_failure_that_names_it(name: str) -> None:
    """There is never a made-up end."""
    sent = b""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.hang_up()

    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        for where, sent, expected in cuts(name):  # noqa: B007  # `answer` sends it
            end, events = await ask(name, provider, connections)
            if expected is None:
                assert isinstance(end, StepEnd), (where, end)
                assert end.reason == "tool_use", where
                assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Hé🦀", where
                (call,) = [each for each in events if isinstance(each, ToolCallEnd)]
                assert orjson.loads(call.input) == {"file_path": "x"}, where
            else:
                assert isinstance(end, Failure), (where, end)
                assert end.kind in expected, (where, end.kind, end.message)
                check_sentence(end)
        assert connections.open_connections == (0, 0)


# --- statuses -----------------------------------------------------------------------------

RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
FINAL = (400, 401, 403, 404, 413, 415, 422)
BODIES = {
    "nothing": b"",
    "JSON": b'{"error":{"message":"no","type":"some_error","code":"x","status":"X"}}',
    "words": b'{"error":"no"}',
    "a list": b'[{"error":{"message":"no"}}]',
    "a string": b'"no"',
    "HTML": b"<html><head><title>502</title></head><body>\nBad gateway</body></html>",
    "bytes": bytes(range(256)),
    "half": b'{"error":{"mess',
    "deep": b"[" * 5_000,
    "long": b'{"error":{"message":"' + b"x" * 100_000 + b'"}}',
    "key": b'{"error":{"message":"Incorrect API key provided: sk-very-secret"}}',
}
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content_type": "application/json", "retry_after": "3"},
    {"content_type": "text/html", "x_should_retry": "false"},
)


@pytest.mark.parametrize("name", DIALECTS)
async def test_every_status_is_a_failure_of_the_right_class_whatever_its_body(name: str) -> None:
    """What may pass is asked again, what will not is not."""
    sent = b""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)

    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        for status in (*RETRIED, *FINAL):
            for title, body in BODIES.items():
                if title == "long" and status not in (400, 500):
                    continue  # reading through it takes dialects a while
                for headers in HEADERS if title == "JSON" else HEADERS[:1]:
                    sent = head(status, content_length=str(len(body)), **headers) + body
                    end, events = await ask(name, provider, connections)
                    case = (status, title, headers, end)
                    assert isinstance(end, Failure), case
                    assert events == [], case
                    open_to_opinion = (status == 409 and title == "HTML") or (
                        status == 429 and "x_should_retry" in headers
                    )
                    passes = bool(CLASSES[end.kind].retries)
                    assert passes == (status in RETRIED) or open_to_opinion, case
                    if "retry_after" in headers:
                        assert end.retry_after_s == 3.0, case
                    assert end.should_retry is (False if "x_should_retry" in headers else None)
                    check_sentence(end)
        assert connections.open_connections == (0, 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(301, Kind.URL), (302, Kind.URL), (304, Kind.URL), (307, Kind.URL), (407, Kind.PROXY)],
)
@pytest.mark.parametrize("name", DIALECTS)
async def test_a_key_is_not_carried_to_where_a_redirect_points(
    name: str, status: int, kind: Kind
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(
            head(status, content_length="0", location=f"{provider.url}/elsewhere?key={KEY}")
        )

    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        end, _ = await ask(name, provider, connections)
        assert isinstance(end, Failure)
        assert end.kind is kind
        check_sentence(end)
        if kind is Kind.URL:
            assert f"{provider.url}/elsewhere" in end.message
        assert len(provider.exchanges) == 1


@pytest.mark.parametrize("location", ["", "http://[", "http://h:port/", "ftp://x", "//", "\xe9"])
async def test_a_redirect_to_nowhere_is_one_too(location: str) -> None:
    answer = head(302, content_length="0", location=location)

    async def redirect(exchange: Exchange) -> None:
        await exchange.send(answer)

    async with fake_provider(redirect) as provider, Connections(environ={}) as connections:
        end, _ = await ask("openai-chat", provider, connections)
        assert isinstance(end, Failure)
        assert end.kind is Kind.URL
        check_sentence(end)
        assert connections.open_connections[0] == 0


@pytest.mark.parametrize("name", DIALECTS)
async def test_an_error_answer_that_never_ends_is_read_for_a_bounded_time(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(503, content_length="1000") + b"sorry, ")
        await exchange.closed.wait()

    async with (
        provider_in_memory(answer) as (provider, dial),
        Connections(environ={}, dial=dial) as connections,
    ):
        end, _ = await ask(name, provider, connections, TimeLimits())
        assert isinstance(end, Failure)
        assert end.kind in {Kind.OVERLOAD, Kind.SERVER}
        assert trio.current_time() == limits.MODEL_FAILURE_S
        assert connections.open_connections == (0, 0)
