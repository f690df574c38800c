"""Who is at the other end of a connection, as the kernel says it."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final, Protocol

import attrs

from crush_trio.limits import TCP_ALIVE_AFTER_S, TCP_ALIVE_EVERY_S

_PLATFORM: str = sys.platform
_SOL_LOCAL: Final = 0  # macOS, <sys/un.h>
_LOCAL_PEERCRED: Final = 0x001
_LOCAL_PEERPID: Final = 0x002
_XUCRED_BYTES: Final = 76  # cr_version, cr_uid, cr_ngroups, cr_groups[16]
_UCRED: Final = struct.Struct("3i")


class Socket(Protocol):
    """What is needed of a socket, Trio's or the standard library's."""

    @property
    def family(self) -> int:
        """As `socket.socket.family`."""

    def getpeername(self) -> object:
        """As `socket.socket.getpeername`."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As `socket.socket.getsockopt` with a length."""


class Settable(Protocol):
    """A socket whose options can be set."""

    @property
    def family(self) -> int:
        """As `socket.socket.family`."""

    def setsockopt(self, level: int, optname: int, value: int, /) -> None:
        """As `socket.socket.setsockopt`."""


@attrs.frozen
class Peer:
    """The other end of a connection.

    Attributes:
        address: ``IP`` of a TCP peer, ``unix`` on the unix socket.
        is_unix: Whether the connection came over the unix socket.
        pid: Of the process that connected, or ``None``; 0 if it is in a namespace we cannot see.
        uid: Of that process when it connected, or ``None`` over TCP.
        gid: As ``uid``.
    """

    address: str
    is_unix: bool
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None


def peer_of(sock: Socket) -> Peer:
    """The peer of a connected socket.

    Raises:
        OSError: It has gone already.
    """
    if sock.family != socket.AF_UNIX:
        name = sock.getpeername()
        return Peer(str(name[0]) if isinstance(name, tuple) else "", is_unix=False)
    if _PLATFORM == "linux":
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        return Peer("unix", is_unix=True, pid=pid, uid=uid, gid=gid)
    if _PLATFORM == "darwin":
        raw = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        uid, gid = ids_of_xucred(raw)
        (pid,) = struct.unpack("i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
        return Peer("unix", is_unix=True, pid=pid, uid=uid, gid=gid)
    return Peer("unix", is_unix=True)


def watch_for_death(sock: Settable) -> None:
    """Have the kernel ask a TCP peer that says nothing whether it is still there.

    A stream on which nothing happens would otherwise outlive a machine that was switched off, and
    keep its workspace open: after `limits.TCP_ALIVE_AFTER_S` of silence the peer is asked, and
    after three questions without an answer the connection is over.
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPALIVE" if _PLATFORM == "darwin" else "TCP_KEEPIDLE"
    for name, value in (
        (idle, TCP_ALIVE_AFTER_S),
        ("TCP_KEEPINTVL", TCP_ALIVE_EVERY_S),
        ("TCP_KEEPCNT", 3),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def ids_of_xucred(raw: bytes) -> tuple[int, int]:
    """User and first group of a ``struct xucred`` as macOS fills it."""
    _version, uid, _count, gid = struct.unpack_from("=IIh2xI", raw)
    return uid, gid
