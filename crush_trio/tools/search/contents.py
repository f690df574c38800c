"""The lines of files that match a pattern."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from crush_trio.limits import GREP_COLUMNS, SEARCH_FILE_BYTES, SEARCH_TOGETHER_BYTES
from crush_trio.tools.search.linear import Linear

_BINARY_WITHIN = 64 * 1024  # a NUL up to here makes a file binary; further on it ends its text
_UTF_8, _UTF_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_MARKS = (_UTF_8, *_UTF_16)
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def lines_found(
    directory: bytes, files: Iterable[tuple[str, int]], regex: Linear
) -> Iterator[tuple[str, int, str]]:
    """Path, number and text of each line that matches, file by file; long ones are cut.

    Most files have no match, so several are searched as one text first. What is no text, too large,
    or not ours to read, has no lines.

    Args:
        files: Paths below ``directory`` and their sizes.
    """
    some: list[tuple[str, bytes]] = []
    size = 0
    for path, expected in files:
        if not 0 < expected <= SEARCH_FILE_BYTES:
            continue
        if size + expected > SEARCH_TOGETHER_BYTES or not regex.by_line:
            yield from _found_in(some, regex)
            some, size = [], 0
        some.append((path, _read(directory + os.fsencode(path), expected)))
        size += expected
    yield from _found_in(some, regex)


def _found_in(files: list[tuple[str, bytes]], regex: Linear) -> Iterator[tuple[str, int, str]]:
    together = _plain(b"\n".join([data for _, data in files]))
    if not regex.by_line or regex.find(together)[0] >= 0:
        for path, data in files:
            for number, line in _lines_in(_text(data), regex):
                yield path, number, line


def _lines_in(data: bytes, regex: Linear) -> Iterator[tuple[int, str]]:
    at, number = 0, 1
    while at < len(data):
        begin, _ = regex.find(data, at)
        if begin < 0 or (begin == len(data) and data.endswith(b"\n")):
            return  # behind the last line feed there is no line
        number += data.count(b"\n", at, begin)
        first, last = data.rfind(b"\n", 0, begin) + 1, data.find(b"\n", begin)
        last = len(data) if last < 0 else last
        line = data[first:last].decode("utf-8", "replace")
        yield number, line if len(line) <= GREP_COLUMNS else line[:GREP_COLUMNS] + "..."
        at, number = last + 1, number + 1


def _read(path: bytes, size: int) -> bytes:
    try:
        fd = os.open(path, _FLAGS)
        try:
            data = os.read(fd, size)
        finally:
            os.close(fd)
    except OSError:
        return b""  # gone, or not ours to read
    if not data.startswith(_MARKS):
        return data
    if data.startswith(_UTF_8):
        return data[len(_UTF_8) :]
    return data.decode("utf-16", "replace").encode("utf-8", "replace")


def _text(data: bytes) -> bytes:
    """Its lines, ended by line feeds alone; nothing if it is no text."""
    nul = data.find(b"\0")
    if nul >= 0:
        data = b"" if nul < _BINARY_WITHIN else data[:nul]
    return _plain(data)


def _plain(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data
