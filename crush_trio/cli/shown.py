"""A permission request as people read it before they decide: all of it, escaped (pure)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from crush_trio.cli.escaped import escaped, lines_of, lookalikes, shortened
from crush_trio.client.shapes import JsonObject, child, text
from crush_trio.limits import DIFF_LINES

_CONTEXT_LINES = 3
_OLD_AND_NEW = frozenset({"old_content", "new_content"})
_NOT_SHOWN_AGAIN = _OLD_AND_NEW | {"command", "description", "file_path", "run_in_background"}


def permission_lines(request: JsonObject) -> list[str]:
    """What a tool wants to do, whole: a command as it is, a change of a file as a diff."""
    params = child(request, "params")
    lines = [what(request)]
    if "command" in params:
        lines += _command(params)
    else:
        lines += [f"  {line}" for line in lines_of(text(request, "description"))]
    if _OLD_AND_NEW & params.keys():
        lines += _change(text(params, "old_content"), text(params, "new_content"))
    lines += _others(params, also_path="command" not in params)
    if text(request, "why"):
        lines.append(f"  it needs permission: {escaped(text(request, 'why'))}")
    strange = lookalikes(" ".join((text(params, "command"), text(request, "path"))))
    if strange:
        lines.append(f"  NOTE: these letters are not what they look like: {strange}")
    return lines


def permission_text(request: JsonObject) -> str:
    """`permission_lines` as one text."""
    return "\n".join(permission_lines(request))


def what(request: JsonObject) -> str:
    """Which action of which tool, and where."""
    tool, action = text(request, "tool_name"), text(request, "action")
    return f"{escaped(tool)} ({escaped(action)}) in {escaped(text(request, 'path'))}"


def for_session(request: JsonObject) -> str:
    """What "for this session" would allow, in the server's words."""
    covered = text(request, "covers") or f"{text(request, 'tool_name')} in {text(request, 'path')}"
    return escaped(covered)


def brief(request: JsonObject, width: int) -> str:
    """A request on one line; what is cut says so."""
    params = child(request, "params")
    said = text(params, "command") or text(request, "description")
    return shortened(f"{text(request, 'tool_name')}: {said}", width, " … (show it)")


def _command(params: JsonObject) -> list[str]:
    lines = [f"    {line}" for line in lines_of(text(params, "command"))]
    if params.get("run_in_background") is True:
        lines.append("  in the background: it goes on after this turn")
    if text(params, "description"):
        lines.append(f'  the model calls it "{escaped(text(params, "description"))}"')
    return lines


def _others(params: JsonObject, *, also_path: bool) -> list[str]:
    lines = []
    for key, value in params.items():
        if key in _NOT_SHOWN_AGAIN and not (also_path and key == "description"):
            continue
        if value in (None, "", 0, False, [], {}):
            continue
        if isinstance(value, str) and "\n" in value:
            lines.append(f"  {escaped(key)}:")
            lines += [f"    {line}" for line in lines_of(value)]
        else:
            lines.append(f"  {escaped(key)}: {escaped(_plain(value))}")
    return lines


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _change(before: str, after: str) -> list[str]:
    old, new = _file_lines(before), _file_lines(after)
    notes = []
    if _all_crlf(old) and _all_crlf(new) and (old or new):
        old, new = ([line.removesuffix("\r") for line in each] for each in (old, new))
        notes.append("  (its lines end with CR LF)")
    rows = list(_diff(old, new))
    added, removed = (sum(row.startswith(sign) for row in rows) for sign in "+-")
    notes.append(f"  {added} line{'' if added == 1 else 's'} added, {removed} removed:")
    lines = notes + [f"    {row[:1]}{escaped(row[1:], tabs=True)}" for row in rows]
    for name, content in (("before", before), ("after", after)):
        if content and not content.endswith("\n"):
            lines.append(f"  (no newline at the end {name})")
    return lines


def _file_lines(content: str) -> list[str]:
    lines = content.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _all_crlf(lines: Sequence[str]) -> bool:
    return all(line.endswith("\r") for line in lines)


def _diff(old: list[str], new: list[str]) -> Iterable[str]:
    """A unified diff without its head; all of old and new where a diff would take too long."""
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    rest = 0
    while rest < min(len(old), len(new)) - same and old[-1 - rest] == new[-1 - rest]:
        rest += 1
    if len(old) + len(new) - 2 * (same + rest) > DIFF_LINES:
        yield f"@@ from line {same + 1} @@"
        yield from (f"-{line}" for line in old[same : len(old) - rest])
        yield from (f"+{line}" for line in new[same : len(new) - rest])
        return
    rows = difflib.unified_diff(old, new, lineterm="", n=_CONTEXT_LINES)
    yield from list(rows)[2:]
