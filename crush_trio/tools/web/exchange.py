"""One GET of a tool: redirects with a policy for each hop, a body that is bounded, and an end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.http.failures import HttpFailure
from crush_trio.http.quoting import quotable
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.web.unpack import Unpacker, UnpackError
from crush_trio.tools.web.urls import WebUrl, joined
from crush_trio.tools.web.web import Reach

if TYPE_CHECKING:
    import httpx2

_MOVED: Final = frozenset({301, 302, 303, 307, 308})


@attrs.frozen(eq=False)
class Answer:
    """The head of an answer that is no redirect, and a way to its body."""

    url: WebUrl
    status: int
    content_type: str
    charset: str
    length: int | None
    _response: httpx2.Response
    _unpacker: Unpacker

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The unpacked body; each piece is small.

        Raises:
            ToolProblem: It broke off, cannot be unpacked, or unpacks to far too much.
        """
        try:
            async with aclosing(self._response.aiter_raw()) as packed:
                async for data in packed:
                    for piece in self._unpacker.feed(data):
                        yield piece  # noqa: ASYNC119  # whoever reads this closes it
                        await trio.lowlevel.checkpoint()
            self._unpacker.end()
        except UnpackError as exc:
            raise ToolProblem(f"The answer of {self.url.origin} cannot be used: {exc}.") from None
        except HttpFailure as exc:
            raise ToolProblem(str(exc)) from None


@asynccontextmanager
async def opened(
    url: WebUrl,
    reach: Reach,
    *,
    within_s: float,
    accept: str,
    packed: bool = True,
    any_host: bool = False,
) -> AsyncIterator[Answer]:
    """Ask for a URL; connections and answer are closed when the block is left.

    Redirects are followed at most `FETCH_REDIRECTS` times; none leads from https to http. One to
    another host is followed only with ``any_host``: whoever allowed the first host has not seen
    the second.

    Args:
        within_s: Everything, the block included, may take this long.
        packed: Whether the body may come packed; one that comes so all the same is unpacked.

    Raises:
        ToolProblem: It could not be had, or not in time; one sentence.
    """
    headers = {"accept": accept, "accept-encoding": "gzip" if packed else "identity"}
    with trio.move_on_after(within_s) as patience:
        async with reach.connections() as connections:
            await connections.ready()
            try:
                response, found = await _followed(url, connections, headers, any_host)
            except HttpFailure as exc:
                raise ToolProblem(str(exc)) from None
            try:
                yield _answer(response, found)
            finally:
                with trio.move_on_after(limits.HTTP_CLOSE_S, shield=True):
                    await response.aclose()  # one synchronous step in our transport
    if patience.cancelled_caught:
        raise ToolProblem(f"{url.origin} did not answer completely within {within_s:g} s.")


async def _followed(
    url: WebUrl, connections: Connections, headers: dict[str, str], any_host: bool
) -> tuple[httpx2.Response, WebUrl]:
    here = url
    for _ in range(limits.FETCH_REDIRECTS + 1):
        http = connections.client()
        request = http.build_request("GET", str(here), headers=headers)
        response = await http.send(request, stream=True)
        location = response.headers.get("location")
        if response.status_code not in _MOVED or location is None:
            return response, here
        with trio.move_on_after(limits.HTTP_CLOSE_S, shield=True):
            await response.aclose()
        here = _next(here, location, any_host)
    raise ToolProblem(f"{url} redirects more than {limits.FETCH_REDIRECTS} times.")


def _next(here: WebUrl, location: str, any_host: bool) -> WebUrl:
    try:
        there = joined(here, location)
    except ValueError as problem:
        raise ToolProblem(f"{here} redirects, but {problem}.") from None
    if here.scheme == "https" and there.scheme == "http":
        raise ToolProblem(f"{here} redirects to {there}, which is not encrypted. Not followed.")
    if not any_host and _site(there) != _site(here):
        raise ToolProblem(
            f"{here} redirects to another host: {there}. Call the tool again with that URL if it "
            "is what you want."
        )
    return there


def _site(url: WebUrl) -> tuple[str, int | None]:
    """What a person or a rule that allowed a URL has allowed: its host, also with TLS."""
    return url.host.name, None if url.has_usual_port else url.port


def _answer(response: httpx2.Response, url: WebUrl) -> Answer:
    headers = response.headers
    kind, _, rest = headers.get("content-type", "").partition(";")
    charset = ""
    for parameter in rest.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'")
    length = headers.get("content-length", "")
    try:
        unpacker = Unpacker(headers.get("content-encoding", ""))
    except UnpackError as exc:
        raise ToolProblem(f"The answer of {url.origin} cannot be used: {exc}.") from None
    return Answer(
        url,
        response.status_code,
        quotable(kind.strip().lower()),
        charset,
        int(length) if length.isascii() and length.isdecimal() else None,
        response,
        unpacker,
    )
