"""One process per data directory: a file lock that also says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.protocol.errors import StoreError

LOCK_NAME = "lock"


@attrs.frozen
class Holder:
    """Who holds (or last held) a data directory. ``opens`` counts how often it was opened."""

    pid: int = 0
    started_ms: int = 0
    url: str = ""
    opens: int = 0


class DirectoryLock:
    """The lock of a data directory, from `take` until `release` or the death of the process."""

    def __init__(self, fd: int, directory: Path, previous: Holder | None) -> None:
        self._fd = fd
        self._directory = directory
        self.previous = previous
        """What the file said before; ``None`` if there was no such file."""
        self._holder = Holder(os.getpid(), time.time_ns() // 1_000_000)

    @classmethod
    def take(cls, directory: Path) -> DirectoryLock:
        """Lock the directory. Blocking, but only while the holder is dead, and bounded.

        A server that is killed while it starts a process leaves its lock to that process, until
        the program is loaded there and has closed it.

        Raises:
            StoreError: ``data_dir_in_use`` names the holder; ``store_unwritable``.
        """
        path = directory / LOCK_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise StoreError(
                "store_unwritable",
                f"the data directory {directory} cannot be written: {exc.strerror}; "
                "choose another with --data-dir",
            ) from exc
        deadline = time.monotonic() + limits.DEAD_HOLDER_S
        while True:
            previous = _read(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                if not _is_dead(previous) or time.monotonic() > deadline:
                    os.close(fd)
                    raise StoreError("data_dir_in_use", _in_use(directory, previous)) from exc
                time.sleep(limits.DEAD_HOLDER_LOOK_S)
            else:
                return cls(fd, directory, _read(fd))

    def note(self, *, url: str | None = None, opens: int | None = None) -> None:
        """Write who holds the directory, for whoever finds it locked."""
        holder = self._holder
        self._holder = attrs.evolve(
            holder,
            url=holder.url if url is None else url,
            opens=holder.opens if opens is None else opens,
        )
        text = json.dumps(attrs.asdict(self._holder)).encode() + b"\n"
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Unlock. The file stays: removing it would let two processes lock two files."""
        os.close(self._fd)


def _is_dead(holder: Holder | None) -> bool:
    if holder is None or holder.pid <= 0:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's: it lives
    return False


def _read(fd: int) -> Holder | None:
    # One line counts: after a kill between the two steps of `note`, an older one's end follows.
    text = os.pread(fd, 4096, 0).partition(b"\n")[0]
    try:
        value: Any = json.loads(text)
        return Holder(
            int(value["pid"]), int(value["started_ms"]), str(value["url"]), int(value["opens"])
        )
    except (ValueError, KeyError, TypeError):
        return None


def _in_use(directory: Path, holder: Holder | None) -> str:
    sentence = f"the data directory {directory} is in use by crush-trio"
    if holder is None:
        return f"{sentence}; stop it, or choose another with --data-dir"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.started_ms / 1000))
    where = f" on {holder.url}" if holder.url else ""
    return (
        f"{sentence} pid {holder.pid}{where}, since {since}; "
        "stop it, or choose another with --data-dir"
    )
