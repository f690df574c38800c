"""Reading and replacing regular files: no link, FIFO or device is followed or waited for."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from crush_trio.limits import EDIT_FILE_BYTES
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.files.landing import Landing, Version, version_of
from crush_trio.tools.paths import open_directory

BOM = "\ufeff"
_SNIFF_BYTES = 8_192


@attrs.frozen
class TextFile:
    """A file as text: line ends as they are, the byte order mark apart.

    ``crlf``: every line ends in CRLF, so that what is added should, too. ``links`` counts the
    file's names (hard links).
    """

    text: str
    bom: bool
    crlf: bool
    version: Version
    links: int = 1

    @property
    def whole(self) -> str:
        """The contents with the byte order mark, if there is one."""
        return BOM + self.text if self.bom else self.text


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """The regular file at exactly this resolved path, for reading.

    Raises:
        ToolProblem: It is a directory, FIFO, socket or device.
        OSError: It does not exist or cannot be read.
    """
    with open_directory(path.parent) as directory:
        # Non-blocking: opening a FIFO would otherwise wait for a writer that never comes.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(path.name or ".", flags, dir_fd=directory)
    try:
        _demand_regular(os.fstat(fd), path)
    except ToolProblem:
        os.close(fd)
        raise
    with os.fdopen(fd, "rb") as file:
        yield file


def _demand_regular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ToolProblem(f"path is a directory, not a file: {path}")
    if not stat.S_ISREG(found.st_mode):
        raise ToolProblem(f"not a regular file: {path}")


def looks_binary(head: bytes) -> bool:
    """Whether the first bytes of a file are not text: a NUL among them (as git decides it)."""
    return b"\0" in head[:_SNIFF_BYTES]


def read_text(path: Path) -> TextFile | None:
    """The file at this resolved path as text; ``None`` if there is none. Blocks on the disk.

    Raises:
        ToolProblem: It is no regular file, larger than `EDIT_FILE_BYTES`, or not UTF-8 text.
        OSError: It cannot be read.
    """
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            if found.st_size > EDIT_FILE_BYTES:
                raise ToolProblem(
                    f"{path} has {found.st_size} bytes; files over {EDIT_FILE_BYTES} bytes "
                    "cannot be edited with this tool"
                )
            data = file.read(EDIT_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ToolProblem(
            f"{path} is UTF-16 or UTF-32 text; only UTF-8 can be edited with this tool"
        )
    if looks_binary(data):
        raise ToolProblem(f"{path} is a binary file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        at = problem.start
        said = f"{path} is not UTF-8 text (byte {at}); only UTF-8 can be edited with this tool"
        raise ToolProblem(said) from problem
    bom = text.startswith(BOM)
    text = text.removeprefix(BOM)
    crlf = "\n" in text and text.count("\r\n") == text.count("\n")
    return TextFile(text, bom, crlf, version_of(found), found.st_nlink)


def replace_file(path: Path, content: str, expected: Version | None) -> int:
    """Put ``content`` at this resolved path in one step; blocks on the disk.

    A new file is written beside it, synced, given the old one's mode, owner and attributes, and
    renamed over it, so a reader or a crash meets the old contents or the new ones. Missing
    directories are made.

    Args:
        expected: The state the caller has seen; ``None``: there is no such file.

    Returns:
        When that changed the file, in unix ns.

    Raises:
        ToolProblem: The file is in another state by now, or no UTF-8 text can hold ``content``.
        OSError: It cannot be written; then it is as it was.
    """
    try:
        data = content.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise ToolProblem("the content holds a lone surrogate, which no file can") from problem
    with contextlib.closing(Landing(path, expected)) as landing:
        landing.write(data)
        return landing.commit()
