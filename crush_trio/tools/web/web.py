"""How the tools of one server reach the web; the policy of each comes from its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from crush_trio.http.certificates import Certificates
from crush_trio.http.connections import Connections
from crush_trio.http.hosts import Target, read_target
from crush_trio.http.vetting import Open, Resolve, VettingDial, resolve
from crush_trio.tools.web.addresses import AddressPolicy


@attrs.define(eq=False)
class Web:
    """What all requests of tools share; ``own_ports`` fills when the server has its sockets.

    Each call makes connections of its own and closes them, so none of them is ever used under
    another call's policy. No cookie, no ``.netrc`` and no key is read or kept.
    """

    certificates: Certificates = attrs.Factory(lambda: Certificates(None, os.environ))
    environ: Mapping[str, str] = attrs.Factory(lambda: os.environ)
    own_ports: set[int] = attrs.Factory(set)
    resolve: Resolve = resolve
    open: Open = trio.open_tcp_stream

    def reach(self, config: Mapping[str, Any]) -> Reach:
        """The web as far as a workspace's configuration allows it."""
        options = config.get("options") or {}
        return Reach(self, tuple(read_target(each) for each in options.get("fetch_allow") or ()))


@attrs.frozen
class Reach:
    """The web under one configuration."""

    web: Web
    allowed: tuple[Target, ...] = ()

    def connections(self) -> Connections:
        """Connections for one call, to be closed by it."""
        policy = AddressPolicy(self.allowed, frozenset(self.web.own_ports))
        dial = VettingDial(policy, self.web.resolve, self.web.open)
        return Connections(environ=self.web.environ, dial=dial, certificates=self.web.certificates)
