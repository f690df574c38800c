"""A network model: one request with all its attempts."""

from __future__ import annotations

import math
import threading

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ModelError, ModelEvent, StreamReset, TextDelta, Titler
from crush_trio.http.connections import Connections
from crush_trio.models.network.attempt import TimeLimits
from crush_trio.models.network.model import NetworkModel
from crush_trio.models.provider import Access, Provider, Target
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.models import ModelInfo
from tests.models.dialects.kit import target, tool
from tests.models.kit import request
from tests.models.network.kit import (
    DONE,
    HELLO,
    STOP,
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
    event,
    fake_provider,
    in_turn,
    sending,
    streaming,
    whole,
)

NO_JSON = streaming(event("{nonsense"))
EMPTY = streaming(STOP, DONE)
BUSY = sending(whole(503, b'{"error":{"message":"try later"}}'))
CUT = sending(STREAM + say("Hal"), then_close=True)


@pytest.fixture(autouse=True)
def nothing_to_jump_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time must not jump while a thread expands a key."""
    monkeypatch.setattr(limits, "MODEL_ACCESS_S", math.inf)


async def failure_of(answer: Answering) -> tuple[ModelError, list[ModelEvent], int]:
    """How asking failed, what was streamed, how many requests there were."""
    async with asked_in_memory(answer) as (model, provider, _):
        events: list[ModelEvent] = []
        with pytest.raises(ModelError) as caught:
            await model.stream(request(), events.append)
        return caught.value, events, len(provider.exchanges)


async def test_an_answer_is_streamed_piece_by_piece() -> None:
    async with asked(streaming(*HELLO)) as (model, provider, connections):
        events: list[ModelEvent] = []
        end = await model.stream(request(), events.append)
        assert [each.text for each in events if isinstance(each, TextDelta)] == ["Hel", "lo."]
        assert end.reason == "end_turn"
        assert connections.open_connections == (0, 1)
    (exchange,) = provider.exchanges
    assert exchange.target == "/v1/chat/completions"
    assert exchange.headers["user-agent"].startswith("crush-trio/")
    assert exchange.headers["accept-encoding"] == "identity"
    assert exchange.json["stream"] is True


async def test_what_may_pass_is_asked_again_after_a_wait(autojump_clock: MockClock) -> None:
    """Each retry is an event, with its wait before the next attempt."""
    async with asked_in_memory(in_turn(BUSY, BUSY, streaming(*HELLO))) as (model, provider, _):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
        took = trio.current_time()
        assert text_of(events) == "Hello."
        first, second = resets(events)
        assert (first.attempt, first.max_attempts) == (1, 3)
        assert (second.attempt, second.max_attempts) == (2, 3)
        assert "try later" in first.cause
        assert 3.75 <= first.delay_s <= 5 < second.delay_s <= 10
        assert len(provider.exchanges) == 3
    assert took == pytest.approx(first.delay_s + second.delay_s)


async def test_a_stream_that_breaks_off_is_asked_again_from_the_start(
    autojump_clock: MockClock,
) -> None:
    """R51: partial output is reset before the same request goes out again."""
    async with asked_in_memory(in_turn(CUT, streaming(*HELLO))) as (model, provider, _):
        events: list[ModelEvent] = []
        await model.stream(request(), events.append)
        assert [type(each) for each in events[:2]] == [TextDelta, StreamReset]
        assert text_of(events) == "Hello."
        bodies = {exchange.body for exchange in provider.exchanges}
        assert len(bodies) == 1


@pytest.mark.parametrize(
    ("answer", "code", "times"),
    [
        (BUSY, "provider_overloaded", 4),
        (CUT, "truncated", 4),
        (EMPTY, "empty_answer", 2),
        (NO_JSON, "malformed_answer", 2),
        (sending(b"", then_close=True), "provider_unreachable", 4),
    ],
    ids=["busy", "cut", "empty", "no JSON", "closed"],
)
async def test_after_the_last_try_the_error_says_how_often_it_was_asked(
    answer: Answering, code: str, times: int, autojump_clock: MockClock
) -> None:
    """Empty and broken answers get one retry, others three."""
    error, events, requests = await failure_of(answer)
    assert error.code == code
    assert error.retryable
    assert error.message.endswith(f" It was asked {times} times.")
    assert requests == times
    assert len(resets(events)) == times - 1


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, b'{"error":{"message":"bad key"}}', "provider_auth"),
        (402, b'{"error":{"message":"pay"}}', "quota_exceeded"),
        (429, b'{"error":{"code":"insufficient_quota","message":"pay"}}', "quota_exceeded"),
        (400, b'{"error":{"code":"content_filter","message":"no"}}', "content_filtered"),
        (400, b'{"error":{"code":"context_length_exceeded","message":"x"}}', "context_too_long"),
        (404, b'{"error":{"code":"model_not_found","message":"x"}}', "model_not_found"),
    ],
)
async def test_what_will_not_pass_is_asked_once(
    status: int, body: bytes, code: str, autojump_clock: MockClock
) -> None:
    """Quota, auth and filter are never retried."""
    error, events, requests = await failure_of(sending(whole(status, body)))
    assert (error.code, error.retryable, requests, events) == (code, False, 1, [])


async def test_a_wait_the_provider_asks_for_is_kept(autojump_clock: MockClock) -> None:
    busy = sending(whole(429, b"{}", retry_after="30"))
    async with asked_in_memory(in_turn(busy, streaming(*HELLO))) as (model, _, _):
        await model.stream(request(), lambda _: None)
        assert 30 <= trio.current_time() <= 33.2


async def test_a_wait_that_is_too_long_fails_at_once(autojump_clock: MockClock) -> None:
    error, _, requests = await failure_of(sending(whole(429, b"{}", retry_after="7200")))
    assert error.code == "rate_limited"
    assert error.message.endswith(" It says to come back in 2 hours.")
    assert requests == 1
    assert trio.current_time() == 0


async def test_every_event_comes_in_the_task_that_asked(autojump_clock: MockClock) -> None:
    tasks = set()
    async with asked_in_memory(in_turn(CUT, streaming(*HELLO))) as (model, _, _):
        await model.stream(request(), lambda _: tasks.add(trio.lowlevel.current_task()))
        assert tasks == {trio.lowlevel.current_task()}


# --- access -------------------------------------------------------------------------------


def keyed(url: str, keys: list[str], connections: Connections) -> NetworkModel:
    """A model whose key is another one each time it is asked for; the last one stays."""

    def access() -> Access:
        return Access(f"{url}/v1", keys.pop(0) if len(keys) > 1 else keys[0])

    provider = Provider("acme", "Acme", "openai-chat", access)
    return NetworkModel(Target(provider, ModelInfo("acme", "m-1")), connections)


async def wants_fresh(exchange: Exchange) -> None:
    """Lets in only who has the key ``fresh``."""
    if exchange.headers["authorization"] == "Bearer fresh":
        await exchange.send(STREAM, *HELLO, END)
    else:
        await exchange.send(whole(401, b'{"error":{"message":"expired"}}'))


async def test_a_key_that_has_changed_since_gets_a_fresh_attempt() -> None:
    """CW 5.6: after a 401 the access is expanded once more."""
    async with fake_provider(wants_fresh) as provider, Connections(environ={}) as connections:
        events: list[ModelEvent] = []
        await keyed(provider.url, ["stale", "fresh"], connections).stream(request(), events.append)
        assert text_of(events) == "Hello."
        assert [each.delay_s for each in resets(events)] == [0.0]


@pytest.mark.parametrize(("keys", "requests"), [(["stale"], 1), (["stale", "staler", "fresh"], 2)])
async def test_a_key_is_looked_up_again_only_once(keys: list[str], requests: int) -> None:
    async with fake_provider(wants_fresh) as provider, Connections(environ={}) as connections:
        with pytest.raises(ModelError) as caught:
            await keyed(provider.url, keys, connections).stream(request(), lambda _: None)
        assert caught.value.code == "provider_auth"
        assert len(provider.exchanges) == requests


@pytest.mark.parametrize(("is_local", "looked_up"), [(False, 1), (True, 2)])
async def test_a_key_is_looked_up_once_for_all_steps_but_a_local_server_each_time(
    is_local: bool, looked_up: int
) -> None:
    """A command that fetches a key may ask a person, or take a second."""
    looked = []

    answers = streaming(*HELLO)
    async with fake_provider(answers) as provider, Connections(environ={}) as connections:

        def access() -> Access:
            looked.append(1)
            return Access(provider.url)

        acme = Provider("acme", "Acme", "openai-chat", access, is_local=is_local)
        model = NetworkModel(Target(acme, ModelInfo("acme", "m-1")), connections)
        for _ in range(2):
            await model.stream(request(), lambda _: None)
    assert len(looked) == looked_up


async def test_a_local_server_that_gave_its_place_to_somebody_else_is_not_asked_again(
    autojump_clock: MockClock,
) -> None:
    """G12: what listens there after it died may belong to another user."""
    async with asked_in_memory(CUT) as (_, provider, connections):

        def access() -> Access:
            if provider.exchanges:
                raise ConfigError("What listens there belongs to another user now.")
            return Access(provider.url)

        acme = Provider("acme", "Acme", "openai-chat", access, is_local=True)
        model = NetworkModel(Target(acme, ModelInfo("acme", "m-1")), connections)
        with pytest.raises(ModelError, match="another user"):
            await model.stream(request(), lambda _: None)
        assert len(provider.exchanges) == 1


async def test_a_configuration_that_cannot_be_expanded_is_the_error_itself() -> None:
    def access() -> Access:
        raise ConfigError("crush.json: $NOPE is not set.")

    provider = Provider("acme", "Acme", "openai-chat", access)
    async with Connections(environ={}) as connections:
        model = NetworkModel(Target(provider, ModelInfo("acme", "m-1")), connections)
        with pytest.raises(ModelError, match=r"\$NOPE is not set") as caught:
            await model.stream(request(), lambda _: None)
        assert (caught.value.code, caught.value.retryable) == ("config_invalid", False)


async def test_a_command_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_ACCESS_S", 0.05)
    go_on = threading.Event()

    def access() -> Access:
        go_on.wait(10)
        return Access("http://127.0.0.1:1")

    provider = Provider("acme", "Acme", "openai-chat", access)
    async with Connections(environ={}) as connections:
        model = NetworkModel(Target(provider, ModelInfo("acme", "m-1")), connections)
        with pytest.raises(ModelError, match=r"Acme could not be expanded within 0\.05 s"):
            await model.stream(request(), lambda _: None)
        go_on.set()


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-\u2013secret", "sk-secret\r\nx: y"])
async def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        with pytest.raises(ModelError) as caught:
            await model_at(provider.url, connections, key=key).stream(request(), lambda _: None)
        assert caught.value.code == "provider_auth"
        assert "secret" not in caught.value.message
        assert "api_key" in caught.value.message
        assert connections.open_connections == (0, 0)


@pytest.mark.parametrize(
    "url", ["", "api.x.test", "ftp://api.x.test", "http://", "http://[::1", "http://h:port", "://"]
)
async def test_an_address_that_is_none_is_said_so(url: str) -> None:
    async with Connections(environ={}) as connections:
        with pytest.raises(ModelError, match="is not an address: set base_url") as caught:
            await model_at(url, connections).stream(request(), lambda _: None)
        assert caught.value.code == "provider_url"


# --- marks, titles, lists -----------------------------------------------------------------


async def test_a_provider_can_tell_that_requests_belong_together_and_no_more() -> None:
    """CW 5.13: a digest of the session's id."""
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        model = model_at(provider.url, connections)
        await model.stream(request(), lambda _: None)
        await model.stream(request(step=2), lambda _: None)
        own = model_at(provider.url, connections, headers={"X-Session-Id": "mine"})
        await own.stream(request(), lambda _: None)
    one, two, three = provider.exchanges
    assert one.headers["x-session-id"] == two.headers["x-session-id"]
    assert one.headers["x-session-id"] == one.headers["x-session-affinity"]
    assert len(one.headers["x-session-id"]) == 16
    assert three.headers["x-session-id"] == "mine"


async def test_titles_come_from_another_model_if_there_is_one() -> None:
    async with Connections(environ={}) as connections:
        alone = model_at("http://127.0.0.1:1", connections)
        assert isinstance(alone, Titler)
        assert alone.titler() is alone
        small = NetworkModel(alone.target, connections, titler=lambda: None)
        assert small.titler() is None


async def test_a_provider_lists_its_models() -> None:
    body = b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}'
    async with fake_provider(sending(whole(200, body))) as provider:
        async with Connections(environ={}) as connections:
            assert await model_at(provider.url, connections).list_models() == ("a", "b")
        assert provider.exchanges[0].method == "GET"
        assert provider.exchanges[0].target == "/v1/models"
        assert provider.exchanges[0].headers["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (sending(whole(401, b"{}")), "provider_auth"),
        (sending(whole(200, b"<html>")), "provider_url"),
        (sending(b"", then_close=True), "provider_unreachable"),
    ],
)
async def test_a_list_that_cannot_be_had_is_an_error_like_any_other(
    answer: Answering, code: str
) -> None:
    async with asked(answer, times=TimeLimits()) as (model, _, _):
        with pytest.raises(ModelError) as caught:
            await model.list_models()
        assert caught.value.code == code


async def test_a_model_that_is_known_to_have_no_tools_is_not_asked_for_any() -> None:
    """A model server of this machine is asked: what it says counts more than a list."""
    plain = request()
    with_tools = attrs.evolve(plain, tools=(tool("view"),))
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        access = Access(f"{provider.url}/v1", "k")
        for is_local, asked_for, requests in ((False, plain, 1), (True, with_tools, 2)):
            about = target(access=access, is_local=is_local, supports_tools=False)
            await NetworkModel(about, connections).stream(asked_for, list[ModelEvent]().append)
            assert len(provider.exchanges) == requests
        about = target(access=access, supports_tools=False)
        with pytest.raises(ModelError, match="acme/m-1 cannot call tools") as caught:
            await NetworkModel(about, connections).stream(with_tools, list[ModelEvent]().append)
        assert (caught.value.code, caught.value.retryable) == ("tools_unsupported", False)
        assert len(provider.exchanges) == 2
