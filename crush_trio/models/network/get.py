"""One small GET: a list of models, a catalogue, a look whether somebody is there."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.models.dialects.port import HttpCall
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.network.attempt import check_url, read_into, send


@attrs.frozen
class Answer:
    """A whole answer; keys of ``headers`` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def get(
    connections: Connections,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    is_local: bool = False,
    within_s: float = limits.MODEL_GET_S,
    most_bytes: int = limits.MODEL_GET_BYTES,
) -> Answer:
    """Ask once, without retries and without following redirects.

    Raises:
        Failure: There is no answer within ``within_s`` seconds or ``most_bytes`` bytes, or the
            address is none. A status of any kind is an answer.
    """
    check_url(url)
    body = bytearray()
    with trio.move_on_after(within_s):
        await connections.ready()
        http = connections.client(is_local=is_local)
        response = await send(http, "GET", HttpCall(url, headers or {}, {}), lambda _: None)
        try:
            await read_into(body, response, most_bytes + 1)
        finally:
            with trio.move_on_after(limits.HTTP_CLOSE_S, shield=True):
                await response.aclose()  # one synchronous step in our transport
        if len(body) > most_bytes:
            raise Failure(Kind.MALFORMED, f"The answer of {_host(url)} exceeds {most_bytes} bytes.")
        names = {key.lower(): value for key, value in response.headers.items()}
        return Answer(response.status_code, names, bytes(body))
    raise Failure(Kind.SILENT, f"{_host(url)} did not answer within {within_s:g} s.")


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or url[:60]
