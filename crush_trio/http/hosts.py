"""Host names and addresses as URLs have them: one reading, for checks and for connecting; pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

import attrs

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_NAME_CHARS: Final = 253  # RFC 1035, 2.3.4
_PORTS: Final = range(1, 65_536)


@attrs.frozen
class Host:
    """One host in its only spelling: lower case, ASCII, no dot at the end.

    ``address`` is set if it is one; ``name`` then is its shortest form, without brackets.
    """

    name: str
    address: Address | None = None

    @property
    def in_url(self) -> str:
        """The host as a URL has it."""
        return f"[{self.name}]" if ":" in self.name else self.name


def read_host(text: str) -> Host:
    """The host that ``text``, a part of a URL, means.

    A name must be letters, digits and hyphens once it is made ASCII (IDNA), which is done here
    and nowhere else. An address is four decimal numbers or stands in brackets: other spellings
    of IPv4 addresses (octal, hexadecimal, fewer parts), which only some programs read as
    addresses, are nobody's.

    Raises:
        ValueError: It means none; the text is part of a sentence.
    """
    if text.startswith("["):
        return _bracketed(text)
    try:
        ascii_text = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("its host is not a name that IDNA knows") from None
    name = ascii_text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("its host is not a name of letters, digits, hyphens and dots")
    if not _NUMBER.fullmatch(labels[-1]):
        return Host(name)
    try:
        return Host(name, ipaddress.IPv4Address(name))
    except ValueError:
        raise ValueError("write an IPv4 address as four decimal numbers") from None


def _bracketed(text: str) -> Host:
    inside = text[1:-1]
    if not text.endswith("]") or "%" in inside:
        raise ValueError("an IPv6 address stands in brackets, without a zone")
    try:
        address = ipaddress.IPv6Address(inside)
    except ValueError:
        raise ValueError("what stands in brackets is no IPv6 address") from None
    return Host(str(address), address)


def read_authority(text: str) -> tuple[Host, int | None]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[V6]`` or ``[V6]:PORT``.

    Raises:
        ValueError: It is neither; the text is part of a sentence.
    """
    host, port = text, ""
    if text.startswith("["):
        inside, bracket, rest = text.partition("]")
        host = inside + bracket
        if rest:
            colon, port = rest[0], rest[1:]
            if colon != ":" or not port:
                raise ValueError("behind the brackets may stand :PORT only")
    elif ":" in text:
        host, _, port = text.partition(":")
        if not port:
            raise ValueError("its port is empty")
    if not port:
        return read_host(host), None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) in _PORTS):
        raise ValueError("its port is no number from 1 to 65535")
    return read_host(host), int(port)


@attrs.frozen
class Target:
    """What one entry of a list of allowed targets means: a host, an address or a network.

    ``port`` is ``None`` if every port is meant.
    """

    host: str | None
    network: Network | None
    port: int | None = None

    def covers(self, host: str, address: Address, port: int) -> bool:
        """Whether a connection to ``address``, found for ``host``, is meant."""
        if self.port is not None and self.port != port:
            return False
        return host == self.host or (self.network is not None and address in self.network)


def read_target(text: str) -> Target:
    """An entry such as ``intranet.example``, ``localhost:3000``, ``10.1.2.3``, ``10.0.0.0/8``,
    ``[fd00::1]:8080`` or ``fd00::/8``.

    Raises:
        ValueError: It is none of these; the text says what was expected.
    """
    if "/" in text:
        try:
            return Target(None, ipaddress.ip_network(text))
        except ValueError:
            raise ValueError("expected a network such as 10.0.0.0/8") from None
    try:
        host, port = read_authority(text)
    except ValueError as problem:
        raise ValueError(
            f"expected HOST, HOST:PORT, an address or a network such as 10.0.0.0/8: {problem}"
        ) from None
    if host.address is None:
        return Target(host.name, None, port)
    return Target(None, ipaddress.ip_network(host.address), port)
