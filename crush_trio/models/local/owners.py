"""Whose a listening socket on loopback is: only ours and root's are believed (contract 9)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from crush_trio import limits

_TABLES: Final = Path("/proc/self/net")
_LISTENS: Final = "0A"  # the state of a listening socket in those tables
_LSOF: Final = "/usr/sbin/lsof"
_TO_V4: Final = frozenset({"127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"})
_ONLY_V4: Final = _TO_V4 - {"::"}
_TO_V6: Final = frozenset({"::1", "::"})


@attrs.frozen
class Listener:
    """A listening TCP socket: the address it is bound to, its port, and its owner's uid."""

    address: str
    port: int
    uid: int


@attrs.frozen
class Place:
    """Where to connect to, or, if ``stranger`` is a uid, why not: it is that user's."""

    host: str
    port: int
    stranger: int | None = None

    @property
    def address(self) -> str:
        """As people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def listeners() -> tuple[Listener, ...]:
    """Every listening TCP socket of this machine that can be seen; blocking.

    On Linux from the kernel's own tables. Elsewhere (macOS) `lsof` is asked, which shows a user
    his own sockets: those of others are not seen, and what is not seen is not used.
    """
    return from_tables(_TABLES) if _TABLES.is_dir() else from_lsof(_ask_lsof())


def place_of(port: int, sockets: Iterable[Listener], uid: int | None = None) -> Place | None:
    """Where the server on a port can be spoken to over loopback; ``None`` if there is none.

    Every socket that might get the connection must be ours or root's: a port can have several.

    Args:
        port: Its port.
        sockets: What `listeners` found.
        uid: Whose it may be besides root's; default ours.
    """
    mine = {0, os.getuid() if uid is None else uid}
    here = [found for found in sockets if found.port == port]
    if any(found.address in _ONLY_V4 for found in here):
        host, ways = "127.0.0.1", _TO_V4
    elif any(found.address in _TO_V6 for found in here):
        host, ways = "::1", _TO_V6
    else:
        return None
    strangers = [found.uid for found in here if found.address in ways and found.uid not in mine]
    return Place(host, port, strangers[0] if strangers else None)


def from_tables(tables: Path) -> tuple[Listener, ...]:
    """The listening sockets in the kernel's tables ``tcp`` and ``tcp6`` of a directory."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # no tcp6 where IPv6 is switched off
            found.extend(_rows((tables / name).read_text("ascii")))
    return tuple(found)


def _rows(table: str) -> Iterator[Listener]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[3] == _LISTENS:
            with contextlib.suppress(ValueError, struct.error):  # not a row of such a table
                address, _, port = fields[1].partition(":")
                yield Listener(_address(address), int(port, 16), int(fields[7]))


def _address(digits: str) -> str:
    """The kernel writes addresses as 32 bit words in the byte order of the machine."""
    raw = bytes.fromhex(digits)
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if len(packed) == 16:
        return socket.inet_ntop(socket.AF_INET6, packed)
    raise ValueError("neither an IPv4 nor an IPv6 address")


def _ask_lsof() -> str:
    argv = [_LSOF, "-nP", "-iTCP", "-sTCP:LISTEN", "-Ftun"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # then nothing is found
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.LOCAL_OWNER_S,
            check=False,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        )
        return done.stdout.decode("utf-8", "replace")
    return ""


def from_lsof(text: str) -> tuple[Listener, ...]:
    """The listening sockets in what ``lsof -F tun`` prints: one field a line, its first letter
    says which (``u`` uid of the process, ``t`` IPv4 or IPv6, ``n`` address and port).
    """
    found: list[Listener] = []
    uid, kind = -1, ""
    for line in text.splitlines():
        field, value = line[:1], line[1:]
        if field == "p":
            uid = -1
        elif field == "u" and value.isdecimal():
            uid = int(value)
        elif field == "t":
            kind = value
        elif field == "n" and uid >= 0:
            host, _, port = value.rpartition(":")
            anywhere = "::" if kind == "IPv6" else "0.0.0.0"
            address = anywhere if host == "*" else host.strip("[]")
            if port.isdecimal():
                found.append(Listener(address, int(port), uid))
    return tuple(found)
