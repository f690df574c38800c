"""Where a server is, and a stream to it whose peer has been checked."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import trio

from crush_trio.client.errors import BadUsage, Unreachable, UnsafeSocket
from crush_trio.limits import CONNECT_TIMEOUT_S


class BadServerUrl(BadUsage):
    """A ``--server`` value that names no place we can talk to."""


@attrs.frozen
class UnixEndpoint:
    """A unix socket by its path."""

    path: Path

    @property
    def url(self) -> str:
        """As ``--server`` takes it."""
        return f"unix://{self.path}"

    @property
    def host_header(self) -> str:
        """The ``Host`` of a request; the server does not check it on a unix socket."""
        return "localhost"


@attrs.frozen
class TcpEndpoint:
    """A host and a port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As ``--server`` takes it."""
        return f"tcp://{self.host_header}"

    @property
    def host_header(self) -> str:
        """The ``Host`` of a request, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Endpoint = UnixEndpoint | TcpEndpoint


def parse_server_url(text: str) -> Endpoint:
    """The place a ``--server`` value names: ``unix:///PATH``, ``tcp://HOST:PORT`` or ``http://``.

    Raises:
        BadServerUrl: One sentence that shows the accepted forms.
    """
    forms = "use unix:///PATH or tcp://HOST:PORT"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise BadServerUrl(f"--server {text}: {exc}; {forms}") from exc
    if parts.scheme == "unix":
        path = parts.netloc + parts.path
        if not path.startswith("/"):
            raise BadServerUrl(f"--server {text}: a unix socket needs an absolute path; {forms}")
        return UnixEndpoint(Path(path))
    if parts.scheme in ("https", "wss"):
        raise BadServerUrl(f"--server {text}: this version speaks no TLS; {forms}")
    if parts.username or parts.password:
        raise BadServerUrl(f"--server: a URL must not hold a token; use --token-file; {forms}")
    if parts.scheme not in ("tcp", "http") or not parts.hostname or port is None:
        raise BadServerUrl(f"--server {text}: not an address; {forms}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadServerUrl(f"--server {text}: an address has no path; {forms}")
    return TcpEndpoint(parts.hostname, port)


async def open_stream(endpoint: Endpoint, timeout: float = CONNECT_TIMEOUT_S) -> trio.SocketStream:
    """A connected stream; on a unix socket the peer is our user or root (T9).

    Raises:
        Unreachable: Nothing listens there, or nobody took the connection within ``timeout`` s.
        UnsafeSocket: The peer is somebody else; nothing was sent.
    """
    with trio.move_on_after(timeout):
        try:
            if isinstance(endpoint, UnixEndpoint):
                stream = await trio.open_unix_socket(str(endpoint.path))
                _check_peer(stream, endpoint)
                return stream
            return await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except (OSError, trio.BrokenResourceError) as exc:
            raise Unreachable(
                f"no server answers at {endpoint.url}: {_reason(exc)}", refused=True
            ) from exc
        except ValueError as exc:  # a path too long for a unix socket
            raise Unreachable(f"no server can be at {endpoint.url}: {exc}", refused=True) from exc
    raise Unreachable(f"the server at {endpoint.url} took no connection within {timeout:g} s")


def _reason(exc: BaseException) -> str:
    """The system's own words, wherever Trio has put them."""
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno in errno.errorcode:
        return os.strerror(exc.errno).lower()
    inner = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc.__cause__
    return _reason(inner) if inner is not None else str(exc) or type(exc).__name__


def _check_peer(stream: trio.SocketStream, endpoint: UnixEndpoint) -> None:
    uid = peer_uid(stream.socket)
    if uid is not None and uid not in (os.getuid(), 0):
        stream.socket.close()
        raise UnsafeSocket(
            f"{endpoint.path} is served by user {uid}, not by you; nothing was sent: "
            "remove it or name another server"
        )


def peer_uid(sock: trio.socket.SocketType) -> int | None:
    """The user of the process at the other end of a unix socket, or ``None`` if unknowable."""
    if hasattr(socket, "SO_PEERCRED"):  # Linux
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])
    if sys.platform.startswith("darwin"):
        raw = sock.getsockopt(0, 0x001, 76)  # LOCAL_PEERCRED: version, uid, groups
        return int(struct.unpack_from("=II", raw)[1])
    return None
