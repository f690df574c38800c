"""What can go wrong between us and a provider, sorted by what helps against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import attrs

from crush_trio.agent.ports import ModelError
from crush_trio.http.failures import HttpFailure, HttpKind


class Kind(Enum):
    """The class of a failure; its value is the error code that clients see."""

    RATE_LIMIT = "rate_limited"
    OVERLOAD = "provider_overloaded"
    SERVER = "provider_error"
    NETWORK = "provider_unreachable"
    SILENT = "provider_silent"
    TRUNCATED = "truncated"
    MALFORMED = "malformed_answer"
    EMPTY = "empty_answer"
    QUOTA = "quota_exceeded"
    AUTH = "provider_auth"
    FILTERED = "content_filtered"
    TOO_LONG = "context_too_long"
    NO_MODEL = "model_not_found"
    NO_TOOLS = "tools_unsupported"
    REFUSED = "provider_refused"
    URL = "provider_url"
    TLS = "provider_tls"
    PROXY = "provider_proxy"


@attrs.frozen
class Class:
    """What a kind of failure means.

    ``retries`` is how often the request may be made again because of it, within the bounds of the
    whole; ``may_work_later`` is the ``retryable`` that clients see; ``title`` is short (R53).
    """

    retries: int
    may_work_later: bool
    title: str


_OFTEN = 3
"""As often as Crush retries (CW 5.6)."""

CLASSES: dict[Kind, Class] = {
    Kind.RATE_LIMIT: Class(_OFTEN, True, "Rate limited"),
    Kind.OVERLOAD: Class(_OFTEN, True, "Provider overloaded"),
    Kind.SERVER: Class(_OFTEN, True, "Provider Error"),
    Kind.NETWORK: Class(_OFTEN, True, "Provider unreachable"),
    Kind.SILENT: Class(1, True, "Provider silent"),
    Kind.TRUNCATED: Class(_OFTEN, True, "Answer broke off"),
    Kind.MALFORMED: Class(1, True, "Malformed answer"),
    Kind.EMPTY: Class(1, True, "Empty answer"),
    Kind.QUOTA: Class(0, False, "Quota exceeded"),
    Kind.AUTH: Class(0, False, "Unauthorized"),
    Kind.FILTERED: Class(0, False, "Content filtered"),
    Kind.TOO_LONG: Class(0, False, "Context too long"),
    Kind.NO_MODEL: Class(0, False, "Model not found"),
    Kind.NO_TOOLS: Class(0, False, "Model without tools"),
    Kind.REFUSED: Class(0, False, "Request refused"),
    Kind.URL: Class(0, False, "Wrong address"),
    Kind.TLS: Class(0, False, "TLS failed"),
    Kind.PROXY: Class(0, False, "Proxy refused"),
}


class Failure(Exception):
    """One attempt at a request failed. Inside `models` only: a run sees a `ModelError`.

    Args:
        kind: Its class.
        message: One sentence for people that says what to do; never a key, never a whole body.
        retry_after_s: What the provider asked us to wait, in seconds; ``None`` if it did not.

    ``should_retry`` is what its ``x-should-retry`` said about asking again; ``None`` if nothing.
    """

    should_retry: bool | None = None

    def __init__(self, kind: Kind, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after_s = retry_after_s

    def error(self) -> ModelError:
        """The same as the run's error."""
        meaning = CLASSES[self.kind]
        return ModelError(
            self.kind.value,
            self.message,
            retryable=meaning.may_work_later,
            title=meaning.title,
        )


_OF_HTTP = {
    HttpKind.NETWORK: Kind.NETWORK,
    HttpKind.NOBODY: Kind.NETWORK,
    HttpKind.ADDRESS: Kind.URL,
    HttpKind.PROXY: Kind.PROXY,
    HttpKind.TLS: Kind.TLS,
    HttpKind.HEADER: Kind.AUTH,
    HttpKind.TRUNCATED: Kind.TRUNCATED,
    HttpKind.MALFORMED: Kind.MALFORMED,
}
_CURES = {
    HttpKind.NOBODY: ": start the model server there, or set base_url.",
    HttpKind.HEADER: ": check the provider's api_key and extra_headers.",
}


def of_http(failure: HttpFailure) -> Failure:
    """The same as a provider's failure, with what helps against it in the configuration."""
    cure = _CURES.get(failure.kind)
    message = failure.message if cure is None else failure.message.removesuffix(".") + cure
    made = Failure(_OF_HTTP[failure.kind], message)
    if failure.kind is HttpKind.NOBODY:
        # Waiting starts no server: who asked should hear at once that there is none.
        made.should_retry = False
    return made


@contextmanager
def http_failures() -> Iterator[None]:
    """Failures of a connection that are raised inside come out as a provider's."""
    try:
        yield
    except HttpFailure as failure:
        raise of_http(failure) from None
