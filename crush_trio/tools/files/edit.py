"""The tool `edit`: one replacement in one file."""

from __future__ import annotations

from functools import partial

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.files.change import change, changed_result, contents, demand_fresh, look_at
from crush_trio.tools.files.edits import TOLERANT_NOTE, edit_file
from crush_trio.tools.paths import look

_SPEC = ToolSpec(
    name="edit",
    description=(
        "Replace text in a file. old_string must stand there exactly once (or set replace_all); "
        "an empty old_string creates the file, an empty new_string deletes the text. The file "
        "must have been read with view in this session."
    ),
    parameters=arguments.schema(
        ("file_path", "old_string", "new_string"),
        file_path=arguments.string("The file, absolute or relative to the workspace"),
        old_string=arguments.string("The text to replace, with whitespace as in the file"),
        new_string=arguments.string("The text to put in its place"),
        replace_all=arguments.boolean("Replace every occurrence (default false)"),
    ),
)


class EditTool:
    """Edits one file; see CW 7.4."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Edit the file after freshness and permission were checked."""
        target = await look_at(arguments.text(call, "file_path"), context)
        old = arguments.text(call, "old_string")
        new = arguments.text(call, "new_string")
        everywhere = arguments.flag(call, "replace_all")
        note = ""
        if old == "":
            if target.old is not None:
                raise ToolProblem(f"file already exists: {target.path}")
            text = new
        elif target.old is None:
            raise ToolProblem(f"file not found: {target.path}")
        else:
            demand_fresh(target, context)
            work = partial(edit_file, target.old, old, new, everywhere=everywhere)
            edited = await look(work)
            text = edited.text
            note = f"\n{TOLERANT_NOTE}" if edited.tolerant else ""
        made = await change(target, text, "edit", context)
        verb = "New file created" if old == "" else "Content replaced in file"
        return changed_result(f"{verb}: {target.path}{note}", made, **contents(made))
