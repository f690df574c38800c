"""Who may come in: the security checks of the contract's section 7 on what a request shows.

`Gate.judge` is pure and looks at the head of a request only, so it comes before the body. On TCP
the order is: target, ``Host``, ``Origin``, token, content type. On the unix socket: the peer's
user, headers that only browsers and proxies send, descent from one of our tools.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Collection
from typing import Final

import attrs

from crush_trio.protocol.errors import Refused
from crush_trio.protocol.tokens import LOCAL_NAME
from crush_trio.server.edge.peer import Peer
from crush_trio.server.edge.tokens import Tokens
from crush_trio.server.edge.tool_peer import descends_from

SUBPROTOCOL: Final = "crush-trio.v1"
TOKEN_SUBPROTOCOL: Final = "crush-trio.token."
OPEN_PATHS: Final = frozenset({"/healthz"})
"""Paths that need no token on TCP (contract 3)."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_BROWSER = {"origin": "forbidden_origin", "sec-fetch-site": "forbidden_origin"}
_PROXY = {"forwarded": "forwarded", "x-forwarded-for": "forwarded"}
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?\Z", re.IGNORECASE)
_JSON = re.compile(r"application/json\s*(;.*)?\Z", re.IGNORECASE)

Headers = tuple[tuple[str, str], ...]


@attrs.frozen
class RequestView:
    """The head of a request, as it came.

    Attributes:
        method: Upper case.
        target: Without the query; ``/path``, or absolute (``http://host/path``).
        path: The decoded path, without host and query.
        headers: Names in lower case, in order, duplicates kept.
        peer: Who sent it.
        local: Address and port the connection came in on, ``None`` on the unix socket.
        is_websocket: Whether it asks for an upgrade.
    """

    method: str
    target: str
    path: str
    headers: Headers
    peer: Peer
    local: tuple[str, int] | None = None
    is_websocket: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value.strip() for key, value in self.headers if key == name]


@attrs.frozen
class Verdict:
    """What the gate says of a request.

    Attributes:
        principal: Who acts, or ``None``: nobody was authenticated (``/healthz``, refusals).
        refused: Why it may not come in, or ``None``.
    """

    principal: str | None = None
    refused: Refused | None = None


def _lower(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _no_tools() -> Collection[int]:
    return ()


def _in_no_cgroup(pid: int) -> bool:
    return False


@attrs.frozen
class Gate:
    """The rules of one server.

    Attributes:
        uid: Of the server's user.
        tokens: Needed as soon as a TCP address is bound.
        bound: Host and port of every bound TCP address, as named and as bound.
        allowed_hosts: ``name`` (any port) or ``name:port`` of proxies in front.
        allowed_origins: Exact origins (``https://host[:port]``) of browsers' pages.
        tool_launchers: Pids of the tool processes that run now.
        in_tool_cgroup: Whether a process is in a tool's cgroup, also without its launcher.
    """

    uid: int
    tokens: Tokens | None = None
    bound: frozenset[tuple[str, int]] = frozenset()
    allowed_hosts: frozenset[str] = attrs.field(default=frozenset(), converter=_lower)
    allowed_origins: frozenset[str] = frozenset()
    tool_launchers: Callable[[], Collection[int]] = _no_tools
    in_tool_cgroup: Callable[[int], bool] = _in_no_cgroup

    def judge(self, view: RequestView) -> Verdict:
        """Whether the request may come in, and whose it is."""
        try:
            if not view.target.startswith("/") and not _ABSOLUTE.match(view.target):
                raise Refused("bad_request", "The request target must be a path.")
            principal = self._judge_unix(view) if view.peer.is_unix else self._judge_tcp(view)
        except Refused as refused:
            return Verdict(refused=refused)
        return Verdict(principal)

    def _judge_unix(self, view: RequestView) -> str:
        if view.peer.uid is None or view.peer.uid not in (self.uid, 0):
            raise Refused("forbidden", "This socket serves its owner only.")
        for name, _ in view.headers:
            if code := _BROWSER.get(name) or _PROXY.get(name):
                raise Refused(
                    code,
                    f"A request with the header {name} is not taken on the unix socket;"
                    " browsers and proxies use TCP and a token.",
                )
        pid = view.peer.pid or 0
        if descends_from(pid, self.tool_launchers()) or self.in_tool_cgroup(pid):
            raise Refused("from_tool", "A tool of this server may not drive the server.")
        return LOCAL_NAME

    def _judge_tcp(self, view: RequestView) -> str | None:
        self._check_host(view)
        self._check_origin(view)
        if view.path in OPEN_PATHS and view.method in _READING and not view.is_websocket:
            return None
        principal = self._authenticate(view)
        if view.method not in _READING and _has_body(view):
            types = view.values("content-type")
            if len(types) != 1 or not _JSON.match(types[0]):
                raise Refused(
                    "unsupported_media_type", "The body must come as Content-Type application/json."
                )
        return principal

    def _check_host(self, view: RequestView) -> None:
        named = view.values("host")
        exact = len(named) == 1
        if absolute := _ABSOLUTE.match(view.target):
            named.append(absolute[1])  # what a proxy would have used instead of the header
        if not exact or not all(self._is_our_host(name, view.local) for name in named):
            raise Refused(
                "misdirected",
                "The Host header names no address of this server; add it with --allowed-host.",
            )

    def _is_our_host(self, authority: str, local: tuple[str, int] | None) -> bool:
        match = _AUTHORITY.match(authority)
        if match is None:
            return False
        name, port = match[1].lower(), int(match[2] or 80)
        if name in self.allowed_hosts or (match[2] and f"{name}:{port}" in self.allowed_hosts):
            return True
        host = _plain(name)
        if (host, port) in self.bound:
            return True
        ports = {bound_port for _, bound_port in self.bound}
        if port in ports and (host == "localhost" or _is_loopback(host)):
            return True
        # A literal address that the connection really came in on cannot be a rebound name.
        return local is not None and (host, port) == (_plain(local[0]), local[1])

    def _check_origin(self, view: RequestView) -> None:
        origins = view.values("origin")
        if not origins:
            sites = {site.lower() for site in view.values("sec-fetch-site")}
            if sites <= {"none", "same-origin"}:
                return
        elif len(origins) == 1 and origins[0] in self.allowed_origins:
            return
        raise Refused(
            "forbidden_origin",
            "Pages of this origin may not use the server; add it with --allowed-origin.",
        )

    def _authenticate(self, view: RequestView) -> str:
        token = _token_of(view)
        principal = self.tokens.principal_of(token) if token and self.tokens else None
        if principal is None:
            raise Refused(
                "unauthorized",
                "A valid token is needed: send Authorization: Bearer with one of the token file.",
            )
        return principal


def _token_of(view: RequestView) -> bytes | None:
    """The token of the one Authorization header, else of the subprotocol of an upgrade."""
    given = view.values("authorization")
    if given:
        scheme, _, token = given[0].partition(" ")
        usable = len(given) == 1 and scheme.lower() == "bearer"
        return token.strip().encode("latin1") if usable else None
    offered = [name for name in subprotocols_of(view) if name.startswith(TOKEN_SUBPROTOCOL)]
    if not view.is_websocket or len(offered) != 1:
        return None
    encoded = offered[0].removeprefix(TOKEN_SUBPROTOCOL)
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def subprotocols_of(view: RequestView) -> list[str]:
    """The subprotocols an upgrade offers, in order."""
    lists = view.values("sec-websocket-protocol")
    return [name.strip() for one in lists for name in one.split(",") if name.strip()]


def _has_body(view: RequestView) -> bool:
    lengths = view.values("content-length")
    return bool(view.values("transfer-encoding")) or any(length != "0" for length in lengths)


def _plain(host: str) -> str:
    """An address in its one canonical spelling, without brackets; a name as it is."""
    bare = host.removeprefix("[").removesuffix("]").lower()
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
