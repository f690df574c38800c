"""What a directory holds in numbers, also where a listing of it would be too long."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from crush_trio.limits import TREE_SUMMARY_NAMES, TREE_SUMMARY_ROWS
from crush_trio.tools.search.walk import Entry

TYPE_CHECKING = False  # `typing` is not needed where this runs, and takes time to import
if TYPE_CHECKING:
    from typing import Any


class TreeSummary:
    """Counts files and bytes by extension and by top directory, and keeps the largest files."""

    def __init__(self) -> None:
        self._extensions: dict[str, list[int]] = {}
        self._directories: dict[str, list[int]] = {}
        self._largest: list[tuple[int, str]] = []
        self._files = 0
        self._bytes = 0

    def add(self, entry: Entry) -> None:
        """Count an entry of the walk; links and directories have no size of their own."""
        if not entry.is_file:
            return
        _, size = entry.stat()
        top, slash, _ = entry.path.partition("/")
        name = entry.path.rpartition("/")[2]
        extension = f".{name.rpartition('.')[2].lower()}" if "." in name[1:] else ""
        _count(self._extensions, extension, size)
        if slash:
            _count(self._directories, top, size)
        heapq.heappush(self._largest, (size, entry.path))
        if len(self._largest) > TREE_SUMMARY_ROWS:
            heapq.heappop(self._largest)
        self._files += 1
        self._bytes += size

    def to_json(self, top: Iterable[Entry], *, complete: bool) -> dict[str, Any]:
        """The numbers; ``complete`` is false if the walk was stopped before its end.

        ``here`` names ``top``, what lies in the directory itself: files, then directories with
        ``/``. ``extensions`` and ``directories`` map a name to ``[files, bytes]`` and hold the
        largest; ``largest`` is a list of ``[path, bytes]``, the largest first.
        """
        here = [entry.path + "/" * entry.is_dir for entry in sorted(top, key=lambda e: e.is_dir)]
        return {
            "files": self._files,
            "bytes": self._bytes,
            "complete": complete,
            "here": here[:TREE_SUMMARY_NAMES],
            "extensions": _most(self._extensions),
            "directories": _most(self._directories),
            "largest": [[path, size] for size, path in sorted(self._largest, reverse=True)],
        }


def _count(table: dict[str, list[int]], key: str, size: int) -> None:
    row = table.setdefault(key, [0, 0])
    row[0] += 1
    row[1] += size


def _most(table: dict[str, list[int]]) -> dict[str, list[int]]:
    rows = sorted(table.items(), key=lambda row: (-row[1][1], row[0]))
    return dict(rows[:TREE_SUMMARY_ROWS])
