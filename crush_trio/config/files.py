"""Writing a configuration file: whole or not at all, for its owner only, one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crush_trio import limits
from crush_trio.protocol.errors import ConfigError

Identity = tuple[int, int, int, int] | None
"""What tells one state of a file from another: inode, size, times of change; ``None``: absent."""


def identity(path: Path) -> Identity:
    """The state a file is in; one ``stat``."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other writers of ours away from ``path``; blocks at most `limits.CONFIG_LOCK_S`.

    Its directory is made if it is missing, for its owner only. An empty file ``….lock`` stays.

    Raises:
        ConfigError: Somebody else holds it for too long, or it cannot be made.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}.") from exc
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + limits.CONFIG_LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{path}: somebody else is changing it; try again later."
                ) from exc
            time.sleep(limits.CONFIG_LOCK_LOOK_S)
        else:
            return


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Replace ``path`` by ``document``, mode 0600: readers see the old file or the new one.

    Where ``path`` is a symlink, the file it leads to is replaced and the link stays.

    Raises:
        ConfigError: It would be too large to be read again, or cannot be written.
    """
    text = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    if len(text) > limits.CONFIG_FILE_BYTES:
        raise ConfigError(f"{path}: would be larger than {limits.CONFIG_FILE_BYTES} bytes.")
    target = Path(os.path.realpath(path))
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):  # it was not made after all
                os.unlink(temporary)
            raise
        _sync_directory(target.parent)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}.") from exc


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
