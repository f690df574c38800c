"""Contents that become a file in one step: written beside it first; blocks on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path

import attrs

from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.paths import open_directory, sync_directory


@attrs.frozen
class Version:
    """What tells one state of a file from the next."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def changed_ns(self) -> int:
        """When anything about the file changed last, its name included: a time that programs
        cannot set, as they can its modification time."""
        return max(self.mtime_ns, self.ctime_ns)


def version_of(found: os.stat_result) -> Version:
    """The state that a ``stat`` saw."""
    return Version(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Landing:
    """A new file beside ``path``, under a name nobody can guess, until `commit` or `close`.

    It stands in the directory that was found at exactly this resolved path when it was made:
    what becomes of that path meanwhile leads it nowhere else. Missing directories are made for a
    new file.

    Args:
        path: Where it is to land, without symbolic links.
        expected: The state of the file there that the caller has seen; ``None``: there is none.

    Raises:
        OSError: No file can be made there.
    """

    def __init__(self, path: Path, expected: Version | None) -> None:
        self._path = path
        self._expected = expected
        self._name: str | None = f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
        with open_directory(path.parent, create=expected is None) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            mode = 0o666 if expected is None else 0o600
            fd = os.open(self._name, flags, mode, dir_fd=directory)
            self._file = os.fdopen(fd, "wb")
            self._directory = os.dup(directory)

    def write(self, data: bytes) -> None:
        """Add to it.

        Raises:
            OSError: The disk is full, or broken.
        """
        self._file.write(data)

    def sync(self) -> None:
        """Bring it to the disk, so that `commit` has little left to do.

        Raises:
            OSError: The disk is full, or broken.
        """
        self._file.flush()
        os.fsync(self._file.fileno())

    def commit(self) -> int:
        """Put it in its place, synced, with the old file's mode, owner and attributes: readers
        and a crash meet the old contents or all of the new ones.

        Other names of the old file (hard links) keep the old contents.

        Returns:
            When it was changed last, by this, in unix ns.

        Raises:
            ToolProblem: The file there is in another state by now.
            OSError: It cannot be done; then the file there is as it was.
        """
        assert self._name is not None
        fd, directory = self._file.fileno(), self._directory
        self._file.flush()
        self._take_over(fd)
        os.fsync(fd)
        written = version_of(os.fstat(fd))
        if self._expected is None and self._link():
            os.unlink(self._name, dir_fd=directory)
        else:
            os.rename(self._name, self._path.name, src_dir_fd=directory, dst_dir_fd=directory)
        self._name = None
        landed = version_of(os.fstat(fd))  # to be given its name was a change, too
        written_ns = (landed if landed.mtime_ns == written.mtime_ns else written).changed_ns
        with contextlib.suppress(PermissionError):  # a directory that may be written, not read
            sync_directory(directory)
        return written_ns

    def close(self) -> None:
        """Remove what was not committed. Idempotent; never raises, for the first problem is the
        one to report.
        """
        with contextlib.suppress(OSError):
            self._file.close()
        if self._directory < 0:
            return
        if self._name is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
        os.close(self._directory)
        self._directory = -1

    def _link(self) -> bool:
        """Give it its name, which nothing may have; whether the file system has such links.

        `link` refuses where `rename` would replace what appeared meanwhile.
        """
        assert self._name is not None
        at = self._directory
        try:
            os.link(self._name, self._path.name, src_dir_fd=at, dst_dir_fd=at)
        except OSError as problem:
            if problem.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return False
        return True

    def _take_over(self, fd: int) -> None:
        """Check that the old file is still the expected one; take its mode, owner, attributes.

        Not the bits that let it run as somebody else: writing into a file clears them, too.
        """
        try:
            found = os.stat(self._path.name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if (None if found is None else version_of(found)) != self._expected:
            said = f"{self._path} has changed since it was looked at; nothing was written"
            raise ToolProblem(said)
        if found is not None:
            with contextlib.suppress(PermissionError):  # another's file: the new one is ours
                os.fchown(fd, found.st_uid, found.st_gid)
            os.fchmod(fd, stat.S_IMODE(found.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
            with contextlib.suppress(OSError):  # no such attributes here, or not for us
                self._take_attributes(fd)

    def _take_attributes(self, fd: int) -> None:
        """Copy access control lists and what users have noted on the old file (Linux)."""
        if sys.platform != "linux":
            return
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        old = os.open(self._path.name, flags, dir_fd=self._directory)
        try:
            for name in os.listxattr(old):
                if name == "system.posix_acl_access" or name.startswith("user."):
                    os.setxattr(fd, name, os.getxattr(old, name))
        finally:
            os.close(old)
