"""Bearer tokens: made once, kept in a file only we can read, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from crush_trio.limits import (
    AUTH_DELAY_FIRST_S,
    AUTH_DELAY_MAX_S,
    AUTH_FORGET_S,
    AUTH_PEERS,
    TOKEN_BYTES,
)
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.tokens import BARE_NAME, check_token, read_token_file

TOKEN_FILE: Final = "token"
"""Name of the token file in the data directory."""

TOKEN_VARIABLE: Final = "CRUSH_TRIO_TOKEN"


class Tokens:
    """The tokens a server takes, by principal; they cannot be read back out.

    Args:
        by_name: At least one; the names are principals.
    """

    def __init__(self, by_name: Mapping[str, str]) -> None:
        self._digests = [(name, _digest(token.encode())) for name, token in by_name.items()]

    def principal_of(self, token: bytes) -> str | None:
        """Whose token this is, or ``None``; the time taken does not depend on the answer."""
        offered = _digest(token)
        found: str | None = None
        for name, digest in self._digests:
            if hmac.compare_digest(digest, offered):
                found = name
        return found


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def load_tokens(
    data_directory: Path,
    environ: Mapping[str, str],
    uid: int,
    token_file: Path | None = None,
) -> Tokens:
    """The tokens of a server on TCP: those of the file, and ``CRUSH_TRIO_TOKEN``.

    Without that variable the file in the data directory is made if it is missing; a file that was
    named is never made.

    Raises:
        ConfigError: One sentence; see `read_token_file`.
    """
    named = environ.get(TOKEN_VARIABLE, "")
    path = token_file or data_directory / TOKEN_FILE
    if token_file is None and not named:
        make_token_file(path)
    by_name = read_token_file(path, uid) if token_file or path.exists() else {}
    if named:
        check_token(named, TOKEN_VARIABLE)
        by_name[BARE_NAME] = named
    return Tokens(by_name)


def make_token_file(path: Path) -> None:
    """Makes a file with one fresh 256-bit token, mode 0600, unless there is one.

    It appears complete or not at all.

    Raises:
        ConfigError: The directory cannot be written.
    """
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
            os.write(descriptor, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # somebody else's is as good
        finally:
            os.unlink(draft)
    except OSError as exc:
        raise ConfigError(f"The token file {path} cannot be made: {exc.strerror}.") from exc


@attrs.define
class _Failing:
    count: int
    last: float


class FailureDelays:
    """How long a failed authentication waits for its answer, growing per peer.

    Only the failing request waits; a right token is never delayed, so a guesser on the same
    machine locks nobody out.
    """

    def __init__(self) -> None:
        self._failing: dict[str, _Failing] = {}

    def note(self, address: str, now: float) -> float:
        """Seconds this failure of the peer at ``address`` waits; ``now`` is any steady clock."""
        entry = self._failing.pop(address, None)
        if entry is None or now - entry.last > AUTH_FORGET_S:
            entry = _Failing(0, now)
        delay = min(AUTH_DELAY_FIRST_S * 2.0 ** min(entry.count, 16), AUTH_DELAY_MAX_S)
        self._failing[address] = _Failing(entry.count + 1, now)
        if len(self._failing) > AUTH_PEERS:
            del self._failing[next(iter(self._failing))]
        return delay
