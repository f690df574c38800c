"""What a checkup makes of answers, of windows, and of a way that is not open."""

from __future__ import annotations

import math
import socket

import attrs
import pytest
import trio

from crush_trio import limits
from crush_trio.agent.ports import (
    ReasoningDelta,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageSoFar,
)
from crush_trio.http.connections import Connections
from crush_trio.models.checkup import Hints, ModelCheckup, readings
from crush_trio.models.checkup.asking import CALL, NATIVE_CALL, TOOL, Heard, ask, request
from crush_trio.models.checkup.reaching import reach
from crush_trio.models.checkup.window import judged
from crush_trio.models.failures import CLASSES, Failure, Kind
from crush_trio.models.network.model import NetworkModel
from crush_trio.models.provider import Access
from crush_trio.protocol.checks import NAMES, Check
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.runs import Usage
from tests.models.dialects.kit import fixture, split, target
from tests.models.network.kit import HELLO, model_at
from tests.models.network.provider import (
    END,
    STREAM,
    Exchange,
    chunk,
    event,
    fake_provider,
    provider_in_memory,
    silent,
    streaming,
    whole,
)

WORDS = "one two three four five six seven eight nine ten"


def heard(
    *at: float,
    text: str = WORDS,
    thought: bool = False,
    usage: Usage | None = Usage(10, 20),
    reason: str = "end_turn",
) -> Heard:
    """An answer whose pieces came at these times."""
    took = at[-1] if at else 0.0
    return Heard(0.0, list(at), text, thought, end=StepEnd(reason, usage), took_s=took)


# --- streaming, counting ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "text", "status", "streams"),
    [
        ((0.3, 0.4, 0.5), WORDS, "ok", True),
        ((2.0,), WORDS, "warn", False),
        ((2.0, 2.001, 2.002, 2.003), WORDS, "warn", False),
        ((0.1, 0.101, 0.102, 0.103), WORDS, "ok", None),
        ((2.0, 2.001), WORDS, "ok", None),
        ((0.1,), "Ten.", "ok", None),
        ((), "", "ok", None),
    ],
    ids=["streams", "one piece", "all at once", "fast", "two pieces", "short", "nothing"],
)
def test_streaming_is_judged_by_when_the_pieces_came(
    at: tuple[float, ...], text: str, status: str, streams: bool | None
) -> None:
    check = readings.streaming(heard(*at, text=text))
    assert (check.status, check.data["streams"]) == (status, streams)
    assert bool(check.advice) is (status == "warn")


def test_the_answer_tells_its_first_piece_its_rate_and_its_end() -> None:
    answer, _, usage = readings.answer(heard(0.25, 0.5, 1.25))
    assert answer.seen == "first piece after 250 ms, 20 tokens/s, ended with end_turn"
    assert answer.data["tokens_per_s"] == 20.0
    assert (usage.status, usage.data["output_tokens"]) == ("ok", 20)


def test_no_rate_is_told_of_what_came_at_once_or_was_not_counted() -> None:
    for each in (heard(0.25, 0.26), heard(0.25, 1.25, usage=None)):
        answer = readings.answer(each)[0]
        assert answer.data["tokens_per_s"] is None
        assert "tokens/s" not in answer.seen


def test_an_answer_of_thoughts_alone_is_well_and_one_of_nothing_is_doubtful() -> None:
    assert readings.answer(heard(0.1, text="", thought=True, reason="max_tokens"))[0].status == "ok"
    assert readings.answer(heard(0.1, text="", reason="max_tokens"))[0].status == "warn"


def test_an_end_that_nobody_named_is_doubtful() -> None:
    assert readings.answer(heard(0.1, 0.2, reason="unknown"))[0].status == "warn"


@pytest.mark.parametrize("kind", Kind)
def test_every_failure_is_told_with_its_code_and_something_to_do(kind: Kind) -> None:
    failed = Heard(0.0, failure=Failure(kind, "It did not work."))
    for check in (*readings.answer(failed), readings.tools(failed)):
        assert (check.status, check.code) == ("fail", kind.value)
        assert check.seen == "It did not work."
        assert check.advice.endswith(".")
    if not CLASSES[kind].may_work_later:  # what never passes needs advice of its own
        known = {Kind.FILTERED, Kind.REFUSED}
        assert kind in readings.ADVICE or kind in known


# --- tools --------------------------------------------------------------------------------


def called(name: str, *, native: bool) -> Heard:
    """An answer that calls a tool."""
    found = heard(0.1, text="", reason="tool_use")
    found.calls.append(name)
    found.is_native = native
    return found


@pytest.mark.parametrize(
    ("answer", "status", "calls"),
    [
        (called(TOOL.name, native=True), "ok", "native"),
        (called(TOOL.name, native=False), "warn", "text"),
        (called("other", native=True), "warn", "none"),
        (heard(0.1, text="I can not."), "warn", "none"),
        (heard(0.1, text="", thought=True, reason="max_tokens"), "warn", None),
    ],
    ids=["native", "as text", "another", "words", "cut"],
)
def test_how_a_tool_is_called_is_told_apart(answer: Heard, status: str, calls: str | None) -> None:
    check = readings.tools(answer)
    assert (check.status, check.data["calls"]) == (status, calls)
    assert bool(check.advice) is (status != "ok")


async def test_pieces_are_what_is_seen_while_it_is_written() -> None:
    found = Heard(trio.current_time())
    usage = UsageSoFar(Usage(1, 1))
    end = ToolCallEnd("c", "{}")
    for each in (TextDelta("a"), ReasoningDelta("b"), ToolCallStart("c", "see"), usage, end):
        found.note(each)
    assert (len(found.at), found.text, found.thought, found.calls) == (3, "a", True, ["see"])


NATIVE = {
    "openai-chat": '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":'
    '{"name":"report_word","arguments":"{\\"word\\":\\"marmot\\"}"}}]},"finish_reason":"tool_calls"}]}',
    "gemini": '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"report_word","args":'
    '{"word":"marmot"}}}]},"finishReason":"STOP"}]}',
}


@pytest.mark.parametrize("dialect", NATIVE)
async def test_a_call_of_the_protocols_own_is_native(dialect: str) -> None:
    async with (
        fake_provider(streaming(event(NATIVE[dialect]))) as provider,
        Connections(environ={}) as connections,
    ):
        model = model_at(provider.url, connections, dialect=dialect)
        wanted = request(CALL, TOOL, most_tokens=64)
        found = await ask(model.target, connections, model.target.provider.access(), wanted)
    assert (found.calls, found.is_native) == ([TOOL.name], True)


@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("anthropic_thinking_and_calls.sse", True),
        ("gemini_parallel_calls.sse", True),
        ("openai_chat_legacy_function_call.sse", True),
        ("openai_chat_parallel_tool_calls_interleaved.sse", True),
        ("responses_reasoning_and_calls.sse", True),
        ("anthropic_server_tool.sse", False),
        ("anthropic_text.sse", False),
        ("vllm_hermes_calls_as_text.sse", False),
        ("vllm_llama3_bare_json_call_as_text.sse", False),
        ("vllm_qwen3_coder_call_as_text.sse", False),
    ],
)
def test_calls_are_told_from_text_in_what_servers_really_send(name: str, native: bool) -> None:
    assert any(NATIVE_CALL.search(data) for _, data in split(fixture(name))) is native


async def test_a_call_that_a_local_model_writes_as_text_is_not() -> None:
    text = (
        '<tool_call>{\\"name\\":\\"report_word\\",\\"arguments\\":{\\"word\\":\\"a\\"}}</tool_call>'
    )
    said = event(f'{{"choices":[{{"index":0,"delta":{{"content":"{text}","tool_calls":[]}}}}]}}')
    async with (
        fake_provider(streaming(said, *HELLO[2:])) as provider,
        Connections(environ={}) as connections,
    ):
        model = model_at(provider.url, connections, is_local=True)
        wanted = request(CALL, TOOL, most_tokens=64)
        found = await ask(model.target, connections, model.target.provider.access(), wanted)
    assert (found.calls, found.is_native) == ([TOOL.name], False)


# --- the window ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "used", "most", "status", "words"),
    [
        (128_000, 0, 0, "ok", "128000 tokens, says the catalogue"),
        (0, 0, 0, "warn", "unknown"),
        (4_096, 0, 0, "warn", "4096 tokens"),
        (32_000, 4_096, 0, "warn", "uses 4096 tokens of the 32000"),
        (4_096, 4_096, 131_072, "warn", "uses 4096 tokens of the 131072"),
        (32_768, 32_768, 32_768, "ok", "32768 tokens"),
        (0, 16_384, 0, "ok", "16384 tokens"),
    ],
)
def test_a_window_is_judged_by_what_is_said_used_and_possible(
    said: int, used: int, most: int, status: str, words: str
) -> None:
    check = judged(said, used, most, provider="den", source="the catalogue")
    assert (check.status, words in check.seen) == (status, True), check.seen
    assert bool(check.advice) is (status == "warn")


def test_ollama_is_never_told_to_use_more_than_the_model_can() -> None:
    check = judged(8_192, 4_096, 8_192, provider="ollama", source="its server")
    assert "OLLAMA_CONTEXT_LENGTH=8192" in check.advice


# --- the whole of it ----------------------------------------------------------------------


async def made(model: NetworkModel, **more: bool) -> dict[str, Check]:
    """All checks of a model, by name."""
    checkup = ModelCheckup(model, Hints("DEN_KEY", needs_key=True), **more)
    found: dict[str, Check] = {}
    while (step := await checkup.next()) is not None:
        for each in step:
            assert each.name not in found
            found[each.name] = each
    assert await checkup.next() is None
    assert [name for name in NAMES if name in found] == list(found)
    return found


async def test_a_key_in_what_a_provider_says_is_masked() -> None:
    async def tells(exchange: Exchange) -> None:
        key = exchange.headers["authorization"].removeprefix("Bearer ")
        body = f'{{"error":{{"message":"You may not use it with ({key})."}}}}'
        await exchange.send(whole(400, body.encode(), content_type="application/json"))

    async with fake_provider(tells) as provider, Connections(environ={}) as connections:
        found = await made(model_at(provider.url, connections, key="marmots in their den"))
    assert found["answer"].status == "fail"
    assert "You may not use it with" in found["answer"].seen
    assert "marmots" not in str(found)


async def test_each_request_is_made_once_whatever_helps_elsewhere() -> None:
    async def overloaded(exchange: Exchange) -> None:
        await exchange.send(whole(503, b"{}", content_type="application/json"))

    async with fake_provider(overloaded) as provider, Connections(environ={}) as connections:
        found = await made(model_at(provider.url, connections))
        methods = [each.method for each in provider.exchanges]
    assert found["answer"].code == "provider_overloaded"
    assert methods == ["GET", "POST"]
    assert list(found)[-2:] == ["context", "small_model"]  # what can be told all the same


async def test_a_silent_model_is_named_after_its_time(autojump_clock: object) -> None:
    async with (
        provider_in_memory(silent) as (provider, dial),
        Connections(environ={}, dial=dial) as connections,
    ):
        model = model_at(provider.url, connections)
        wanted = request(CALL, TOOL, most_tokens=64)
        found = await ask(model.target, connections, model.target.provider.access(), wanted)
    assert found.failure is not None
    assert found.failure.kind is Kind.SILENT
    assert math.isclose(found.took_s, limits.DOCTOR_ANSWER_S, abs_tol=0.1)


async def test_an_access_that_cannot_be_expanded_ends_it_with_what_to_do() -> None:
    def broken() -> Access:
        raise ConfigError("providers.den.api_key: the command failed.")

    wanted = target()
    wanted = attrs.evolve(wanted, provider=attrs.evolve(wanted.provider, access=broken))
    async with Connections(environ={}) as connections:
        model = NetworkModel(wanted, connections)
        found = await made(model)
    assert list(found) == ["key"]
    assert (found["key"].status, found["key"].code) == ("fail", "config_invalid")


async def test_a_key_that_is_needed_and_missing_fails_and_one_in_a_header_will_do() -> None:
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        without = await made(model_at(provider.url, connections, key=""), offline=True)
        with_header = model_at(provider.url, connections, key="", headers={"x-key": "a-secret"})
        other = await made(with_header, offline=True)
        assert provider.exchanges == []
    assert (without["key"].status, without["key"].code) == ("fail", "key_missing")
    assert other["key"].status == "ok"


async def test_the_model_for_titles_is_named_and_not_asked() -> None:
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        small = NetworkModel(target(model="m-small"), connections)
        model = NetworkModel(target(), connections, titler=lambda: small)
        found = await made(model, offline=True)
        assert provider.exchanges == []
    assert found["small_model"].data == {"model": "acme/m-small"}


# --- the way there ------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("ftp://127.0.0.1/v1", "provider_url"),
        ("http:///v1", "provider_url"),
        ("http://127.0.0.1:99999/v1", "provider_url"),
        ("http://nobody.invalid/v1", "provider_unreachable"),
    ],
)
async def test_an_address_that_leads_nowhere_fails_with_its_class(address: str, code: str) -> None:
    async with Connections(environ={}) as connections:
        check = await reach(address, connections, is_local=False)
    assert (check.status, check.code) == ("fail", code)


async def test_a_proxy_is_named_by_its_variable_and_without_its_password(closed_port: int) -> None:
    environ = {"HTTPS_PROXY": f"http://ana:geheim@127.0.0.1:{closed_port}"}
    async with Connections(environ=environ) as connections:
        check = await reach("https://den.example/v1", connections, is_local=False)
    assert (check.status, check.code) == ("fail", "provider_proxy")
    assert "(HTTPS_PROXY)" in check.seen
    assert "geheim" not in check.seen


async def test_a_connection_is_made_and_closed_and_nothing_is_asked() -> None:
    async with fake_provider(streaming(*HELLO)) as provider, Connections(environ={}) as connections:
        check = await reach(f"{provider.url}/v1", connections, is_local=True)
        assert (provider.connections, provider.exchanges) == (1, [])
    assert (check.status, check.data["tls"], check.data["proxy"]) == ("ok", None, None)


async def test_text_that_speaks_of_calls_is_no_call() -> None:
    text = '{\\"tool_calls\\":[{\\"id\\":1}]}, so to say'
    said = chunk(f'data: {{"choices":[{{"delta":{{"content":"Say {text}"}}}}]}}\n\n'.encode())

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM, said, *HELLO[2:], END)

    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        model = model_at(provider.url, connections)
        wanted = request(CALL, TOOL, most_tokens=64)
        found = await ask(model.target, connections, model.target.provider.access(), wanted)
    assert not found.is_native
    assert readings.tools(found).data == {"calls": "none"}
