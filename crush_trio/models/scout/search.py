"""``find``, ``grep`` and ``TODOs``: lines and files that hold something."""

from __future__ import annotations

import collections
import re

from crush_trio.models.scout.facts import count
from crush_trio.models.scout.outputs import Hit, at_least, hits_of, is_generated, paths_of
from crush_trio.models.scout.plan import Answer, Call, Plan, fenced

TODO_PATTERN = r"\b(TODO|FIXME|XXX|HACK)\b"
_SHOWN = 30
_STOPPED = "The search was stopped by its time limit before it had found anything."


def todos() -> Plan:
    """Open TODO and FIXME marks, counted by mark and shown."""
    (found,) = yield (Call("grep", {"pattern": TODO_PATTERN}),)
    return todo_text(found, _SHOWN)


def todo_text(found: Answer, shown: int) -> str:
    """What a search for `TODO_PATTERN` has found, the first ``shown`` of it as lines."""
    if not found.ok:
        return f"The search failed: {found.text.strip()}"
    hits = [hit for hit in hits_of(found) if not is_generated(hit.path)]
    if not hits:
        return _STOPPED if at_least(found) else "No TODO, FIXME, XXX or HACK marks."
    marks = collections.Counter(
        match[1] for hit in hits if (match := re.search(TODO_PATTERN, hit.text))
    )
    ordered = sorted(marks.items(), key=lambda row: (-row[1], row[0]))
    counts = ", ".join(f"{number} {mark}" for mark, number in ordered)
    files = count(len({hit.path for hit in hits}), "file")
    return f"{at_least(found)}{counts} in {files}\n\n{fenced(_grouped(hits, shown))}"


def grep(pattern: str, path: str) -> Plan:
    """Lines that match a regular expression."""
    (found,) = yield (Call("grep", {"pattern": pattern, "path": path}),)
    if not found.ok:
        return f"The search failed: {found.text.strip()}"
    hits = hits_of(found)
    if not hits:
        return _STOPPED if at_least(found) else f"Nothing in {_place(path)} matches `{pattern}`."
    return f"{_count(hits, found)}\n\n{fenced(_grouped(hits, 100))}"


def find(what: str, path: str) -> Plan:
    """Lines that define ``what``, lines that hold it, and files with that name."""
    name = what if "*" in what else f"*{what}*"
    lines, names, *defining = yield (
        Call("grep", {"pattern": what, "path": path, "literal_text": True}),
        Call("glob", {"pattern": f"**/{name}", "path": path}),
        *([Call("grep", {"pattern": _defines(what), "path": path})] if what.isidentifier() else []),
    )
    definitions = [hit for found in defining for hit in hits_of(found)]
    uses = [hit for hit in hits_of(lines) if hit not in definitions]
    files = paths_of(names)
    parts = [f"The search failed: {found.text.strip()}" for found in (lines, names) if not found.ok]
    if definitions:
        parts.append(f"**Defined** (by its looks):\n\n{fenced(_grouped(definitions, _SHOWN))}")
    if uses:
        parts.append(f"**{_count(uses, lines)}**\n\n{fenced(_grouped(uses, _SHOWN))}")
    if files:
        shown = "\n".join(files[:_SHOWN])
        parts.append(f"**Files with that name** ({len(files)}):\n\n{fenced(shown)}")
    nothing = f"Nothing in {_place(path)} is called or contains `{what}`."
    return "\n\n".join(parts) or (_STOPPED if at_least(lines) or at_least(names) else nothing)


def _defines(name: str) -> str:
    """A pattern for lines that seem to define ``name``, in most languages."""
    words = "def|class|func|fn|function|type|struct|enum|interface|trait|const|let|var|mod|module"
    return (
        rf"^\s*(\w[\w()]*\s+)*({words})\s+(\([^)]*\)\s*|mut\s+)?{name}\b"
        rf"|^\s*{name}(:[^=]+)?\s*=[^=]|^\s*#\s*define\s+{name}\b|^{name}\s*\(\)"
    )


def _count(hits: list[Hit], found: Answer) -> str:
    files = count(len({hit.path for hit in hits}), "file")
    return f"{at_least(found)}{count(len(hits), 'matching line')} in {files}"


def _grouped(hits: list[Hit], shown: int) -> str:
    """The first hits by file, each with its line number, and how many are left out."""
    lines: list[str] = []
    for path in dict.fromkeys(hit.path for hit in hits[:shown]):
        lines.append(path)
        lines += [f"  {hit.line}: {hit.text[:160]}" for hit in hits[:shown] if hit.path == path]
    if len(hits) > shown:
        lines.append(f"… and {len(hits) - shown} more")
    return "\n".join(lines)


def _place(path: str) -> str:
    return "this directory" if path == "." else path
