"""What every error of Anthropic and of compatible servers means: status × headers × body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.models.dialects.anthropic.dialect import DIALECT
from crush_trio.models.failures import CLASSES, Failure, Kind
from tests.models.dialects.kit import play, target

AT = target("anthropic", provider="anthropic", model="claude-sonnet-4-5")


def error(kind: str, message: str, **more: Any) -> bytes:
    """An error body as Anthropic writes it."""
    inner = {"type": kind, "message": message, **more}
    return json.dumps({"type": "error", "error": inner, "request_id": "req_011C"}).encode()


INVALID, CREDIT = "invalid_request_error", "Your credit balance is too low to access the API."
FULL = "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease"
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
TABLE = [
    (401, error("authentication_error", "invalid x-api-key"), Kind.AUTH),
    (401, error("authentication_error", "OAuth token has expired."), Kind.AUTH),
    (401, b"", Kind.AUTH),
    (401, error("rate_limit_error", "Usage limit reached for an unknown key"), Kind.AUTH),
    (401, b"<html>login</html>", Kind.AUTH),
    (403, error("permission_error", "Your API key does not have permission"), Kind.AUTH),
    (403, error("permission_error", "Your key may not use the model x"), Kind.NO_MODEL),
    (403, error("forbidden", "Request not allowed"), Kind.REFUSED),
    (403, b"<html><title>Attention Required!</title></html>", Kind.REFUSED),
    (400, error(INVALID, CREDIT), Kind.QUOTA),
    (400, error(INVALID, "You have reached your specified API usage limits."), Kind.QUOTA),
    (402, error("billing_error", "Payment required"), Kind.QUOTA),
    (429, error("rate_limit_error", "x", details={"error_code": "contract_spend_limit_reached"}),
     Kind.QUOTA),
    (429, error("rate_limit_error", "Claude AI usage limit reached, resets at 5pm"), Kind.QUOTA),
    (429, error("rate_limit_error", "Usage credits required for 1M context"), Kind.QUOTA),
    (429, error("rate_limit_error", "This request would exceed your account's rate limit."),
     Kind.RATE_LIMIT),
    (429, b"", Kind.RATE_LIMIT),
    (429, b"<html>Too many requests</html>", Kind.RATE_LIMIT),
    (404, error("not_found_error", "model: claude-foo"), Kind.NO_MODEL),
    (404, error("not_found_error", "Not found"), Kind.URL),
    (404, b"404 page not found", Kind.URL),
    (404, b"<html>Not Found</html>", Kind.URL),
    (404, b"<html><title>Overloaded with sheds? We buy them</title></html>", Kind.URL),
    (405, b"", Kind.URL),
    (302, b"", Kind.URL),
    (413, error("request_too_large", "Request exceeds the maximum size"), Kind.TOO_LONG),
    (413, b"<html><title>413 Payload Too Large</title></html>", Kind.TOO_LONG),
    (400, error(INVALID, "prompt is too long: 210000 tokens > 200000 maximum"), Kind.TOO_LONG),
    (400, error(INVALID, FULL), Kind.TOO_LONG),
    (400, error(INVALID, "max_tokens: 200000 > 64000, which is the maximum allowed number"),
     Kind.REFUSED),
    (400, error(INVALID, "messages.1.content.0: image exceeds 5 MB maximum"), Kind.REFUSED),
    (400, error(INVALID, "Output blocked by content filtering policy"), Kind.FILTERED),
    (400, error(INVALID, "this model does not support tools"), Kind.NO_TOOLS),
    (400, error(INVALID, "temperature: range: -1..1"), Kind.REFUSED),
    (407, b"", Kind.PROXY),
    (408, b"", Kind.SERVER),
    (409, error("conflict_error", "try again"), Kind.SERVER),
    (500, error("api_error", "Internal server error"), Kind.SERVER),
    (500, error("api_error", "Overloaded"), Kind.OVERLOAD),
    (500, b"", Kind.SERVER),
    (502, PAGE, Kind.SERVER),
    (503, b"no healthy upstream", Kind.OVERLOAD),
    (504, error("timeout_error", "Request timed out"), Kind.SERVER),
    (524, b"<html><title>A timeout occurred</title></html>", Kind.SERVER),
    (529, error("overloaded_error", "Overloaded"), Kind.OVERLOAD),
    (529, b"", Kind.OVERLOAD),
    (400, b'{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}', Kind.NO_MODEL),
    (402, b'{"error":{"message":"Insufficient Balance"}}', Kind.QUOTA),
]  # fmt: skip


def of(status: int, body: bytes, **headers: str) -> Failure:
    """What an answer means; ``_`` stands for ``-`` in the names of headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return DIALECT.failure(status, named, body, AT)


@pytest.mark.parametrize(("status", "body", "kind"), TABLE)
def test_each_error_has_its_class_and_a_sentence_that_says_what_to_do(
    status: int, body: bytes, kind: Kind
) -> None:
    failure = of(status, body)
    assert failure.kind is kind
    assert "Anthropic" in failure.message
    assert "claude-sonnet-4-5" in failure.message
    assert failure.message.endswith(".")
    assert "\n" not in failure.message
    if kind is Kind.AUTH:
        assert "ANTHROPIC_API_KEY" in failure.message
    if kind is Kind.URL:
        assert "base_url" in failure.message


IN_STREAM = [
    ("overloaded_error", "Overloaded", Kind.OVERLOAD),
    ("api_error", "Internal server error", Kind.SERVER),
    ("rate_limit_error", "Number of tokens exceeded", Kind.RATE_LIMIT),
    ("authentication_error", "token expired", Kind.AUTH),
    ("billing_error", "out of credit", Kind.QUOTA),
    ("timeout_error", "took too long", Kind.SERVER),
    ("invalid_request_error", "prompt is too long: 2 tokens > 1 maximum", Kind.TOO_LONG),
    ("invalid_request_error", "Output blocked by content filtering policy", Kind.FILTERED),
    ("something_new", "", Kind.SERVER),
]


@pytest.mark.parametrize(("name", "message", "kind"), IN_STREAM)
@pytest.mark.parametrize("begun", [False, True])
def test_errors_inside_a_stream_mean_the_same(
    name: str, message: str, kind: Kind, begun: bool
) -> None:
    piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
    before = [("content_block_delta", json.dumps(piece))] if begun else []
    with pytest.raises(Failure) as caught:
        play(DIALECT, [*before, ("error", error(name, message).decode())], at=AT)
    assert caught.value.kind is kind


def test_a_wait_comes_from_the_headers() -> None:
    limit = error("rate_limit_error", "Too many")
    assert of(429, limit).retry_after_s is None
    assert of(429, limit, retry_after="17").retry_after_s == 17
    assert of(529, b"", retry_after_ms="250").retry_after_s == 0.25


def test_the_reset_of_what_is_used_up_counts_where_no_wait_is_named() -> None:
    stem = "anthropic_ratelimit_input_tokens"
    headers = {
        "date": "Mon, 23 Nov 2026 04:00:00 GMT",
        f"{stem}_reset": "2026-11-23T04:00:41Z",
        f"{stem}_remaining": "0",
        "anthropic_ratelimit_requests_reset": "2026-11-23T04:09:00Z",
        "anthropic_ratelimit_requests_remaining": "12",
    }
    assert of(429, b"", **headers).retry_after_s == 41
    headers[f"{stem}_reset"] = "2026-11-23T03:00:00Z"
    assert of(429, b"", **headers).retry_after_s == 0
    for unclear in ("soon", "2026-11-23T04:00:41"):
        headers[f"{stem}_reset"] = unclear
        assert of(429, b"", **headers).retry_after_s is None
    unified = {
        "date": headers["date"],
        "anthropic_ratelimit_unified_reset": "1795406460",
        "anthropic_ratelimit_unified_status": "rejected",
    }
    assert of(429, b"", **unified).retry_after_s == 60


def test_a_limit_that_does_not_pass_while_somebody_waits_is_not_asked_again() -> None:
    limit = error("rate_limit_error", "Error")
    assert of(429, limit, x_should_retry="false").kind is Kind.QUOTA
    assert of(429, limit, x_should_retry="true").kind is Kind.RATE_LIMIT
    assert CLASSES[Kind.QUOTA].retries == 0


def test_nothing_like_a_key_is_repeated_and_long_words_are_cut() -> None:
    secret = "sk-ant-api03-AbCdEfGh1234567890"
    failure = of(401, error("authentication_error", f"bad key {secret} " + "no " * 900))
    assert secret not in failure.message
    assert len(failure.message) < 700


@pytest.mark.parametrize(
    "words",
    [
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.0.type: Expected `thinking`, but found `tool_use`",
        "`thinking` blocks in the latest assistant message cannot be modified",
    ],
)
def test_who_has_thoughts_that_are_refused_is_told_the_way_out(words: str) -> None:
    failure = of(400, error(INVALID, words))
    assert failure.kind is Kind.REFUSED
    assert "summarize the session" in failure.message


def test_a_local_server_is_not_said_to_want_a_variable() -> None:
    at = target("anthropic", provider="lm", is_local=True)
    message = DIALECT.failure(401, {}, b"", at).message
    assert "set api_key of provider lm" in message
    assert "API_KEY" not in message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "details", "error_code", "status"]), inner
        )
    ),
    max_leaves=10,
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        ["date", "retry-after", "anthropic-ratelimit-a-reset", "anthropic-ratelimit-a-remaining"]
    ),
    st.sampled_from(["0", "1795406460", "Mon, 23 Nov 2026 04:00:00 GMT", "2026-11-23", "x", ""]),
)


@settings(max_examples=100, deadline=None)
@given(st.integers(300, 599), _HEADERS, _JSON.map(json.dumps).map(str.encode) | st.binary())
def test_whatever_an_error_says_it_becomes_one_sentence(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    failure = DIALECT.failure(status, headers, body, AT)
    assert failure.message.endswith(".")
    assert failure.retry_after_s is None or failure.retry_after_s >= 0
