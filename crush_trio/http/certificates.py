"""Whom we believe to be who they say: the system's certificates and what is added to them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from crush_trio.http.failures import HttpFailure, HttpKind

_REASONS = {
    9: "its certificate is not valid yet; is the clock right?",
    10: "its certificate has expired",
    18: "its certificate is signed by itself",
    19: "its certificate comes from an authority that is not trusted here",
    20: "its certificate comes from an authority that is not trusted here",
    21: "its certificate comes from an authority that is not trusted here",
    23: "its certificate was revoked",
    62: "its certificate is for another host",
    64: "its certificate is for another address",
}
"""What OpenSSL's numbers (X509_V_ERR_…) mean."""

_ADDING_HELPS = frozenset({18, 19, 20, 21})


@attrs.define(eq=False)
class Certificates:
    """The TLS context of one server: made once, when somebody first needs it.

    ``ca_file``, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` add to the system's store; they never
    replace it, so that a company's own authority does not cut off the rest of the world.
    """

    ca_file: Path | None
    environ: Mapping[str, str]
    _context: ssl.SSLContext | None = attrs.field(default=None, init=False)
    _making: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def context(self) -> ssl.SSLContext:
        """What verifies the other side; making it (30 ms) happens in a thread, which is left
        behind by who cannot wait: a file may be on a disk that does not answer.

        Raises:
            HttpFailure: `HttpKind.TLS`: a file that was to be added cannot be.
        """
        if self._context is None:
            async with self._making:
                if self._context is None:
                    self._context = await trio.to_thread.run_sync(
                        self._make, abandon_on_cancel=True
                    )
        return self._context

    def used(self) -> str:
        """Which certificates these are, for a sentence."""
        return " and ".join(
            ("the system's certificates", *(f"{path} ({name})" for name, path in self._added()))
        )

    def failure(self, host: str, error: ssl.SSLError) -> HttpFailure:
        """What a handshake that ended with ``error`` means, in one sentence."""
        if isinstance(error, ssl.SSLCertVerificationError):
            code = error.verify_code
            reason = _REASONS.get(code, error.verify_message or "its certificate is not accepted")
            cure = (
                "; if that is right, add its authority with options.ca_file"
                if code in _ADDING_HELPS
                else ""
            )
            checked = f" (checked with {self.used()})"
            return HttpFailure(HttpKind.TLS, f"{host} cannot be trusted: {reason}{checked}{cure}.")
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"):
            said = "it does not speak TLS there; is its address http://, or is the port another?"
        else:
            words = (error.reason or "the handshake broke off").lower().replace("_", " ")
            said = f"{words} (certificates: {self.used()})"
        return HttpFailure(HttpKind.TLS, f"No TLS connection to {host}: {said}.".replace("?.", "?"))

    def _added(self) -> list[tuple[str, Path]]:
        named = [
            (name, Path(self.environ[name]))
            for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")
            if self.environ.get(name)
        ]
        return named if self.ca_file is None else [*named, ("options.ca_file", self.ca_file)]

    def _make(self) -> ssl.SSLContext:
        import httpx2  # 60 ms, so only where it is used

        context = httpx2.create_ssl_context(trust_env=False)
        context.set_alpn_protocols(["http/1.1"])
        for name, path in self._added():
            try:
                if path.is_dir():
                    context.load_verify_locations(capath=path)
                else:
                    context.load_verify_locations(cafile=path)
            except ssl.SSLError:
                raise HttpFailure(
                    HttpKind.TLS, f"{path} ({name}) holds no certificates in PEM format."
                ) from None
            except OSError as exc:
                why = exc.strerror or "it cannot be read"
                raise HttpFailure(HttpKind.TLS, f"{path} ({name}) cannot be read: {why}.") from None
        return context
