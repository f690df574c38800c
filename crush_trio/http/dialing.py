"""A new connection: TCP, perhaps through a proxy, perhaps with TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeAlias

import attrs
import h11
import trio

from crush_trio import limits
from crush_trio.http.certificates import Certificates
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.proxies import Proxy, bracketed, is_loopback


@attrs.frozen
class Origin:
    """The other end of a connection, as a URL names it."""

    scheme: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """Host and port, for a sentence."""
        return f"{bracketed(self.host)}:{self.port}"


class Handle(Protocol):
    """What of a socket can be done without waiting."""

    def close(self) -> None:
        """Close it; idempotent."""
        ...

    def is_readable(self) -> bool:
        """Whether something has come, or its end."""
        ...


@attrs.frozen(eq=False)
class Line:
    """An open connection. Closing it is one synchronous step: nothing waits for the other side."""

    stream: trio.abc.Stream
    socket: Handle

    def close(self) -> None:
        """Close it at once; what was not sent is lost. Idempotent."""
        self.socket.close()


Dial: TypeAlias = Callable[[Origin, Proxy | None, Certificates], Awaitable[Line]]


async def dial(
    origin: Origin,
    proxy: Proxy | None,
    certificates: Certificates,
    connecting: Callable[[], Awaitable[Line]] | None = None,
) -> Line:
    """A connection on which requests for ``origin`` can be made.

    With a proxy and ``http`` it ends at the proxy, which is told with each request where to go;
    with ``https`` it is a tunnel. If anything fails, or is cancelled, nothing stays open.

    Args:
        connecting: Makes the connection below everything else; default `connect`.

    Raises:
        HttpFailure: `HttpKind.NETWORK`, `HttpKind.TLS` or `HttpKind.PROXY`.
    """
    line = await (connect(origin, proxy) if connecting is None else connecting())
    try:
        if proxy is not None and proxy.scheme == "https":
            line = await _secure(line, proxy.host, certificates)
        if origin.scheme == "https":
            if proxy is not None:
                await _tunnel(line, origin, proxy)
            line = await _secure(line, origin.host, certificates)
    except BaseException:
        line.close()
        raise
    return line


async def connect(origin: Origin, proxy: Proxy | None) -> Line:
    """A bare TCP connection to the proxy, or to the origin if there is none.

    Raises:
        HttpFailure: `HttpKind.NETWORK`, `HttpKind.NOBODY` or `HttpKind.PROXY`.
    """
    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        if proxy is None:
            raise no_connection(origin, exc) from None
        if isinstance(exc, socket.gaierror):
            raise no_address(proxy.name, HttpKind.PROXY, exc) from None
        reason = f"No connection to {proxy.name}: {_reason(exc)}."
        raise HttpFailure(HttpKind.PROXY, reason) from None
    except UnicodeError as exc:
        name = origin.name if proxy is None else proxy.name
        kind = HttpKind.NETWORK if proxy is None else HttpKind.PROXY
        raise HttpFailure(kind, f"No connection to {name}: {_reason(exc)}.") from None
    return Line(stream, stream.socket)


def no_address(name: str, kind: HttpKind, error: Exception) -> HttpFailure:
    """Why a name could not be resolved, in one sentence."""
    why = getattr(error, "strerror", None) or "no such host"
    return HttpFailure(kind, f"The address of {name} cannot be found: {why}.")


def no_connection(origin: Origin, error: OSError | None) -> HttpFailure:
    """Why no connection to an origin could be made; without an error nobody answered."""
    if error is None:
        return HttpFailure(HttpKind.NETWORK, f"No connection to {origin.name}: nobody answered.")
    if isinstance(error, socket.gaierror):
        return no_address(origin.name, HttpKind.NETWORK, error)
    if is_loopback(origin.host) and _is_refused(error):
        return HttpFailure(HttpKind.NOBODY, f"Nothing listens on {origin.name}.")
    return HttpFailure(HttpKind.NETWORK, f"No connection to {origin.name}: {_reason(error)}.")


async def _secure(line: Line, host: str, certificates: Certificates) -> Line:
    context = await certificates.context()
    stream: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
        line.stream, context, server_hostname=host, https_compatible=True
    )
    with _handshake_failures(host, certificates):
        await stream.do_handshake()
    return Line(stream, line.socket)


@contextlib.contextmanager
def _handshake_failures(host: str, certificates: Certificates) -> Iterator[None]:
    try:
        yield
    except (trio.BrokenResourceError, ssl.SSLError) as exc:
        error = exc if isinstance(exc, ssl.SSLError) else exc.__cause__
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            raise certificates.failure(host, error) from None
        raise HttpFailure(
            HttpKind.NETWORK, f"{host} closed the connection during the TLS handshake."
        ) from None
    except ssl.CertificateError as exc:  # a host name that no certificate could have
        raise HttpFailure(HttpKind.TLS, f"No TLS connection to {host}: {exc}.") from None


async def _tunnel(line: Line, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy to connect us through (RFC 9110, 9.3.6)."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.HTTP_HEAD_BYTES)
    target = origin.name.encode()
    headers = [(b"host", target)]
    if proxy.authorization:
        headers.append((b"proxy-authorization", proxy.authorization))
    request = http.send(h11.Request(method=b"CONNECT", target=target, headers=headers))
    end = http.send(h11.EndOfMessage())
    try:
        await line.stream.send_all((request or b"") + (end or b""))
        while not isinstance(event := http.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                data = await line.stream.receive_some(limits.HTTP_RECEIVE_BYTES)
                if not data:
                    raise trio.BrokenResourceError
                http.receive_data(bytes(data))
    except trio.BrokenResourceError:
        raise HttpFailure(
            HttpKind.PROXY, f"{_first_big(proxy.name)} closed the connection."
        ) from None
    except h11.RemoteProtocolError:
        raise HttpFailure(
            HttpKind.PROXY, f"{_first_big(proxy.name)} does not speak HTTP."
        ) from None
    if not 200 <= event.status_code < 300:
        raise _refusal(event.status_code, origin, proxy)


def _refusal(status: int, origin: Origin, proxy: Proxy) -> HttpFailure:
    who = _first_big(proxy.name)
    if status == 407:
        return HttpFailure(
            HttpKind.PROXY, f"{who} wants a name and password, or others than these."
        )
    if status in (502, 503, 504):  # it is willing, but could not get through: that may pass
        return HttpFailure(HttpKind.NETWORK, f"{who} cannot reach {origin.name}: status {status}.")
    return HttpFailure(
        HttpKind.PROXY, f"{who} refuses connections to {origin.name}: status {status}."
    )


def _is_refused(error: BaseException) -> bool:
    """Whether every address that was tried refused."""
    while isinstance(error, OSError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return all(_is_refused(each) for each in error.exceptions)
    return isinstance(error, ConnectionRefusedError)


def _reason(error: BaseException) -> str:
    """Why connecting failed; of several addresses tried, the first one's reason."""
    while not isinstance(error, OSError) or error.errno is None:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return str(error) or "it failed"
    return os.strerror(error.errno).lower()


def _first_big(text: str) -> str:
    return text[:1].upper() + text[1:]
