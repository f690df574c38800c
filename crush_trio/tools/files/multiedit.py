"""The tool `multiedit`: several replacements in one file, in order, in one write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.files.change import (
    Target,
    change,
    changed_result,
    contents,
    demand_fresh,
    look_at,
)
from crush_trio.tools.files.edits import TOLERANT_NOTE, edit_file
from crush_trio.tools.files.landing import Version
from crush_trio.tools.files.text_file import TextFile
from crush_trio.tools.paths import look

_EDIT: dict[str, Any] = arguments.schema(
    ("old_string", "new_string"),
    old_string=arguments.string("The text to replace, with whitespace as in the file"),
    new_string=arguments.string("The text to put in its place"),
    replace_all=arguments.boolean("Replace every occurrence (default false)"),
)
_SPEC = ToolSpec(
    name="multiedit",
    description=(
        "Apply several edits to one file, one after another, in one write. An edit that does not "
        "match is skipped and reported. An empty old_string in the first edit creates the file."
    ),
    parameters=arguments.schema(
        ("file_path", "edits"),
        file_path=arguments.string("The file, absolute or relative to the workspace"),
        edits={"type": "array", "minItems": 1, "items": _EDIT},
    ),
)


@attrs.define
class _Progress:
    """The text so far, and what became of each edit; failed ones count from 1."""

    text: str = ""
    applied: int = 0
    tolerant: bool = False
    failed: list[dict[str, object]] = attrs.Factory(list)


class MultiEditTool:
    """Edits one file several times; see CW 7.4."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Apply what matches, after freshness and permission were checked."""
        edits = _edits(call)
        target = await look_at(arguments.text(call, "file_path"), context)
        creates = arguments.text(edits[0], "old_string") == ""
        if creates and target.old is not None:
            raise ToolProblem(f"file already exists: {target.path}")
        if not creates and target.old is None:
            raise ToolProblem(f"file not found: {target.path}")
        demand_fresh(target, context)
        done = await look(_apply, edits, target)
        if not done.applied or (target.old is not None and done.text == target.old.text):
            reasons = "; ".join(f"edit {one['index']}: {one['error']}" for one in done.failed)
            raise ToolProblem(f"no edit was applied to {target.path}. {reasons}".rstrip())
        made = await change(target, done.text, "multiedit", context)
        failed = {"edits_failed": done.failed} if done.failed else {}
        return changed_result(
            _sentence(target, edits, done),
            made,
            **contents(made),
            edits_applied=done.applied,
            **failed,
        )


def _edits(call: ToolCall) -> list[ToolCall]:
    """The edits as calls of their own, so that their arguments are checked the same way."""
    edits = call.arguments.get("edits")
    if not isinstance(edits, list) or not edits:
        raise ToolProblem("multiedit: the argument 'edits' must be a list with at least one edit")
    checked = []
    for number, edit in enumerate(edits, 1):
        if not isinstance(edit, Mapping):
            raise ToolProblem(f"multiedit: edit {number} must be an object")
        one = ToolCall(call.id, f"multiedit, edit {number}", edit)
        arguments.text(one, "old_string")
        arguments.text(one, "new_string")
        arguments.flag(one, "replace_all")
        checked.append(one)
    return checked


def _apply(edits: list[ToolCall], target: Target) -> _Progress:
    done = _Progress(target.old.text if target.old is not None else "")
    crlf = target.old is not None and target.old.crlf
    for number, edit in enumerate(edits, 1):
        trio.from_thread.check_cancelled()  # each may take a second, and there may be hundreds
        old, new = arguments.text(edit, "old_string"), arguments.text(edit, "new_string")
        try:
            if number == 1 and old == "":
                done.text = new
            else:
                now = TextFile(done.text, False, crlf, Version(0, 0, 0))
                edited = edit_file(now, old, new, everywhere=arguments.flag(edit, "replace_all"))
                done.text = edited.text
                done.tolerant |= edited.tolerant
            done.applied += 1
        except ToolProblem as problem:
            shown = {"old_string": old, "new_string": new}
            done.failed.append({"index": number, "error": str(problem), "edit": shown})
    return done


def _sentence(target: Target, edits: list[ToolCall], done: _Progress) -> str:
    sentence = f"Applied {done.applied} of {len(edits)} edits to file: {target.path}"
    for one in done.failed:
        sentence += f"\nEdit {one['index']} failed: {one['error']}"
    return sentence + (f"\n{TOLERANT_NOTE}" if done.tolerant else "")
