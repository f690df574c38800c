"""Where a server's unix socket is and who may have made its directory; both sides ask this."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from crush_trio.protocol.errors import ConfigError

PATH_BYTES_MAX: Final = 103 if sys.platform == "darwin" else 107
"""The longest path of a unix socket the kernel takes (``sun_path`` without its last zero)."""


def default_socket_path(data_directory: Path, environ: Mapping[str, str], uid: int) -> Path:
    """The socket of the server that owns ``data_directory`` (contract 6).

    Args:
        data_directory: Its real path counts, so two names of one directory mean one server.
        environ: ``XDG_RUNTIME_DIR`` counts if it names a directory of ``uid``; after ``su`` it
            still names the other user's, and in containers often one that does not exist.
        uid: Of the user; part of the name below ``/tmp``.
    """
    real = os.fsencode(os.path.realpath(data_directory))
    name = hashlib.sha256(real).hexdigest()[:16] + ".sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_directory_of(runtime, uid):
        return Path(runtime) / "crush-trio" / name
    return Path("/tmp") / f"crush-trio-{uid}" / name


def _is_directory_of(path: str, uid: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid


def check_socket_path(path: Path) -> None:
    """Returns if a unix socket can have this path.

    Raises:
        ConfigError: It is relative or too long for the kernel.
    """
    if not path.is_absolute():
        raise ConfigError(f"The socket path {path} must be absolute, as in unix:///run/me/ct.sock.")
    size = len(os.fsencode(path))
    if size > PATH_BYTES_MAX:
        raise ConfigError(
            f"The socket path {path} is {size} bytes long but the system allows {PATH_BYTES_MAX};"
            " name a shorter one with --host unix:///PATH."
        )


def make_socket_directory(directory: Path, uid: int) -> None:
    """Makes the directory of a socket if it is missing, and checks it as the client will.

    Raises:
        ConfigError: It cannot be made, or is not a directory that only ``uid`` can enter.
    """
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as exc:
        raise ConfigError(
            f"The directory {directory} for the socket cannot be made: {exc.strerror};"
            " make it yourself or name another one with --host unix:///PATH."
        ) from exc
    else:
        os.chmod(directory, 0o700)  # mkdir's mode went through the umask
    check_socket_directory(directory, uid)


def check_socket_directory(directory: Path, uid: int) -> None:
    """Returns if ``directory`` is one that nobody but ``uid`` (and root) could have filled.

    The check is made on an open descriptor of the directory itself: a symbolic link in its place
    is refused, and what is checked is what is there.

    Raises:
        ConfigError: Missing, a link, somebody else's, or open to others.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory, flags)
    except FileNotFoundError as exc:
        raise ConfigError(f"The directory {directory} of the socket does not exist.") from exc
    except OSError as exc:
        raise ConfigError(
            f"The directory {directory} of the socket must be a directory of yours and no link"
            f" ({exc.strerror}); remove it or name another one with --host unix:///PATH."
        ) from exc
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if status.st_uid != uid:
        raise ConfigError(
            f"The directory {directory} of the socket belongs to user {status.st_uid}, not to you;"
            " name another one with --host unix:///PATH."
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"The directory {directory} of the socket is open to others; run"
            f" `chmod 700 {directory}` or name another one with --host unix:///PATH."
        )
