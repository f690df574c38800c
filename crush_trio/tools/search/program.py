"""The program behind ls, glob and our own grep: runs as ``python -I -m``, and can be killed.

Patterns from models and repositories may take for ever, and nothing in the server's own process
could stop them. Argument: one JSON object with ``mode`` (ls, glob, grep), ``start``, ``root``,
``most`` and what the mode needs. Output: one JSON value per line, a row as a list, then
``{"truncated": bool}`` (with the ``summary`` that was asked for); or ``{"error": sentence}``. Rows
are written as they are found, so what was found before a time limit is not lost.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crush_trio.limits import (
    GREP_COLUMNS,
    LS_DEPTH,
    SEARCH_FILE_BYTES,
    SEARCH_MEMORY_BYTES,
    TREE_SUMMARY_FILES,
    TREE_SUMMARY_S,
)
from crush_trio.tools.search.globs import glob_regex
from crush_trio.tools.search.tree_summary import TreeSummary
from crush_trio.tools.search.walk import Entry, walk

Row = list[Any]


def list_entries(request: dict[str, Any]) -> Iterator[Row]:
    """``[path, depth, is_dir]`` of everything to list."""
    for entry in _listed(request):
        yield [entry.path, entry.depth, entry.is_dir]


def _listed(request: dict[str, Any]) -> Iterator[Entry]:
    patterns = [glob_regex(glob.rstrip("/")) for glob in request["ignore"]]
    hidden = "/"  # no path begins so
    for entry in _entries(request, request["depth"] or LS_DEPTH):
        name = entry.path.rpartition("/")[2]
        if entry.path.startswith(hidden):
            continue
        if any(p.fullmatch(entry.path) or p.fullmatch(name) for p in patterns):
            hidden = f"{entry.path}/"  # what is below it comes next, before anything else
        else:
            yield entry


def summary(request: dict[str, Any]) -> dict[str, Any]:
    """What `TreeSummary` says of the directory, as far as the time allows."""
    numbers, until = TreeSummary(), time.monotonic() + TREE_SUMMARY_S
    top = list(_listed({**request, "depth": 1}))
    for count, entry in enumerate(_listed(request)):
        if count == TREE_SUMMARY_FILES or time.monotonic() > until:
            return numbers.to_json(top, complete=False)
        numbers.add(entry)
    return numbers.to_json(top, complete=True)


def glob_files(request: dict[str, Any]) -> Iterator[Row]:
    """``[path]`` of every file that matches, newest first."""
    regex = glob_regex(request["pattern"])
    found = (entry for entry in _entries(request) if not entry.is_dir)
    for entry in _newest_first(entry for entry in found if regex.fullmatch(entry.path)):
        yield [entry.path]


def grep_files(request: dict[str, Any]) -> Iterator[Row]:
    """``[path, line number, line]`` of every match, the newest file first."""
    pattern = re.escape(request["pattern"]) if request["literal"] else request["pattern"]
    search = re.compile(pattern).search
    start = Path(request["start"])
    if start.is_file():
        yield from _grep_file(start, start.name, search)
        return
    include = request["include"]
    regex = glob_regex(include if "/" in include else f"**/{include}") if include else None
    files = (entry for entry in _entries(request) if entry.is_file)
    for entry in _newest_first(e for e in files if regex is None or regex.fullmatch(e.path)):
        yield from _grep_file(start / entry.path, entry.path, search)


def _grep_file(path: Path, shown: str, search: Any) -> Iterator[Row]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_size > SEARCH_FILE_BYTES:
                return
            data = file.read(SEARCH_FILE_BYTES)
    except OSError:
        return  # gone, or not ours to read
    if b"\0" in data[:8192]:
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        if search(text):
            cut = text if len(text) <= GREP_COLUMNS else text[:GREP_COLUMNS] + "..."
            yield [shown, number, cut]


def _entries(request: dict[str, Any], most_depth: int = LS_DEPTH) -> Iterator[Entry]:
    return walk(Path(request["start"]), Path(request["root"]), most_depth=most_depth)


def _newest_first(entries: Iterator[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-entry.mtime_ns, entry.path))


MODES = {"ls": list_entries, "glob": glob_files, "grep": grep_files}


def _say(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Answer the request in the first argument."""
    resource.setrlimit(resource.RLIMIT_AS, (SEARCH_MEMORY_BYTES, SEARCH_MEMORY_BYTES))
    request = json.loads(sys.argv[1])
    truncated = False
    try:
        for count, row in enumerate(MODES[request["mode"]](request)):
            if count == request["most"]:
                truncated = True
                break
            _say(row)
    except (re.error, RecursionError, OverflowError) as problem:
        _say({"error": f"the pattern is not a regular expression: {problem}"})
    except MemoryError:
        _say({"error": "the search needs too much memory"})
    else:
        end: dict[str, Any] = {"truncated": truncated}
        _say(end | {"summary": summary(request)} if request.get("summary") else end)


if __name__ == "__main__":
    main()
