"""How a configured provider is reached: its templates, expanded and checked (CW 10.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from crush_trio.config.expand import RunCommand, expand
from crush_trio.protocol.errors import ConfigError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@attrs.frozen
class Reached:
    """Where a provider is and how we show who we are. Never logged.

    ``base_url`` and ``api_version`` are empty if the configuration names none, ``api_key`` is
    empty if there is none or it expands to nothing.
    """

    base_url: str = ""
    api_key: str = attrs.field(default="", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    api_version: str = ""


def reach(
    name: str,
    provider: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    run_command: RunCommand | None,
) -> Reached:
    """Expand what the configuration says about reaching a provider.

    With the real ``run_command`` it may block for seconds: call it in a thread. A header that
    expands to nothing is left out.

    Raises:
        ConfigError: A template is broken or its command failed; the address is not one of http or
            https; a key or header holds what cannot be sent. No message quotes a value.
    """

    def value(key: str) -> str:
        where = f"providers.{name}.{key}"
        found = expand(provider.get(key) or "", environ, run_command=run_command, where=where)
        return _sendable(found.strip(), where)

    where = f"providers.{name}.extra_headers"
    headers = {}
    for header, template in provider.get("extra_headers", {}).items():
        if not _TOKEN.fullmatch(header):
            raise ConfigError(f"{where}: expected names of HTTP headers as keys.")
        place = f"{where}.{header}"
        found = expand(template, environ, run_command=run_command, where=place).strip()
        if found:
            headers[header] = _sendable(found, place)
    base_url = value("base_url")
    if base_url:
        check_url(base_url, f"providers.{name}.base_url")
    return Reached(base_url, value("api_key"), headers, value("api_version"))


def check_url(url: str, where: str) -> None:
    """Check that an address can be one of a provider.

    Raises:
        ConfigError: Not http or https, without a host, or with a space or a wrong port.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # a property that raises ValueError
    except ValueError:
        valid = False
    if not valid or any(char.isspace() for char in url):
        raise ConfigError(
            f"{where}: expected an address that begins with http:// or https:// and a host."
        )


def _sendable(value: str, where: str) -> str:
    if _UNSENDABLE.search(value):
        raise ConfigError(f"{where}: holds a line break or another control character.")
    return value
