"""The program behind ls, glob and our own grep: runs as ``python -I -m``, and can be killed.

Trees may have no end or lie on a disk that does not answer, and nothing in the server's own process
could stop that. Argument: one JSON object with ``mode`` (ls, glob, grep), ``start``, ``root``,
``most`` and what the mode needs. Output: one JSON value per line, a row as a list, then
``{"truncated": bool}`` (with the ``summary`` that was asked for); or ``{"error": sentence}``. Rows
are written as they are found, so what was found before a time limit is not lost.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator

from crush_trio.limits import (
    LS_DEPTH,
    SEARCH_MEMORY_BYTES,
    TREE_SUMMARY_FILES,
    TREE_SUMMARY_S,
)
from crush_trio.tools.own_memory import bound_memory
from crush_trio.tools.search.contents import lines_found
from crush_trio.tools.search.globs import Glob
from crush_trio.tools.search.linear import Linear, PatternError, escaped
from crush_trio.tools.search.ripgrep import files_with_matches, ripgrep_argv, same_meaning
from crush_trio.tools.search.tree_summary import TreeSummary
from crush_trio.tools.search.walk import Entry, walk

# Not `typing` and what else takes long to import: most searches take no longer than their start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = list[Any]

_AT_ONCE = 4_096  # paths that a glob is asked about together


def list_entries(request: dict[str, Any]) -> Iterator[Row]:
    """``[path, depth, is_dir]`` of everything to list."""
    for entry in _listed(request):
        yield [entry.path, entry.depth, entry.is_dir]


def _listed(request: dict[str, Any]) -> Iterator[Entry]:
    globs = [Glob(glob.rstrip("/")) for glob in request["ignore"]]
    hidden = "/"  # no path begins so
    for entry in _entries(request, request["depth"] or LS_DEPTH):
        name = entry.path.rpartition("/")[2]
        if entry.path.startswith(hidden):
            continue
        if globs and any(glob.matches(entry.path) or glob.matches(name) for glob in globs):
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
    glob = Glob(request["pattern"])
    found = _matching((entry for entry in _entries(request) if not entry.is_dir), glob)
    for path, _ in _newest_first((*entry.stat(), entry.path) for entry in found):
        yield [path]


def grep_files(request: dict[str, Any]) -> Iterator[Row]:
    """``[path, line number, line]`` of every match, the newest file first."""
    pattern = escaped(request["pattern"]) if request["literal"] else request["pattern"]
    regex = Linear(pattern)
    start = request["start"]
    if os.path.isfile(start):
        start, name = os.path.split(start)
        files = [(name, os.stat(request["start"]).st_size)]
    else:
        include = request["include"]
        glob = Glob(include if "/" in include else f"**/{include}") if include else None
        named = _named_by_ripgrep(request)
        if named is not None:
            chosen = named if glob is None else itertools.compress(named, glob.among(named))
            files = _newest_first((*_stat(os.path.join(start, path)), path) for path in chosen)
        else:
            every = (entry for entry in _entries(request) if entry.is_file)
            found = every if glob is None else _matching(every, glob)
            files = _newest_first((*entry.stat(), entry.path) for entry in found)
    for path, number, line in lines_found(os.fsencode(os.path.join(start, "")), files, regex):
        yield [path, number, line]


def _named_by_ripgrep(request: dict[str, Any]) -> list[str] | None:
    """The files that may have a match; ``None`` if we have to look at each ourselves."""
    program, start, root = request["ripgrep"], request["start"], request["root"]
    literal, pattern = request["literal"], request["pattern"]
    # It would go on to the .gitignore files above the workspace, unless a repository begins there.
    above = start != root
    if not program or not same_meaning(pattern, literal=literal):
        return None
    if above and not os.path.exists(os.path.join(root, ".git")):
        return None
    named = files_with_matches(
        ripgrep_argv(
            program, pattern, start, literal=literal, include=request["include"], above=above
        )
    )
    length = len(os.path.join(start, ""))
    return None if named is None else [path[length:] for path in named]


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.lstat(path)
    except OSError:
        return 0, 0  # gone meanwhile
    return stat.st_mtime_ns, stat.st_size


def _entries(request: dict[str, Any], most_depth: int = LS_DEPTH) -> Iterator[Entry]:
    return walk(request["start"], request["root"], most_depth=most_depth)


def _matching(entries: Iterator[Entry], glob: Glob) -> Iterator[Entry]:
    while several := list(itertools.islice(entries, _AT_ONCE)):
        yield from itertools.compress(several, glob.among([entry.path for entry in several]))


def _newest_first(dated: Iterable[tuple[int, int, str]]) -> list[tuple[str, int]]:
    """Paths and sizes, the newest first, of (changed, size, path)."""
    return [(path, size) for _, size, path in sorted(dated, key=lambda one: (-one[0], one[2]))]


MODES = {"ls": list_entries, "glob": glob_files, "grep": grep_files}


def _say(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Answer the request in the first argument."""
    bound_memory(SEARCH_MEMORY_BYTES)
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    request = json.loads(sys.argv[1])
    truncated = False
    try:
        for count, row in enumerate(MODES[request["mode"]](request)):
            if count == request["most"]:
                truncated = True
                break
            _say(row)
    except PatternError as problem:
        _say({"error": str(problem)})
    except MemoryError:
        _say({"error": "the search needs too much memory"})
    else:
        end: dict[str, Any] = {"truncated": truncated}
        _say(end | {"summary": summary(request)} if request.get("summary") else end)


if __name__ == "__main__":
    main()
