"""A web made of what a test says: names, addresses and servers on loopback."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import attrs
import trio

from crush_trio.http.certificates import Certificates
from crush_trio.http.hosts import read_target
from crush_trio.tools.web.web import Reach, Web


@attrs.define(eq=False)
class Names:
    """A resolver: a name's answers in turn, the last one from then on; it counts its questions."""

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = attrs.field(factory=list)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        answers = self.answers.get(host)
        if answers is None:
            return (_as_the_system_reads_it(host),)
        return tuple(answers[min(self.asked.count(host), len(answers)) - 1])


def _as_the_system_reads_it(host: str) -> str:
    """The address that a resolver takes a host for; `127.1` is one to most.

    Raises:
        OSError: It is a name, and nobody knows it.
    """
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
    except OSError:
        return socket.inet_ntoa(socket.inet_aton(host))


@attrs.define(eq=False)
class Opened:
    """Where connections were made to; none of them leads anywhere but to ``real``."""

    real: frozenset[str] = frozenset()
    addresses: list[str] = attrs.field(factory=list)

    async def open(self, address: str, port: int) -> trio.SocketStream:
        self.addresses.append(address)
        if address in self.real:
            return await trio.open_tcp_stream(address, port)
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(111, "Connection refused")


def reach_of(
    *allowed: str,
    environ: Mapping[str, str] | None = None,
    names: Names | None = None,
    opened: Opened | None = None,
    own_ports: frozenset[int] = frozenset(),
    certificates: Certificates | None = None,
) -> Reach:
    """The web as far as ``allowed`` entries of the configuration let it be reached."""
    web = Web(
        certificates or Certificates(None, {}),
        environ or {},
        set(own_ports),
        *((names.resolve,) if names else ()),
    )
    if opened is not None:
        web.open = opened.open
    return Reach(web, tuple(map(read_target, allowed)))
