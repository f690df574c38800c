"""``find``, ``grep`` and ``TODOs``: lines and files that hold something."""

from __future__ import annotations

import collections
import re

from crush_trio.models.scout.outputs import Hit, hits_of, paths_of
from crush_trio.models.scout.plan import Answer, Call, Plan, fenced

TODO_PATTERN = r"\b(TODO|FIXME|XXX|HACK)\b"
_SHOWN = 30
_DEFINES = r"(?:def|class|func|fn|function|type|struct|enum|interface|trait|const|let|var|module)"


def todos() -> Plan:
    """Open TODO and FIXME marks, counted by mark and shown."""
    (found,) = yield (Call("grep", {"pattern": TODO_PATTERN}),)
    if not found.ok:
        return f"The search failed: {found.text.strip()}"
    return todo_text(found, _SHOWN)


def todo_text(found: Answer, shown: int) -> str:
    """What a search for `TODO_PATTERN` has found, the first ``shown`` of it as lines."""
    hits = hits_of(found.text)
    if not hits:
        return "No TODO, FIXME, XXX or HACK marks."
    marks = collections.Counter(
        match[1] for hit in hits if (match := re.search(TODO_PATTERN, hit.text))
    )
    counts = ", ".join(f"{count} {mark}" for mark, count in marks.most_common())
    more = "at least " if found.metadata.get("truncated") else ""
    files = len({hit.path for hit in hits})
    return f"{more}{counts} in {files} files\n\n{fenced(_grouped(hits, shown))}"


def grep(pattern: str, path: str) -> Plan:
    """Lines that match a regular expression."""
    (found,) = yield (Call("grep", {"pattern": pattern, "path": path}),)
    if not found.ok:
        return f"The search failed: {found.text.strip()}"
    hits = hits_of(found.text)
    if not hits:
        return f"Nothing in {_place(path)} matches `{pattern}`."
    return f"{_count(hits, found)}\n\n{fenced(_grouped(hits, 100))}"


def find(what: str, path: str) -> Plan:
    """Lines and files that hold ``what``; lines that define it come first."""
    name = what if "*" in what else f"*{what}*"
    lines, names = yield (
        Call("grep", {"pattern": what, "path": path, "literal_text": True}),
        Call("glob", {"pattern": f"**/{name}", "path": path}),
    )
    hits = hits_of(lines.text) if lines.ok else []
    word = re.escape(what)
    defines = re.compile(rf"\b{_DEFINES}\b[^=(]*\b{word}\b|^(?:export +)?{word}\b *(?::[^=]+)?=")
    definitions = [hit for hit in hits if defines.search(hit.text)]
    uses = [hit for hit in hits if hit not in definitions]
    files = paths_of(names.text) if names.ok else []
    parts = [f"Search failed: {answer.text.strip()}" for answer in (lines, names) if not answer.ok]
    if definitions:
        parts.append(f"**Defined** (by its looks):\n\n{fenced(_grouped(definitions, _SHOWN))}")
    if uses:
        parts.append(f"**{_count(uses, lines)}**\n\n{fenced(_grouped(uses, _SHOWN))}")
    if files:
        shown = "\n".join(files[:_SHOWN])
        parts.append(f"**Files with that name** ({len(files)}):\n\n{fenced(shown)}")
    return "\n\n".join(parts) or f"Nothing in {_place(path)} is called or contains `{what}`."


def _count(hits: list[Hit], found: Answer) -> str:
    more = "at least " if found.metadata.get("truncated") else ""
    return f"{more}{len(hits)} matching lines in {len({hit.path for hit in hits})} files"


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
