"""Binding the server's addresses ourselves, so that no living server is ever pushed aside."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import attrs
import trio

from crush_trio.limits import LISTEN_BACKLOG, SOCKET_PROBE_S
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.sockets import check_socket_path, make_socket_directory


@attrs.frozen
class UnixBind:
    """A unix socket to listen on."""

    path: Path


@attrs.frozen
class TcpBind:
    """A host (name or address, no brackets) and port to listen on; port 0 means any."""

    host: str
    port: int


Bind = UnixBind | TcpBind


def parse_host(url: str) -> Bind:
    """The address that ``--host`` names: ``unix:///PATH`` or ``tcp://HOST:PORT``.

    Raises:
        ConfigError: One sentence that shows the accepted forms.
    """
    forms = "use unix:///PATH or tcp://HOST:PORT"
    scheme, found, rest = url.partition("://")
    if found and scheme == "unix":
        path = Path(rest)
        check_socket_path(path)
        return UnixBind(path)
    if not found or scheme != "tcp":
        raise ConfigError(f"--host {url} is not an address; {forms}.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"--host {url}: {exc}; {forms}.") from exc
    extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not host or port is None or extra:
        raise ConfigError(f"--host {url} is not an address; {forms}.")
    return TcpBind(host, port)


class BoundSocket:
    """One bound and listening address; leaving it as a context unlinks, closes and unlocks.

    Attributes:
        url: What a client connects to, with the real port.
        names: Host and port by which this address may be called, for the gate; empty for unix.
    """

    def __init__(
        self,
        sock: socket.socket,
        url: str,
        names: frozenset[tuple[str, int]] = frozenset(),
        path: Path | None = None,
        lock: int | None = None,
    ) -> None:
        self.url = url
        self.names = names
        self._sock = sock
        self._lock = lock
        self._path = path
        self._inode = None if path is None else _inode(path)
        self._listener: trio.SocketListener | None = None

    @property
    def listener(self) -> trio.SocketListener:
        """For `serve_http`, which closes it."""
        if self._listener is None:
            self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._sock))
        return self._listener

    def retire(self) -> None:
        """Unlinks the socket if it is still ours; one synchronous step, harmless if repeated.

        From here on nobody finds this server; connections already made go on.
        """
        if self._path is not None and self._inode is not None and _inode(self._path) == self._inode:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._inode = None

    def close(self) -> None:
        """Retires the address, closes its socket and lets the next server have the path."""
        self.retire()
        if self._listener is not None and self._sock.fileno() != -1:
            self._listener.socket.close()  # wakes a task that accepts on it
        self._sock.close()
        if self._lock is not None and self._path is not None:
            _release_lock(self._path, self._lock)
            self._lock = None

    def __enter__(self) -> BoundSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bind(address: Bind, *, insecure_plaintext: bool = False) -> BoundSocket:
    """Binds and listens; when this returns, clients can connect.

    Args:
        address: From `parse_host`, or the default socket's path.
        insecure_plaintext: Whether a TCP address that others can reach is allowed.

    Raises:
        ConfigError: One sentence: taken, not ours, too long, not loopback.
    """
    if isinstance(address, UnixBind):
        return _bind_unix(address.path)
    return _bind_tcp(address, insecure_plaintext)


def _bind_unix(path: Path) -> BoundSocket:
    check_socket_path(path)
    make_socket_directory(path.parent, os.getuid())
    lock = _take_lock(path)
    try:
        _clear_dead(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Linux makes the file with the mode of the open socket, so it is never wider than
            # this for an instant, whatever the umask; the directory keeps others out besides.
            with contextlib.suppress(OSError):
                os.fchmod(sock.fileno(), 0o600)
            sock.bind(os.fspath(path))
            os.chmod(path, 0o600)
            sock.listen(LISTEN_BACKLOG)
            return BoundSocket(sock, f"unix://{path}", path=path, lock=lock)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        _release_lock(path, lock)
        raise ConfigError(f"The socket {path} cannot be bound: {exc.strerror}.") from exc
    except BaseException:
        _release_lock(path, lock)
        raise


def _take_lock(path: Path) -> int:
    """A descriptor that holds the lock of ``path`` until it is closed, also by our death.

    The holder removes the file before it lets go (`_release_lock`). So whoever has locked a
    file looks whether that is still the one with this name, and begins again if it is not: a lock
    on a removed file guards nothing.
    """
    name = _lock_name(path)
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600)
        except OSError as exc:
            raise ConfigError(f"The lock {name} cannot be opened: {exc.strerror}.") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        status = os.fstat(descriptor)
        if _inode(name) == (status.st_dev, status.st_ino):
            break
        os.close(descriptor)  # removed by its holder since we opened it
    if not locked:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigError(
            f"A server (process {holder}) already listens on {path}; stop it with"
            " `crush-trio stop`, or name another socket with --host."
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _release_lock(path: Path, descriptor: int) -> None:
    """Removes the lock's file while it is still held, and lets go."""
    with contextlib.suppress(OSError):  # somebody else removed it, or took the directory's rights
        _lock_name(path).unlink()
    os.close(descriptor)


def _lock_name(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _clear_dead(path: Path) -> None:
    """Removes the socket of a dead server; the lock is held, so nobody binds meanwhile."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"{path} exists and is no socket; remove it or name another one.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(SOCKET_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as exc:
            raise ConfigError(
                f"Something holds the socket {path} and does not answer ({exc});"
                " end it or name another socket with --host."
            ) from exc
    raise ConfigError(
        f"Another server already listens on {path}; stop it, or name another socket with --host."
    )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _bind_tcp(address: TcpBind, insecure_plaintext: bool) -> BoundSocket:
    family, host = _resolve(address)
    if not insecure_plaintext and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise ConfigError(
            f"tcp://{_bracket(address.host)}:{address.port} can be reached by others, who would"
            " see every word: bind 127.0.0.1 and tunnel (ssh -L), or say --insecure-plaintext."
        )
    url = f"tcp://{_bracket(host)}:{address.port}"
    with _sentences(url):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, address.port))
            sock.listen(LISTEN_BACKLOG)
        except BaseException:
            sock.close()
            raise
    port = sock.getsockname()[1]
    names = frozenset({(address.host.lower(), port), (host, port)})
    return BoundSocket(sock, f"tcp://{_bracket(host)}:{port}", names=names)


def _resolve(address: TcpBind) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise ConfigError(f"--host: {address.host} is no address of a machine: {exc}.") from exc
    # IPv4 first, so that `localhost` is 127.0.0.1 on every machine.
    family, _, _, _, name = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, str(name[0])


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _sentences(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            reason = "is in use by another program; choose another port, or 0 for any"
        elif exc.errno == errno.EACCES:
            reason = "needs rights you do not have; choose a port above 1023, or 0 for any"
        elif exc.errno == errno.EADDRNOTAVAIL:
            reason = "is no address of this machine; choose 127.0.0.1 or one of its own"
        else:
            reason = f"cannot be bound: {exc.strerror}"
        raise ConfigError(f"{url} {reason}.") from exc
