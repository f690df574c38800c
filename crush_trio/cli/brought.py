"""What a command brings along of its environment: provider keys, and what a configuration names.

A server that runs for long has the environment of whoever started it. So a command sends its own
variables with the workspace it opens, on the unix socket only and no others than these: the usual
key variables (`config.key_variables`), where Ollama is (``OLLAMA_HOST``), which configuration file
it means (`EXTRA_CONFIG`), and those that a provider in the configuration of the directory refers to
as ``$NAME``. The server keeps them in memory (contract 7).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio.client.endpoint import UnixEndpoint
from crush_trio.client.locate import Target
from crush_trio.config.key_variables import KEY_VARIABLES
from crush_trio.config.load import load_config
from crush_trio.config.paths import EXTRA_CONFIG
from crush_trio.protocol.errors import ConfigError

_NAMED: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


@attrs.frozen
class Brought:
    """Under which name something was brought, and what: ``NAME=value`` each; often nothing."""

    client_id: str | None = None
    env: tuple[str, ...] = attrs.field(default=(), repr=False)


def bring(
    target: Target, cwd: str, environ: Mapping[str, str], client_id: str | None = None
) -> Brought:
    """What to send to ``target`` for a run in ``cwd``; reads the configuration, and blocks.

    Args:
        client_id: What the command calls itself already, if it does.
    """
    if not isinstance(target.endpoint, UnixEndpoint):
        return Brought(client_id)
    names = dict.fromkeys(
        (*KEY_VARIABLES, "OLLAMA_HOST", EXTRA_CONFIG, *_referred_to(target, cwd, environ))
    )
    env = tuple(f"{name}={environ[name]}" for name in names if environ.get(name))
    env = tuple(each for each in env if _is_text(each))
    return Brought(client_id or (str(uuid.uuid4()) if env else None), env)


def bring_here(target: Target, cwd: str, client_id: str | None = None) -> Brought:
    """The same from the environment of this process."""
    return bring(target, cwd, os.environ, client_id)


def _referred_to(target: Target, cwd: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that providers are configured with; a broken file is the server's to tell."""
    with suppress(ConfigError):
        config = load_config(Path(cwd), environ=environ, data_dir=target.data_dir)
        return tuple(name for text in _strings(config.providers) for name in _NAMED.findall(text))
    return ()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _is_text(entry: str) -> bool:
    """What is not UTF-8 cannot be sent as JSON, and is no key."""
    try:
        entry.encode()
    except UnicodeEncodeError:
        return False
    return True
