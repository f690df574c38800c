"""The connections of one owner to all others: opened when used, closed with their owner."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from crush_trio import __version__
from crush_trio.http.certificates import Certificates
from crush_trio.http.dialing import Dial, dial

if TYPE_CHECKING:
    import httpx2

    from crush_trio.http.transport import Transport

_TRANSPORT = "crush_trio.http.transport"
USER_AGENT = f"crush-trio/{__version__}"


class Connections:
    """Makes HTTP clients; a server that asks nobody pays nothing for having it.

    Args:
        ca_file: Certificates that are believed besides the system's (``options.ca_file``).
        environ: Where proxies and certificate files are looked up; default the process's own.
        dial: Makes a connection. What one has dialled is never used under another: connections
            made under a policy stay with their owner.
        certificates: Those of another owner, in place of ``ca_file``: to read them costs 30 ms.
    """

    def __init__(
        self,
        ca_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        dial: Dial = dial,
        certificates: Certificates | None = None,
    ) -> None:
        self._dial = dial
        self._environ = dict(os.environ if environ is None else environ)
        self.certificates = certificates or Certificates(ca_file, self._environ)
        self._clients: dict[bool, tuple[httpx2.AsyncClient, Transport]] = {}
        self._others: dict[Path, Connections] = {}
        self._is_closed = False

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def ready(self) -> None:
        """Load what `client` needs, in a thread: 100 ms that nobody else has to wait for."""
        if _TRANSPORT not in sys.modules:
            await trio.to_thread.run_sync(importlib.import_module, _TRANSPORT)

    def client(self, *, is_local: bool = False) -> httpx2.AsyncClient:
        """The client for what runs on this machine, which knows no proxies, or for the rest.

        Never closed by who asks.
        """
        if self._is_closed:
            raise trio.ClosedResourceError("these connections are closed")
        if is_local not in self._clients:
            self._clients[is_local] = self._make({} if is_local else self._environ)
        return self._clients[is_local][0]

    def trusting(self, ca_file: Path | None) -> Connections:
        """The same with another ``ca_file``: what a workspace's configuration adds is believed
        for its own requests only. They are closed together.
        """
        if ca_file is None or ca_file == self.certificates.ca_file:
            return self
        if ca_file not in self._others:
            self._others[ca_file] = Connections(ca_file, self._environ, dial=self._dial)
            self._others[ca_file]._is_closed = self._is_closed
        return self._others[ca_file]

    @property
    def open_connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are kept for later."""
        counts = [transport.open_connections for _, transport in self._clients.values()]
        counts += [other.open_connections for other in self._others.values()]
        return sum(busy for busy, _ in counts), sum(idle for _, idle in counts)

    async def aclose(self) -> None:
        """Close every connection at once, also those in use. Waits for nobody; idempotent."""
        self._is_closed = True
        for _, transport in self._clients.values():
            transport.close_all()
        for other in self._others.values():
            await other.aclose()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _make(self, environ: Mapping[str, str]) -> tuple[httpx2.AsyncClient, Transport]:
        # 60 ms and 20, so only where they are used.
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        from crush_trio.http.transport import Transport

        transport = Transport(self.certificates, environ, self._dial)
        client = httpx2.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept or sent
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )
        return client, transport
