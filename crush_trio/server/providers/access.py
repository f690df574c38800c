"""How a provider is reached by one client: its templates and keys, looked up when they are used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import attrs
import trio

from crush_trio import limits
from crush_trio.config.access import reach
from crush_trio.config.command import run_command
from crush_trio.config.expand import layered
from crush_trio.config.keys import SECRET_HEADER, lacking
from crush_trio.models.provider import Access
from crush_trio.protocol.errors import ConfigError
from crush_trio.server.providers.known import Known


@attrs.define(eq=False)
class Secrets:
    """What one server has sent as a secret, so that it can be masked where it comes back.

    The newest `limits.SECRETS_KEPT` are remembered; never shown, logged or stored.
    """

    _values: dict[str, None] = attrs.field(factory=dict, init=False, repr=False)

    def add(self, *values: str) -> None:
        """Remember these."""
        for value in filter(None, values):
            self._values.setdefault(value)
        for oldest in tuple(self._values)[: -limits.SECRETS_KEPT]:
            self._values.pop(oldest, None)  # another thread may have done so

    def values(self) -> tuple[str, ...]:
        """All that are remembered."""
        return tuple(self._values)


@attrs.define(eq=False)
class ProviderAccess:
    """A `models.provider.Provider.access`: expands anew at each call, in whatever thread.

    ``env`` is what the client sent of its environment; the server's own comes after it
    (contract 7). ``secrets`` is told of what will be sent as a secret.
    """

    known: Known
    env: Mapping[str, str] = attrs.field(repr=False)
    secrets: Secrets

    def __call__(self) -> Access:
        """See `models.provider.Provider.access`; blocks while a ``$(command)`` runs.

        Raises:
            ConfigError: A template is broken, or there is no address.
        """
        environ = layered(self.env, os.environ)
        known = self.known
        found = reach(known.id, known.table, environ, run_command=run_cancellable)
        base_url = found.base_url or ("" if known.table.get("base_url") else known.facts.base_url)
        if not base_url:
            raise ConfigError(no_address(known))
        key = found.api_key or _token(known) or usual_key(known, environ)[1]
        headers = found.headers.items()
        self.secrets.add(key, *(value for name, value in headers if SECRET_HEADER.search(name)))
        return Access(base_url, key, found.headers)


def run_cancellable(command: str, environ: Mapping[str, str]) -> str:
    """`run_command`, killed when the run that waits for it in this thread is cancelled (G10)."""
    return run_command(command, environ, check=_check_cancelled)


def _check_cancelled() -> None:
    with suppress(RuntimeError):  # no thread of Trio's: nobody can cancel it
        trio.from_thread.check_cancelled()


def no_address(known: Known) -> str:
    """What to say of a provider that has no address."""
    return f"The provider {known.id!r} has no address: set providers.{known.id}.base_url."


def usual_key(known: Known, environ: Mapping[str, str]) -> tuple[str, str]:
    """The first of its usual variables that is set, and its value; empty if none is.

    A configured ``api_key`` that expands to nothing is not made up for: somebody meant that one.
    """
    if known.table.get("api_key"):
        return "", ""
    for name in known.facts.key_variables:
        value = environ.get(name, "").strip()
        if value:
            return name, value
    return "", ""


def key_problem(known: Known, environ: Mapping[str, str]) -> str:
    """What to do about the key that a provider lacks; empty if it lacks none. Runs nothing.

    Raises:
        ConfigError: The template of its key is broken.
    """
    return lacking(
        known.id,
        known.table,
        environ,
        usual=known.facts.key_variables,
        needs_key=known.needs_key,
    )


def _token(known: Known) -> str:
    """The token of a login that was brought along; it is not renewed here."""
    oauth = known.table.get("oauth")
    token = oauth.get("access_token", "") if isinstance(oauth, Mapping) else ""
    return str(token)
