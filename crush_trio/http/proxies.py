"""Which proxy a connection goes through, by the environment variables everybody sets."""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping

import attrs

from crush_trio.http.failures import HttpFailure, HttpKind

_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Proxy:
    """Where a proxy is, and what it wants to see of us; ``variable`` told us of it."""

    scheme: str
    host: str
    port: int
    authorization: bytes = attrs.field(repr=False)
    variable: str

    @property
    def name(self) -> str:
        """How a sentence names it; never with its password."""
        return f"the proxy {self.scheme}://{bracketed(self.host)}:{self.port} ({self.variable})"


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a connection to ``host``, or ``None`` for a direct one.

    Lower-case variables win over upper-case ones, one for the scheme over ``ALL_PROXY``. What is
    on this machine is reached directly, whatever they say, and so is what ``NO_PROXY`` names:
    ``*``, ``host`` and ``.suffix`` (both with everything below them), addresses and networks
    (``10.0.0.0/8``), each with ``:port`` if only that port is meant.

    Raises:
        HttpFailure: `HttpKind.PROXY`: the variable does not name an HTTP proxy.
    """
    if is_loopback(host):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
                return None if _is_excluded(host, port, excluded) else _read(variable, value)
    return None


def is_loopback(host: str) -> bool:
    """Whether a name or address always means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def _read(variable: str, value: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme.startswith("socks"):
        raise HttpFailure(
            HttpKind.PROXY,
            f"{variable} names a SOCKS proxy, and only HTTP proxies can be used: set it to "
            "http://HOST:PORT, or name the host in NO_PROXY.",
        )
    if scheme not in _DEFAULT_PORTS or not host:
        raise HttpFailure(
            HttpKind.PROXY, f"{variable} is not the address of a proxy: http://HOST:PORT."
        )
    authorization = b""
    if parts.username is not None:
        user = urllib.parse.unquote(parts.username)
        password = urllib.parse.unquote(parts.password or "")
        authorization = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
    return Proxy(scheme, host, port or _DEFAULT_PORTS[scheme], authorization, variable)


def _is_excluded(host: str, port: int, excluded: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    address = _address(name)
    for entry in re.split(r"[,\s]+", excluded.lower()):
        if entry == "*":
            return True
        wanted, only_port = _split_port(entry)
        if not wanted or (only_port is not None and only_port != port):
            continue
        if address is None:
            suffix = wanted.removeprefix("*").strip(".")
            if suffix and (name == suffix or name.endswith(f".{suffix}")):
                return True
        else:
            network = _network(wanted)
            if network is not None and address in network:
                return True
    return False


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        inside, _, port = entry[1:].partition("]")
        return inside, int(port[1:]) if port[1:].isdecimal() else None
    wanted, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and ":" not in wanted:
        return wanted, int(port)
    return entry, None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
