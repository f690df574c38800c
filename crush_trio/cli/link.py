"""From flags to a server that answers; imported only when a command really talks to one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import note, stderr_is_terminal
from crush_trio.client.api import Api
from crush_trio.client.autostart import ensure_server
from crush_trio.client.http import Http, open_http
from crush_trio.client.locate import Target, locate
from crush_trio.client.shapes import JsonObject
from crush_trio.config.paths import data_directory
from crush_trio.protocol.errors import ConfigError


@attrs.frozen
class Link:
    """A server that has answered and speaks our protocol."""

    target: Target
    http: Http
    api: Api
    version: JsonObject
    autostart: bool

    async def revive(self) -> None:
        """Find the server again, and start it if it is ours to start; see `ensure_server`."""
        await ensure_server(self.target, self.http, autostart=self.autostart)


def target_of(flags: ServerFlags) -> Target:
    """The server the flags mean; nothing is contacted.

    Raises:
        BadServerUrl, ConfigError: The flags or the environment name none.
    """
    try:
        data_dir = data_directory(os.environ, flags.data_dir)
    except ConfigError:
        if flags.server is None:
            raise
        data_dir = None
    return locate(
        server=flags.server,
        data_dir=data_dir,
        token_file=None if flags.token_file is None else Path(flags.token_file),
        environ=os.environ,
    )


@contextlib.asynccontextmanager
async def linked(flags: ServerFlags, *, quiet: bool = False) -> AsyncIterator[Link]:
    """A server that answers, started if the flags allow it, for as long as the block lasts.

    Raises:
        Unreachable, CannotStart, WrongVersion: See `ensure_server`.
    """
    target = target_of(flags)
    notice = None if quiet or not stderr_is_terminal() else note
    async with open_http(target.endpoint, target.token) as http:
        version = await ensure_server(target, http, autostart=flags.autostart, notice=notice)
        yield Link(target, http, Api(http), version, flags.autostart)
