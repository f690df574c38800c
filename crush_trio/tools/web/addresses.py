"""Which addresses tools may reach: public ones, and what the configuration allows; pure.

The tables follow the special-purpose registries of IANA (RFC 6890 and later): an address that is
in none of them is public. IPv6 addresses that carry an IPv4 address are judged by that one, or
refused where nothing public is reached that way any more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import attrs

from crush_trio.http.dialing import Origin
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.hosts import Address, Target

_V4: Final = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address shared inside a provider's network"),
        ("127.0.0.0/8", "this machine"),
        ("168.63.129.16/32", "a service inside a cloud"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)
_V6: Final = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", "an unspecified address"),
        ("::1/128", "this machine"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for documentation"),
        ("2002::/16", "an address of an old tunnel"),
        ("3fff::/20", "an address for documentation"),
    )
)
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_PRIVATE_NAMES: Final = frozenset({"localhost", "local", "internal", "intranet", "lan", "home"})
_PRIVATE_SUFFIXES: Final = (*(f".{name}" for name in sorted(_PRIVATE_NAMES)), ".home.arpa")


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, NAT64), else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def not_public(address: Address) -> str | None:
    """What an address is if it is not public, as words for a sentence; ``None`` for public ones."""
    address = embedded(address)
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _V4 if address in network), None)
    for network, what in _V6:
        if address in network:
            return what
    return None if address in _PUBLIC_V6 else "a reserved address"


def is_private_name(name: str) -> bool:
    """Whether a name means something private wherever it is resolved, or has only one label."""
    return "." not in name or name.endswith(_PRIVATE_SUFFIXES)


@attrs.frozen
class AddressPolicy:
    """See `http.vetting.Policy`.

    Args:
        allowed: What may be reached although it is not public.
        own_ports: TCP ports of this server: never reached on this machine, whatever is allowed.
    """

    allowed: Sequence[Target] = ()
    own_ports: frozenset[int] = frozenset()

    def check_name(self, origin: Origin, *, proxied: bool) -> None:
        """Refuse addresses that are not public; and private names where a proxy resolves them."""
        address = _address(origin.host)
        if address is not None:
            self.check_addresses(origin, (origin.host,))
        elif proxied and is_private_name(origin.host) and not self._allows_name(origin):
            raise _refused(origin, "a name inside a network")

    def check_addresses(self, origin: Origin, found: Sequence[str]) -> None:
        """Refuse the host if any of its addresses is not public and not allowed."""
        for text in found:
            address = _address(text)
            what = "an address that cannot be read" if address is None else not_public(address)
            if what is not None and not (address is not None and self._allows(origin, address)):
                raise _refused(origin, what)

    def check_connected(self, origin: Origin, here: str, there: str) -> None:
        """Refuse this machine by any of its addresses, and always this server."""
        mine, theirs = _address(here), _address(there)
        if mine is None or theirs is None:
            raise _refused(origin, "an address that cannot be read")
        if embedded(mine) != embedded(theirs) and not embedded(theirs).is_loopback:
            return
        if origin.port in self.own_ports:
            raise HttpFailure(
                HttpKind.ADDRESS, f"{origin.name} is this server: tools may not ask it."
            )
        if not self._allows(origin, theirs):
            raise _refused(origin, "this machine")

    def _allows(self, origin: Origin, address: Address) -> bool:
        both = (address, embedded(address))
        host = origin.host
        return any(t.covers(host, each, origin.port) for t in self.allowed for each in both)

    def _allows_name(self, origin: Origin) -> bool:
        return any(t.host == origin.host and t.port in (None, origin.port) for t in self.allowed)


def _refused(origin: Origin, what: str) -> HttpFailure:
    return HttpFailure(
        HttpKind.ADDRESS,
        f"{origin.name} is not fetched: it is {what}. Only public addresses are, and what the "
        "user's own configuration names in options.fetch_allow.",
    )


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address
