"""Which server a command means, and what it needs to be let in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from crush_trio.client.endpoint import (
    BadServerUrl,
    Endpoint,
    TcpEndpoint,
    UnixEndpoint,
    parse_server_url,
)
from crush_trio.protocol.sockets import check_socket_directory, default_socket_path
from crush_trio.protocol.tokens import read_token_file

TOKEN_VARIABLE = "CRUSH_TRIO_TOKEN"
TOKEN_FILE = "token"
"""The token file's name inside a data directory."""


@attrs.frozen
class Target:
    """A server: where it is, how to be let in, and whether we may start it.

    ``data_dir`` is set when the server is the default one of that directory: only such a server
    is started by a client, and ``--server`` never falls back to it.
    """

    endpoint: Endpoint
    token: str | None = None
    data_dir: Path | None = None


def locate(
    *,
    server: str | None,
    data_dir: Path | None,
    token_file: Path | None,
    environ: Mapping[str, str],
) -> Target:
    """The server that the flags and the environment name.

    Args:
        server: What ``--server`` said, or ``None`` for the default socket of ``data_dir``.
        data_dir: The data directory; may be ``None`` only with ``server``.
        token_file: What ``--token-file`` said.
        environ: ``CRUSH_TRIO_TOKEN`` and ``XDG_RUNTIME_DIR`` count.

    Raises:
        BadServerUrl: ``server`` is no address.
        ConfigError: The token file is of no use, or the directory of the default socket is not
            ours alone (T9).
    """
    if server is not None:
        endpoint = parse_server_url(server)
        if isinstance(endpoint, TcpEndpoint):
            return Target(endpoint, find_token(token_file, data_dir, environ))
        return Target(endpoint)
    if data_dir is None:
        raise BadServerUrl("name a server with --server, or a directory with --data-dir")
    path = default_socket_path(data_dir, environ, os.getuid())
    if os.path.lexists(path.parent):
        check_socket_directory(path.parent, os.getuid())
    return Target(UnixEndpoint(path), data_dir=data_dir)


def find_token(
    token_file: Path | None, data_dir: Path | None, environ: Mapping[str, str]
) -> str | None:
    """The bearer token: of the named file, of the environment, or of the data directory's file.

    Of a file with several principals the first one's.

    Raises:
        ConfigError: The file is missing, open to others, or says nothing.
    """
    if token_file is None:
        if environ.get(TOKEN_VARIABLE):
            return environ[TOKEN_VARIABLE]
        if data_dir is None or not (data_dir / TOKEN_FILE).exists():
            return None
        token_file = data_dir / TOKEN_FILE
    return next(iter(read_token_file(token_file, os.getuid()).values()))
