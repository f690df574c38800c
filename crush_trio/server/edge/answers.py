"""How an answer looks, and which one each kind of error becomes."""

from __future__ import annotations

import logging

import orjson
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from crush_trio.protocol.errors import (
    RETRYABLE,
    STATUS,
    ConfigError,
    DecodeError,
    Refused,
    StoreError,
)

_log = logging.getLogger("crush_trio.http")

_HTTP_ERRORS = {
    404: ("not_found", "There is no such route."),
    405: ("method_not_allowed", "This route does not take that method."),
    408: ("request_timeout", "The body did not arrive in time."),
    413: ("body_too_large", "The body is larger than this route takes."),
}


def json_response(value: bytes, status: int = 200) -> TrioResponse:
    """An answer of one JSON value, already encoded; a newline ends it, as in Crush."""
    return TrioResponse(value + b"\n", status, content_type="application/json")


def empty_response(status: int = 200) -> TrioResponse:
    """An answer without a body and without a content type, as in Crush."""
    response = TrioResponse(b"", status)
    del response.headers["Content-Type"]
    return response


def error_response(code: str, message: str, status: int | None = None) -> TrioResponse:
    """An error as ``{"message", "code", "retryable"}`` with the status of its code.

    Args:
        code: A key of `protocol.errors.STATUS`.
        message: One sentence that says what to do.
        status: Instead of the code's own.
    """
    value = {"message": message, "code": code, "retryable": code in RETRYABLE}
    response = json_response(orjson.dumps(value), status or STATUS[code])
    if code == "unauthorized":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer_error(error: Exception) -> TrioResponse:
    """The answer to a request that ended with ``error``.

    A refusal says what it is. Anything unexpected is a 500 that says nothing, and is logged with
    its traceback, without local variables.
    """
    if isinstance(error, (Refused, StoreError)):
        return error_response(error.code, error.message)
    if isinstance(error, DecodeError):
        return error_response("bad_request", str(error))
    if isinstance(error, ConfigError):
        return error_response("config_invalid", str(error))
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        code, message = _HTTP_ERRORS.get(error.code, ("bad_request", "The request is not valid."))
        response = error_response(code, message, error.code)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response
    _log.error("a request failed unexpectedly", exc_info=error)
    return error_response("internal", "The server failed at this request; its log says why.")
