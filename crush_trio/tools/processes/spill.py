"""Files for tool output that is too large for memory: bounded each and in all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from crush_trio.limits import (
    SPILL_CALL_BYTES,
    SPILL_FILES_PER_CALL_NAME,
    SPILL_TOTAL_BYTES,
    TOOL_OUTPUT_MEMORY_BYTES,
)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_OUTPUT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}\Z")
_SUFFIX = ".txt"
_COPY_BYTES = 1024 * 1024


class SpillArea:
    """One directory of spill files and the count of their bytes; one per server.

    Nothing is created before the first output that needs it. What exists already counts. Files
    lie in folders, as ``workspace/session``, so that they can go with what they belong to.

    Args:
        directory: Where the files go; created 0700. The area owns everything in it.
        total_bytes: Bound on all files together; beyond it nothing more is spilled.
        call_bytes: Bound on the output kept of one call.
    """

    def __init__(
        self,
        directory: Path,
        *,
        total_bytes: int = SPILL_TOTAL_BYTES,
        call_bytes: int = SPILL_CALL_BYTES,
    ) -> None:
        self.directory = directory
        self._real = Path(os.path.realpath(directory))
        self.call_bytes = call_bytes
        self._total = total_bytes
        self._used: int | None = None
        self._lock = threading.Lock()  # guards `_used`: calls of all runs spill in worker threads

    def open(self, name: str, folder: str = "") -> tuple[Path, IO[bytes]] | None:
        """A new file 0600 whose name begins with ``name``; ``None`` if there is no room.

        Raises:
            OSError: The directory cannot be used, or the disk is full.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        inside = self.directory
        for part in Path(folder).parts:
            inside /= part
            inside.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            if self._used is None:
                self._used = _bytes_below(self.directory)
            full = self._used >= self._total
        stem = _UNSAFE.sub("_", name)[:100].lstrip(".") or "output"
        if full:
            return None
        for number in range(SPILL_FILES_PER_CALL_NAME):
            path = inside / f"{stem}{f'-{number}' if number else ''}{_SUFFIX}"
            with contextlib.suppress(FileExistsError):  # then the next number
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                return path, os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)
        return None

    def place(self, folder: str) -> Path:
        """Where a folder lies, links resolved, whether it exists or not."""
        return self._real / folder

    def find(self, folder: str, output_id: str) -> int | None:
        """A descriptor of a finished or growing output, for reading; ``None`` if there is none.

        An id is a plain name, and no link is followed on the way to it.

        Args:
            folder: Where it lies; of ids that are known to exist, never a client's own words.

        Raises:
            OSError: It cannot be read.
        """
        if not _OUTPUT_ID.match(output_id):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as opened:
            try:
                fd = os.open(self.directory, flags | os.O_DIRECTORY)
                opened.callback(os.close, fd)
                for part in Path(folder).parts:
                    fd = os.open(part, flags | os.O_DIRECTORY, dir_fd=fd)
                    opened.callback(os.close, fd)
                return os.open(output_id + _SUFFIX, flags | os.O_NONBLOCK, dir_fd=fd)
            except OSError as problem:
                if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                    return None
                raise

    def take(self, wanted: int) -> int:
        """Reserve up to ``wanted`` bytes; how many were granted."""
        with self._lock:
            used = self._used or 0
            granted = max(0, min(wanted, self._total - used))
            self._used = used + granted
            return granted

    def give_back(self, size: int) -> None:
        """Bytes that are no longer on the disk."""
        with self._lock:
            if self._used is not None:
                self._used = max(0, self._used - size)

    def remove(self, path: Path) -> None:
        """Delete one of the area's files; one that is gone already is fine."""
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            self.give_back(size)

    def folders(self) -> tuple[str, ...]:
        """Every folder, and every folder in one of these; as they are now."""
        found: list[str] = []
        with contextlib.suppress(OSError):  # there is none yet, or it is being removed
            for outer in os.scandir(self.directory):
                found.append(outer.name)
                found += (f"{outer.name}/{inner}" for inner in os.listdir(outer.path))
        return tuple(found)

    def remove_folder(self, folder: str) -> None:
        """Delete a folder with everything in it; one that is gone already is fine.

        Raises:
            OSError: Something in it cannot be deleted.
        """
        path = self.directory / folder
        size = _bytes_below(path)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        self.give_back(size)


def output_id_of(path: str) -> str:
    """By which id `SpillArea.find` finds a file of the area."""
    return Path(path).name.removesuffix(_SUFFIX)


def _bytes_below(directory: Path) -> int:
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


class CallSpill:
    """The whole output of one call, both streams as they came, once it outgrows memory.

    Until then the pieces wait here. Beyond the area's bound per call the file keeps the first
    half, and of the rest the last half, in a ring; what falls between is counted.
    Its methods block on the disk and are called in a worker thread, one at a time. A disk that
    fails ends the spilling, not the command.

    Args:
        keep_small: Whether what fits into memory stays readable after `finish`.
    """

    def __init__(
        self, area: SpillArea, name: str, folder: str = "", *, keep_small: bool = False
    ) -> None:
        self._keep_small = keep_small
        self._area = area
        self._name = name
        self._folder = folder
        self._waiting: list[bytes] = []
        self._seen = 0
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._ring: IO[bytes] | None = None
        self._half = area.call_bytes // 2
        self._head_bytes = 0
        self._ring_bytes = 0  # ever written to the ring
        self._ring_from = 0  # the position in the output at which the ring began
        self._tail: tuple[int, int] | None = None  # position, and where in the finished file
        self._written = 0  # bytes that were handed to the file or the ring, or left out there
        self._taken = 0
        self._stopped = False

    def wants_thread(self, size: int) -> bool:
        """Whether taking ``size`` more bytes touches the disk."""
        return not self._stopped and self._seen + size > TOOL_OUTPUT_MEMORY_BYTES

    def feed(self, data: bytes) -> None:
        """Take more output."""
        self._seen += len(data)
        if self._stopped:
            return
        if self._file is None:
            self._waiting.append(data)
            if self._seen <= TOOL_OUTPUT_MEMORY_BYTES:
                return
        try:
            if self._file is None:
                self._begin()
            else:
                self._write(data)
        except OSError:
            self.discard()

    def _begin(self) -> None:
        opened = self._area.open(self._name, self._folder)
        if opened is None:
            self._stopped = True
            self._waiting.clear()
            return
        self._path, self._file = opened
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._write(data)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        begin, self._written = self._written, self._written + len(data)
        part = data[: self._half - self._head_bytes]
        if part:
            granted = part[: self._grant(len(part))]
            _write_all(self._file, granted)
            self._head_bytes += len(granted)
            if len(granted) < len(part):
                self._half = self._head_bytes  # the area is full: the file ends here
                return
        self._write_ring(data[len(part) :], begin + len(part))

    def _write_ring(self, data: bytes, begin: int) -> None:
        while data and self._half:
            if self._ring is None:
                self._ring_from = begin
                self._ring = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `_close`
                    dir=self._area.directory, buffering=0
                )
            at = self._ring_bytes % self._half
            part = data[: self._half - at]
            if self._ring_bytes < self._half and self._grant(len(part)) < len(part):
                self._stopped = True
                return
            self._ring.seek(at)
            _write_all(self._ring, part)
            self._ring_bytes += len(part)
            data = data[len(part) :]

    def _grant(self, size: int) -> int:
        granted = self._area.take(size)
        self._taken += granted
        return granted

    def finish(self, whole: bool = False) -> str | None:
        """Complete the file and return its path; ``None`` if there is none.

        Args:
            whole: Write one also for output that has fitted into memory.
        """
        if whole and self._file is None and not self._stopped:
            try:
                self._begin()
            except OSError:
                self.discard()
                return None
        if self._file is None or self._path is None:
            if not self._keep_small:
                self._waiting.clear()
            return None
        try:
            if self._ring is not None:
                self._append_ring(self._file, self._ring)
        except OSError:
            self.discard()
            return None
        self._close()
        return str(self._path)

    def _append_ring(self, file: IO[bytes], ring: IO[bytes]) -> None:
        at = self._ring_bytes % self._half
        spans = [(0, self._ring_bytes)]
        if self._ring_bytes > self._half:
            gap = self._ring_bytes - self._half
            _write_all(file, f"\n... [{gap} bytes dropped] ...\n".encode())
            spans = [(at, self._half), (0, at)]
        self._tail = (self._ring_begin(), file.tell())
        for start, end in spans:
            ring.seek(start)
            while start < end and (piece := ring.read(min(_COPY_BYTES, end - start))):
                _write_all(file, piece)
                start += len(piece)

    @property
    def dropped(self) -> int:
        """Bytes that were fed and are not in the file."""
        return self._seen - self._head_bytes - min(self._ring_bytes, self._half)

    @property
    def seen(self) -> int:
        """Bytes of output so far, kept or not."""
        return self._seen

    def read(self, after: int, limit: int) -> tuple[bytes, int, int]:
        """Output from a position on: ``(bytes, next position, bytes dropped before them)``.

        The position counts everything that was fed, dropped or not; one beyond the end is the
        end. What somebody else has removed from the disk counts as dropped.
        """
        for begin, end, fetch in self._kept():
            if after < end and begin < end:
                start = max(after, begin)
                with contextlib.suppress(OSError):
                    data = fetch(start - begin, min(limit, end - start))
                    if data:
                        return data, start + len(data), start - after
        return b"", self._seen, max(0, self._seen - after)

    def _kept(self) -> list[tuple[int, int, Callable[[int, int], bytes]]]:
        """What is kept: from where, to where, and how to get bytes of it."""
        if self._path is None:
            whole = b"".join(self._waiting)
            return [(0, len(whole), lambda at, size: whole[at : at + size])]
        head = (0, self._head_bytes, self._read_file)
        ring_end = self._ring_from + self._ring_bytes
        if self._ring is not None:
            return [head, (self._ring_begin(), ring_end, self._read_ring)]
        if self._tail is None:
            return [head]
        begin, offset = self._tail
        return [head, (begin, ring_end, lambda at, size: self._read_file(offset + at, size))]

    def _ring_begin(self) -> int:
        """The position in the output of the oldest byte that the ring still has."""
        return self._ring_from + max(0, self._ring_bytes - self._half)

    def _read_file(self, at: int, size: int) -> bytes:
        if self._file is not None:
            return os.pread(self._file.fileno(), size, at)
        assert self._path is not None
        with self._path.open("rb") as file:
            return os.pread(file.fileno(), size, at)

    def _read_ring(self, at: int, size: int) -> bytes:
        assert self._ring is not None
        place = (max(0, self._ring_bytes - self._half) + at) % self._half
        return os.pread(self._ring.fileno(), min(size, self._half - place), place)

    def _close(self) -> None:
        for file in (self._file, self._ring):
            if file is not None:
                file.close()
        self._file = self._ring = None
        self._stopped = True

    def discard(self) -> None:
        """Forget everything: the file goes, and nothing more is spilled."""
        self._waiting.clear()
        self._close()
        if self._path is not None:
            with contextlib.suppress(OSError):  # it then counts until the next start
                self._path.unlink(missing_ok=True)
                self._area.give_back(self._taken)
            self._path = None


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
