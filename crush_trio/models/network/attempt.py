"""One request to a provider, from connecting to the end of its answer, within four time limits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import orjson
import trio

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelEvent, StepEnd, UsageSoFar
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.models.dialects.port import AnswerReader, Dialect, HttpCall
from crush_trio.models.failures import Failure, Kind, http_failures, of_http
from crush_trio.models.network.hiding import hidden
from crush_trio.models.network.retry import retry_after_s, should_retry
from crush_trio.models.network.sse import EventDecoder
from crush_trio.models.provider import Provider, Target

if TYPE_CHECKING:
    import httpx2

_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""Content encodings that are decoded without further libraries."""


@attrs.frozen
class TimeLimits:
    """How long a provider may take, in seconds; see `limits` for what each begins and ends with."""

    connect_s: float = limits.MODEL_CONNECT_S
    first_byte_s: float = limits.MODEL_FIRST_BYTE_S
    silence_s: float = limits.MODEL_SILENCE_S
    call_s: float = limits.MODEL_CALL_S

    @classmethod
    def of(cls, provider: Provider) -> TimeLimits:
        """The usual ones; what runs on this machine accepts a connection soon, or not at all."""
        return cls(connect_s=limits.MODEL_LOCAL_CONNECT_S) if provider.is_local else cls()


class Clock:
    """One deadline that moves with what a request is waiting for.

    ``scope`` is cancelled when it passes; `failure` then says what took too long.
    """

    def __init__(self, times: TimeLimits, who: str) -> None:
        self._times = times
        self._who = who
        self._call_ends = trio.current_time() + times.call_s
        self.scope = trio.CancelScope()
        self._content = False
        self.note("waits")

    def note(self, progress: str) -> None:
        """The request has come so far (a word of `transport.Progress`)."""
        self._waits_for = progress
        waits_to_connect = progress in ("waits", "connects")
        self._until(self._times.connect_s if waits_to_connect else self._times.first_byte_s)

    def heard(self) -> None:
        """The answer has begun; nothing of it is content yet."""
        self._waits_for = "content"  # the deadline stays: a head alone is no sign of progress

    def content(self) -> None:
        """A piece of content came."""
        self._content = True

    def moves(self) -> None:
        """Move the deadline if content came since; once for each read, because that has a price."""
        if self._content:
            self._content = False
            self._waits_for = "more"
            self._until(self._times.silence_s)

    def _until(self, seconds: float) -> None:
        self._limit_s = seconds
        self.scope.deadline = min(trio.current_time() + seconds, self._call_ends)

    def failure(self) -> Failure:
        """What took too long, after `scope` was cancelled by its deadline."""
        who, limit = self._who, f"{self._limit_s:g} s"
        if self.scope.deadline >= self._call_ends:
            said = f"{who} did not come to the end of its answer within {self._times.call_s:g} s"
            return Failure(Kind.SILENT, f"{said}.")
        kind, said = {
            "waits": (
                Kind.NETWORK,
                f"{limits.HTTP_CONNECTIONS} requests to models are under way, "
                f"and none of them ended within {limit}",
            ),
            "connects": (Kind.NETWORK, f"No connection to {who} could be made within {limit}"),
            "sends": (Kind.SILENT, f"{who} did not take the whole request within {limit}"),
            "sent": (Kind.SILENT, f"{who} took the request but sent nothing for {limit}"),
            "content": (Kind.SILENT, f"{who} began to answer but sent no content for {limit}"),
            "more": (Kind.SILENT, f"{who} stopped in the middle of its answer for {limit}"),
        }[self._waits_for]
        return Failure(kind, f"{said}.")


async def attempt(
    http: httpx2.AsyncClient,
    dialect: Dialect,
    call: HttpCall,
    make_reader: Callable[[Emit], AnswerReader],
    target: Target,
    emit: Emit,
    times: TimeLimits,
) -> StepEnd:
    """Make one request and read its answer to the end, handing each piece to ``emit``.

    When it is left before the end, for whatever reason, its connection is closed in that moment.

    Raises:
        Failure: It did not work out; what was emitted until then must be forgotten.
    """
    clock = Clock(times, target.provider.name or target.provider.id)

    def note(event: ModelEvent) -> None:
        if type(event) is not UsageSoFar:
            clock.content()
        emit(event)

    with clock.scope, hidden(call.headers, target.provider), http_failures():
        response = await send(http, "POST", call, clock.note)
        try:
            clock.heard()
            await _check_head(response, dialect, target, call)
            reader = make_reader(note)
            await _read(response, reader, clock)
        finally:
            with trio.move_on_after(limits.HTTP_CLOSE_S, shield=True):
                await response.aclose()  # one synchronous step in our transport
        return reader.end()
    raise clock.failure()


async def send(
    http: httpx2.AsyncClient, method: str, call: HttpCall, progress: Callable[[str], None]
) -> httpx2.Response:
    """Send a request; the head of its answer. The caller closes the response.

    Raises:
        Failure: There is no answer, or the address is none.
    """
    import httpx2

    from crush_trio.http.transport import PROGRESS

    check_url(call.url)
    content = None
    try:
        headers = httpx2.Headers(call.headers)
        if method == "POST":
            headers.setdefault("content-type", "application/json")
            content = orjson.dumps(call.body)
        extensions = {PROGRESS: progress}
        request = http.build_request(
            method, call.url, headers=headers, content=content, extensions=extensions
        )
    except httpx2.InvalidURL as exc:
        raise Failure(Kind.URL, f"{_shown(call.url)} is not an address: {exc}.") from None
    except UnicodeEncodeError:
        unfit = "A header of the request holds characters that HTTP does not allow."
        raise of_http(HttpFailure(HttpKind.HEADER, unfit)) from None
    except orjson.JSONEncodeError as exc:
        raise Failure(Kind.REFUSED, f"The request cannot be written as JSON: {exc}.") from None
    with http_failures():
        return await http.send(request, stream=True)


def check_url(url: str) -> None:
    """Refuse what cannot be asked.

    Raises:
        Failure: `Kind.URL`.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise Failure(
            Kind.URL,
            f"{_shown(url)!r} is not an address: set base_url to http:// or https:// and a host.",
        )


async def _check_head(
    response: httpx2.Response, dialect: Dialect, target: Target, call: HttpCall
) -> None:
    headers = {key.lower(): value for key, value in response.headers.items()}
    status = response.status_code
    if 300 <= status < 400:
        raise _redirect(call.url, headers)
    if headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise Failure(
            Kind.MALFORMED,
            f"{target.provider.name} sends its answer encoded as "
            f"{headers['content-encoding'][:40]!r}, which nobody asked for.",
        )
    if not 200 <= status < 300:
        if status == 407:
            raise Failure(
                Kind.PROXY,
                f"The proxy on the way to {urlsplit(call.url).hostname} wants a name and password, "
                "or others than these: write them into HTTP_PROXY.",
            )
        body = bytearray()
        with trio.move_on_after(limits.MODEL_FAILURE_S), contextlib.suppress(Failure):
            # what came of it until it broke off is worth reading, too
            await read_into(body, response, limits.MODEL_FAILURE_BYTES)
        failure = dialect.failure(status, headers, bytes(body), target)
        if failure.retry_after_s is None:
            failure.retry_after_s = retry_after_s(headers)
        failure.should_retry = should_retry(headers)
        raise failure
    if headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html":
        raise Failure(
            Kind.URL,
            f"{_shown(call.url)} is a web page, not the interface of a model: check base_url.",
        )


def _redirect(url: str, headers: Mapping[str, str]) -> Failure:
    """A key is shown to the configured host only, so nobody is followed elsewhere."""
    to = _shown(headers.get("location", ""))
    where = f" to {to}" if to else ""
    return Failure(Kind.URL, f"{_shown(url)} has moved{where}: set base_url to the new address.")


def _shown(url: str) -> str:
    """A URL without what may be secret: user, password, query and fragment."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, slashes, rest = bare.partition("://")
    if not slashes:
        return bare[: limits.QUOTED_CHARS_MAX]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:200]


async def read_into(body: bytearray, response: httpx2.Response, most_bytes: int) -> None:
    """Add an answer's body to ``body``, to its end or until there are ``most_bytes`` of it.

    Raises:
        Failure: It broke off.
    """
    import httpx2

    try:
        with http_failures():
            async with aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) >= most_bytes:
                        return
    except httpx2.DecodingError as exc:
        raise _not_decompressed(exc) from None


def _not_decompressed(error: Exception) -> Failure:
    return Failure(Kind.MALFORMED, f"The answer cannot be decompressed: {error}.")


async def _read(response: httpx2.Response, reader: AnswerReader, clock: Clock) -> None:
    import httpx2

    decoder = EventDecoder()
    feed = reader.feed
    try:
        async with aclosing(response.aiter_bytes()) as pieces:
            async for piece in pieces:
                for event, data in decoder.feed(piece):
                    feed(event, data)
                    if reader.is_done:
                        await _drain(pieces)
                        return
                clock.moves()
        for event, data in decoder.end():
            feed(event, data)
    except httpx2.DecodingError as exc:
        raise _not_decompressed(exc) from None


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read the rest if it is at hand, so that the connection can be used again."""
    import httpx2

    nothing = contextlib.suppress(HttpFailure, httpx2.DecodingError)
    with trio.move_on_after(limits.MODEL_DRAIN_S), nothing:
        async for _ in pieces:  # whatever it is, the answer was complete before
            pass
