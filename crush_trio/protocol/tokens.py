"""The token file, as server and client read it: lines ``name:token``, or a bare token."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from crush_trio.limits import TOKEN_MIN_CHARS
from crush_trio.protocol.errors import ConfigError

BARE_NAME: Final = "token"
"""The principal of a token without a name, and of ``CRUSH_TRIO_TOKEN``."""

LOCAL_NAME: Final = "local"
"""The principal of the unix socket; no token may have this name."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_TOKEN = re.compile(r"[!-~]+\Z")


def read_token_file(path: Path, uid: int) -> dict[str, str]:
    """Tokens by the name of their principal, in the order of the file.

    Raises:
        ConfigError: Missing, open to others, somebody else's, or a line that says nothing; the
            sentence names the file and the line, never a token.
    """
    try:
        # O_NONBLOCK: a named pipe in its place must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            _check_owner(path, status, uid)
            text = file.read()
    except OSError as exc:
        raise ConfigError(f"The token file {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"The token file {path} is not text.") from exc
    tokens: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, found, token = line.strip().partition(":")
        if not found:
            name, token = BARE_NAME, name
        if not _NAME.match(name) or name == LOCAL_NAME or name in tokens:
            raise ConfigError(
                f"{path}:{number}: a line is NAME:TOKEN, each name once, of letters, digits and"
                f" ._-, and not {LOCAL_NAME!r}."
            )
        check_token(token, f"{path}:{number}")
        tokens[name] = token
    if not tokens:
        raise ConfigError(f"The token file {path} holds no token; remove it to have one made.")
    return tokens


def check_token(token: str, where: str) -> None:
    """Returns if ``token`` can travel in a header and is long enough.

    Raises:
        ConfigError: Names ``where`` it came from, not the token.
    """
    if not _TOKEN.match(token):
        raise ConfigError(f"{where}: a token is printable ASCII without spaces.")
    if len(token) < TOKEN_MIN_CHARS:
        raise ConfigError(f"{where}: a token has at least {TOKEN_MIN_CHARS} characters.")


def _check_owner(path: Path, status: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"The token file {path} is not a regular file.")
    if status.st_uid not in (uid, 0):
        raise ConfigError(f"The token file {path} belongs to user {status.st_uid}, not to you.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"The token file {path} is open to others; run `chmod 600 {path}`.")
