"""Connections to vetted addresses only: a policy sees each address before anything connects to it.

Names are resolved here, once for each connection, and the addresses that were vetted are the ones
that are connected to: a name that means something else a moment later changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import attrs
import trio

from crush_trio import limits
from crush_trio.http.certificates import Certificates
from crush_trio.http.dialing import Line, Origin, connect, dial, no_address, no_connection
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.proxies import Proxy

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, best first.

Raises `OSError`: it has none.
"""
Open: TypeAlias = Callable[[str, int], Awaitable[trio.SocketStream]]
"""Connects to one address and port."""


class Policy(Protocol):
    """Decides what may be connected to; each method raises `HttpFailure` (`HttpKind.ADDRESS`)."""

    def check_name(self, origin: Origin, *, proxied: bool) -> None:
        """Whether the host may be asked for at all; ``proxied``: a proxy will resolve it."""
        ...

    def check_addresses(self, origin: Origin, found: Sequence[str]) -> None:
        """Whether all addresses of the host may be connected to."""
        ...

    def check_connected(self, origin: Origin, here: str, there: str) -> None:
        """Whether something may be sent on a connection between these two addresses."""
        ...


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """The system's answer.

    Raises:
        OSError: It knows none.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@attrs.frozen(eq=False)
class VettingDial:
    """A `dialing.Dial` under a policy; connections of another policy must come from elsewhere.

    Behind a proxy the target's name is resolved by the proxy: its own addresses are vetted here
    only as far as they can be found, see `Policy.check_name`.
    """

    policy: Policy
    resolve: Resolve = resolve
    open: Open = trio.open_tcp_stream

    async def __call__(
        self, origin: Origin, proxy: Proxy | None, certificates: Certificates
    ) -> Line:
        """See `dialing.dial`.

        Raises:
            HttpFailure: Also `HttpKind.ADDRESS`: the policy refuses it.
        """
        self.policy.check_name(origin, proxied=proxy is not None)
        if proxy is None:
            return await dial(origin, None, certificates, lambda: self._connect(origin))
        with trio.move_on_after(limits.HTTP_LOOK_S):
            try:
                found = await self.resolve(origin.host, origin.port)
            except (OSError, UnicodeError):
                found = ()  # known to the proxy alone
            self.policy.check_addresses(origin, found)
        return await dial(origin, proxy, certificates, lambda: connect(origin, proxy))

    async def _connect(self, origin: Origin) -> Line:
        try:
            found = await self.resolve(origin.host, origin.port)
        except (OSError, UnicodeError) as exc:
            raise no_address(origin.name, HttpKind.NETWORK, exc) from None
        if not found:
            raise HttpFailure(HttpKind.NETWORK, f"{origin.name} has no address.")
        self.policy.check_addresses(origin, found)
        stream = await self._first(origin, found[: limits.HTTP_ADDRESSES])
        try:
            here, there = stream.socket.getsockname()[0], stream.socket.getpeername()[0]
            self.policy.check_connected(origin, here, there)
        except BaseException:
            stream.socket.close()
            raise
        return Line(stream, stream.socket)

    async def _first(self, origin: Origin, found: Sequence[str]) -> trio.SocketStream:
        """A connection to the first address that answers; one that is silent is passed over."""
        problem: OSError | None = None
        for number, address in enumerate(found, 1):
            within_s = limits.HTTP_ADDRESS_S if number < len(found) else float("inf")
            with trio.move_on_after(within_s):
                try:
                    return await self.open(address, origin.port)
                except OSError as exc:
                    problem = problem or exc
        raise no_connection(origin, problem)
