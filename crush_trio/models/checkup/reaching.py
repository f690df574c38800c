"""Whether the way to a provider is open: name, proxy, TLS, and whose certificates are believed."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.http.dialing import Line, Origin, dial
from crush_trio.http.proxies import Proxy, proxy_for
from crush_trio.models.checkup.readings import failed, seconds
from crush_trio.models.failures import Failure, Kind, http_failures
from crush_trio.models.network.attempt import check_url
from crush_trio.protocol.checks import Check


async def reach(base_url: str, connections: Connections, *, is_local: bool) -> Check:
    """Make one connection as a request would, and close it again; nothing is asked."""
    began = trio.current_time()
    try:
        origin = origin_of(base_url)
        environ = {} if is_local else connections.certificates.environ
        with http_failures(), trio.move_on_after(limits.DOCTOR_CONNECT_S) as patience:
            proxy = proxy_for(origin.scheme, origin.host, origin.port, environ)
            line = await dial(origin, proxy, connections.certificates)
        if patience.cancelled_caught:
            raise Failure(
                Kind.NETWORK,
                f"No connection to {origin.name} within {limits.DOCTOR_CONNECT_S:g} s.",
            )
    except Failure as exc:
        return failed("connection", exc)
    line.close()
    return _reached(line, origin, proxy, connections, trio.current_time() - began)


def origin_of(base_url: str) -> Origin:
    """Where an address leads.

    Raises:
        Failure: `Kind.URL`.
    """
    check_url(base_url)
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        raise Failure(Kind.URL, f"{host!r} is no host name: correct base_url.") from None
    return Origin(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))


def _reached(
    line: Line, origin: Origin, proxy: Proxy | None, connections: Connections, took_s: float
) -> Check:
    parts = [f"{origin.scheme}://{origin.name} in {seconds(took_s)}"]
    version = None
    if isinstance(line.stream, trio.SSLStream):
        version = str(line.stream.version())
        parts.append(f"{version}, checked with {connections.certificates.used()}")
    if proxy is not None:
        parts.append(f"through {proxy.name}")
    data = {
        "address": f"{origin.scheme}://{origin.name}",
        "took_s": round(took_s, 3),
        "tls": version,
        "proxy": None if proxy is None else proxy.variable,
    }
    return Check("connection", "ok", "; ".join(parts), data=data)
