"""The tool `write`: the whole contents of one file."""

from __future__ import annotations

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.files.change import change, changed_result, demand_fresh, look_at
from crush_trio.tools.files.text_file import BOM

_SPEC = ToolSpec(
    name="write",
    description=(
        "Create a file or replace all its contents; missing directories are created. An existing "
        "file must have been read with view in this session. Prefer edit for small changes."
    ),
    parameters=arguments.schema(
        ("file_path", "content"),
        file_path=arguments.string("The file, absolute or relative to the workspace"),
        content=arguments.string("Its new contents"),
    ),
)


class WriteTool:
    """Writes one file; see CW 7.4."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Write the file after freshness and permission were checked."""
        target = await look_at(arguments.text(call, "file_path"), context)
        content = arguments.text(call, "content")
        demand_fresh(target, context, whole=True)
        if target.old is not None:
            content = content.removeprefix(BOM)
            if target.old.crlf:
                content = content.replace("\r\n", "\n").replace("\n", "\r\n")
            if content == target.old.text:
                raise ToolProblem(
                    f"File {target.path} already contains exactly this content. No changes made"
                )
        made = await change(target, content, "write", context)
        sentence = f"File successfully written: {target.path}"
        return changed_result(sentence, made)
