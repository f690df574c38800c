"""Error answers of OpenAI-compatible servers: status × headers × body → what helps against them."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio import limits
from crush_trio.http.quoting import quotable
from crush_trio.models.dialects.openai_errors import failure, stream_failure
from crush_trio.models.dialects.said import retry_after_s, said
from crush_trio.models.failures import Failure, Kind
from tests.models.dialects.kit import fixture, target

AT = target(provider="acme", model="m-1")


def told(status: int, body: object = b"", headers: dict[str, str] | None = None) -> Failure:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return failure(status, headers or {}, raw, AT)


def openai(message: str, code: object = None, kind: str | None = None) -> dict[str, object]:
    """OpenAI's shape, which most copy."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def vllm(message: str, kind: str, code: int) -> dict[str, object]:
    """vLLM's older shape."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


_LINES = fixture("openai_errors.jsonl").splitlines()
CASES = {case["case"]: case for case in map(orjson.loads, _LINES)}
"""One answer a line: ``raw`` text or ``json`` as the body, and the class it must have."""


@pytest.mark.parametrize("name", CASES)
def test_each_error_answer_has_its_class(name: str) -> None:
    """R-RETRY: classes over status × body, of every server that has its own wording."""
    case = CASES[name]
    found = told(case["status"], case.get("json", case.get("raw", "").encode()))
    assert found.kind.value == case["kind"], found.message
    assert "Acme" in found.message or "acme/m-1" in found.message
    assert found.message.endswith((".", '"'))
    assert "\n" not in found.message


WAITS: list[tuple[dict[str, str], str, float | None]] = [
    ({"retry-after": "7"}, "", 7.0),
    ({"retry-after": "0.5"}, "", 0.5),
    ({"retry-after-ms": "1500", "retry-after": "7"}, "", 1.5),
    (
        {
            "retry-after": "Mon, 23 Nov 2026 10:00:30 GMT",
            "date": "Mon, 23 Nov 2026 10:00:00 GMT",
        },
        "",
        30.0,
    ),
    ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT"}, "", None),
    ({"retry-after": "soon"}, "", None),
    ({"retry-after": "-5"}, "", None),
    ({}, "Rate limit reached. Please try again in 20s.", 20.0),
    ({}, "Please try again in 6m0s. Visit", 360.0),
    ({}, "Please try again in 1h2m3.5s.", 3723.5),
    ({}, "Please try again in 250ms.", 0.25),
    ({}, "Please retry after 26 seconds.", 26.0),
    ({}, "Please retry in 26.931s.", 26.931),
    ({}, "Try again in 2 minutes, or later", 120.0),
    ({}, "Please try again later.", None),
    ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, "", 360.0),
    ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "9"}, "", None),
    (
        {
            "x-ratelimit-reset": "1795428060000",
            "x-ratelimit-remaining": "0",
            "date": "Mon, 23 Nov 2026 10:00:00 GMT",
        },
        "",
        60.0,
    ),
]


@pytest.mark.parametrize(("headers", "message", "wait"), WAITS)
def test_the_wait_that_a_provider_asks_for_is_found(
    headers: dict[str, str], message: str, wait: float | None
) -> None:
    """R-RETRY: headers first, then words, then the allowance that is used up."""
    assert retry_after_s(headers, message) == wait
    assert told(429, openai(message), headers).retry_after_s == wait


def test_every_class_an_answer_can_have_is_in_the_table() -> None:
    elsewhere = {Kind.NETWORK, Kind.SILENT, Kind.TRUNCATED, Kind.EMPTY, Kind.TLS}
    assert {case["kind"] for case in CASES.values()} == {k.value for k in set(Kind) - elsewhere}
    assert len(CASES) == len(_LINES)


def test_an_error_says_what_to_do_about_it() -> None:
    """G14: one sentence that names provider and model, and says what helps."""
    keyed = told(401, openai("No."))
    assert "ACME_API_KEY" in keyed.message
    assert "acme/m-1" in keyed.message
    local = target(provider="ollama", model="m-1", is_local=True)
    assert "load or download it" in failure(404, {}, b'{"error": "model not found"}', local).message
    azure = target(provider="azure", model="m-1")
    assert "AZURE_OPENAI_API_KEY" in failure(401, {}, b"", azure).message
    tools = told(400, openai("requires --enable-auto-tool-choice"))
    assert "start vLLM with --enable-auto-tool-choice" in tools.message


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdef123456",
        "sk-abc***xyz",
        "gsk_abcdefghij",
        "xai-1234567890",
        "AIzaSyA1234567890abc",
        "Bearer abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln",
        "0123456789abcdef0123456789abcdef",
        "api_key=hunter2hunter2",
        "https://x.test/v1?key=hunter2hunter2",
    ],
)
def test_nothing_that_looks_like_a_key_is_quoted(secret: str) -> None:
    """Contract 7: secrets never in error texts."""
    message = told(401, openai(f"The key {secret} is wrong, see {secret}.")).message
    bare = secret.removeprefix("Bearer ").rpartition("=")[2]
    assert bare not in message
    assert "is wrong" in message


@pytest.mark.parametrize(
    "plain", ["claude-3-5-sonnet-20241022", "Qwen3-Coder-480B-A35B-Instruct-FP8", "4096 tokens"]
)
def test_names_of_models_and_numbers_are_quoted_as_they_are(plain: str) -> None:
    assert plain in quotable(f"The model {plain} is unknown.")


def test_a_long_message_is_cut() -> None:
    message = told(500, openai("x " * 5000)).message
    assert len(message) < limits.PROVIDER_WORDS_CHARS + 200
    assert "…" in message


def test_an_error_inside_of_a_stream_is_classed_by_its_own_status_and_words() -> None:
    assert stream_failure({"code": 502, "message": "x"}, AT).kind is Kind.SERVER
    assert stream_failure({"code": "429", "message": "x"}, AT).kind is Kind.RATE_LIMIT
    assert stream_failure("model overloaded", AT).kind is Kind.OVERLOAD
    assert stream_failure(None, AT).kind is Kind.SERVER


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "detail", "metadata", "raw", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(100, 999), st.binary(max_size=60) | _JSON.map(lambda v: json.dumps(v).encode()))
def test_whatever_an_error_answer_holds_it_becomes_a_failure(status: int, body: bytes) -> None:
    found = failure(status, {"retry-after": "x"}, body, AT)
    assert found.message
    assert said(body).quoted() == quotable(said(body).message)


def test_a_number_that_is_none_does_not_hide_the_error() -> None:
    assert told(400, openai("no", code="²")).kind is Kind.REFUSED
    assert told(400, openai("no", code="0429" * 2000)).kind is Kind.REFUSED
    digits = "9" * 5_000  # more than Python reads
    assert told(400, openai(f"max_tokens is too large: {digits}, {digits}")).message
    assert told(400, f"max_tokens too large: {digits} maximum context length is 8".encode()).message


@pytest.mark.parametrize("body", [b"<html>" + b"<title>" * 9_000, b"model " * 10_900])
def test_the_largest_body_is_understood_before_anybody_notices(body: bytes) -> None:
    assert len(body) <= limits.MODEL_FAILURE_BYTES
    before = time.process_time()
    told(400, body)
    assert time.process_time() - before < 0.2  # patterns that begin anew at each word take seconds
