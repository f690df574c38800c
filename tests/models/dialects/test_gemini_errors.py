"""What each error of Gemini means: status, headers and body to a class, a wait and a sentence."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.models.dialects.gemini.dialect import DIALECT
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Access
from tests.models.dialects import kit
from tests.models.dialects.junk import junk

AT = kit.target("gemini", provider="google", model="gemini-3-pro-preview")


def error(code: int, status: str, message: str = "", *details: Any) -> bytes:
    inner: dict[str, Any] = {"code": code, "message": message, "status": status}
    return orjson.dumps({"error": {**inner, "details": list(details)} if details else inner})


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}


def quota(quota_id: str) -> dict[str, Any]:
    violation = {"quotaMetric": "generate_content_free_tier_requests", "quotaId": quota_id}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def retry(delay: Any) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


EXCEEDED = "You exceeded your current quota, please check your plan and billing details."
PER_MINUTE = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
PER_DAY = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body>no</body></html>"
BAD_KEY = "API key not valid. Please pass a valid API key."
LONG = "The input token count (1500000) exceeds the maximum number of tokens allowed (1048576)."
NO_MODEL = "models/x is not found for API version v1beta, or is not supported"
LOCATION = "User location is not supported for the API use."
BILLING = "Gemini API free tier is not available in your country. Please enable billing."
NO_TOOLS = "Function calling is not enabled for models/gemma-3-27b-it"


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "wait_s"),
    [
        (400, {}, error(400, "INVALID_ARGUMENT", BAD_KEY, info("API_KEY_INVALID")), "AUTH", None),
        (400, {}, error(400, "INVALID_ARGUMENT", BAD_KEY), "AUTH", None),
        (400, {}, error(400, "INVALID_ARGUMENT", "API key expired. Renew it."), "AUTH", None),
        (400, {}, error(400, "INVALID_ARGUMENT", "No", info("API_KEY_INVALID")), "AUTH", None),
        (403, {}, error(403, "RESOURCE_EXHAUSTED", "Slow down", PER_MINUTE), "RATE_LIMIT", None),
        (401, {}, error(401, "UNAUTHENTICATED", "Missing credentials"), "AUTH", None),
        (
            403,
            {},
            error(403, "PERMISSION_DENIED", "Denied", info("SERVICE_DISABLED")),
            "AUTH",
            None,
        ),
        (403, {}, error(403, "PERMISSION_DENIED", "No", info("BILLING_DISABLED")), "QUOTA", None),
        (403, {}, HTML, "REFUSED", None),
        (404, {}, error(404, "NOT_FOUND", NO_MODEL), "NO_MODEL", None),
        (404, {}, HTML, "URL", None),
        (404, {}, b'{"detail":"Not Found"}', "URL", None),
        (404, {}, b"", "URL", None),
        (405, {}, b"", "URL", None),
        (302, {"location": "https://login.test"}, b"", "URL", None),
        (200, {}, HTML, "URL", None),
        (407, {}, b"", "PROXY", None),
        (413, {}, HTML, "TOO_LONG", None),
        (400, {}, error(400, "INVALID_ARGUMENT", LONG), "TOO_LONG", None),
        (500, {}, error(500, "INTERNAL", "Your input context is too long"), "TOO_LONG", None),
        (400, {}, error(400, "INVALID_ARGUMENT", NO_TOOLS), "NO_TOOLS", None),
        (400, {}, error(400, "INVALID_ARGUMENT", "Invalid JSON payload"), "REFUSED", None),
        (400, {}, error(400, "FAILED_PRECONDITION", LOCATION), "REFUSED", None),
        (400, {}, error(400, "FAILED_PRECONDITION", BILLING), "QUOTA", None),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", EXCEEDED, PER_MINUTE, retry("34.5s")),
            "RATE_LIMIT",
            34.5,
        ),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", EXCEEDED, retry({"seconds": 7})),
            "RATE_LIMIT",
            7.0,
        ),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", EXCEEDED, PER_DAY, retry("34s")),
            "QUOTA",
            None,
        ),
        (429, {}, error(429, "RESOURCE_EXHAUSTED", EXCEEDED), "QUOTA", None),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", EXCEEDED + " Please retry in 12s."),
            "RATE_LIMIT",
            12.0,
        ),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0", retry("30s")),
            "QUOTA",
            None,
        ),
        (
            429,
            {},
            error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
            "QUOTA",
            None,
        ),
        (
            429,
            {"retry-after": "9"},
            error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
            "RATE_LIMIT",
            9.0,
        ),
        (
            429,
            {},
            b"[" + error(429, "RESOURCE_EXHAUSTED", "Slow down", retry("2s")) + b"]",
            "RATE_LIMIT",
            2.0,
        ),
        (429, {}, HTML, "RATE_LIMIT", None),
        (503, {}, error(503, "UNAVAILABLE", "The model is overloaded."), "OVERLOAD", None),
        (503, {"retry-after": "3"}, HTML, "OVERLOAD", 3.0),
        (500, {}, error(500, "INTERNAL", "An internal error has occurred"), "SERVER", None),
        (504, {}, error(504, "DEADLINE_EXCEEDED", "Deadline expired"), "SERVER", None),
        (499, {}, error(499, "CANCELLED", "The operation was cancelled."), "SERVER", None),
        (502, {}, HTML, "SERVER", None),
        (500, {}, b"\xff\xfe\x00", "SERVER", None),
        (418, {}, b"tea", "REFUSED", None),
    ],
)
def test_each_error_has_its_class_and_its_sentence(
    status: int, headers: dict[str, str], body: bytes, kind: str, wait_s: float | None
) -> None:
    failure = DIALECT.failure(status, headers, body, AT)
    assert (failure.kind, failure.retry_after_s) == (Kind[kind], wait_s)
    assert "Google" in failure.message
    assert "gemini-3-pro-preview" in failure.message
    assert failure.message.endswith(".")
    assert "\n" not in failure.message
    assert "<" not in failure.message


def test_an_error_that_a_gateway_quotes_is_read() -> None:
    inner = error(429, "RESOURCE_EXHAUSTED", "Slow down", PER_DAY).decode()
    body = orjson.dumps({"error": {"message": inner, "code": 429, "status": "Too Many Requests"}})
    assert DIALECT.failure(429, {}, body, AT).kind is Kind.QUOTA


def test_who_has_no_good_key_is_told_where_it_is_looked_for() -> None:
    failure = DIALECT.failure(400, {}, error(400, "INVALID_ARGUMENT", BAD_KEY), AT)
    assert "GEMINI_API_KEY" in failure.message
    other = kit.target("gemini", provider="gateway", model="gemini-3-pro")
    message = DIALECT.failure(401, {}, b"", other).message
    assert "api_key of provider gateway" in message
    assert "GEMINI_API_KEY" not in message


def test_a_key_in_the_words_of_the_provider_is_not_shown() -> None:
    key = "AIzaSyD-1234567890abcdefghijklmnopqrstuv"
    failure = DIALECT.failure(400, {}, error(400, "INVALID_ARGUMENT", f"Bad {key}"), AT)
    assert "1234567890" not in failure.message


JSON = junk("error code message status details reason violations quotaId retryDelay")


@given(st.integers(100, 599), JSON.map(orjson.dumps) | st.binary(max_size=60))
def test_any_answer_with_any_status_has_a_class(status: int, body: bytes) -> None:
    assert DIALECT.failure(status, {}, body, AT).message


def test_the_models_of_google_are_listed_without_those_that_do_not_generate() -> None:
    call = DIALECT.models_call(Access("https://g.test/v1beta", "k"))
    assert (call.url, call.headers["x-goog-api-key"]) == (
        "https://g.test/v1beta/models?pageSize=1000",
        "k",
    )
    listed = {
        "models": [
            {"name": "models/gemini-3-pro", "supportedGenerationMethods": ["generateContent"]},
            {"name": "models/embedding", "supportedGenerationMethods": ["embedContent"]},
            {"name": "models/plain"},
            {"name": 7},
            "x",
        ]
    }
    assert DIALECT.models(orjson.dumps(listed)) == ("gemini-3-pro", "plain")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":[]}', b'{"models":{}}'])
def test_what_is_no_list_of_models_is_a_failure(body: bytes) -> None:
    with pytest.raises(Failure) as caught:
        DIALECT.models(body)
    assert caught.value.kind is Kind.URL
