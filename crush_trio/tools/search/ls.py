"""The tool `ls`: a directory as a tree."""

from __future__ import annotations

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.limits import LS_DEPTH, LS_ENTRIES, LS_TIMEOUT_S
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.search.found import run_search, searched_place

_SPEC = ToolSpec(
    name="ls",
    description=(
        f"Show a directory as a tree, at most {LS_ENTRIES} entries; what .gitignore files exclude "
        "is left out."
    ),
    parameters=arguments.schema(
        (),
        path=arguments.string("The directory (default: the workspace)"),
        ignore={
            "type": "array",
            "items": {"type": "string"},
            "description": "Glob patterns of names or paths to leave out",
        },
        depth=arguments.integer("Levels to show (default: all)"),
    ),
)


class LsTool:
    """Lists a directory; see CW 7.4."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """List the directory; outside the workspace only with permission."""
        ignore = call.arguments.get("ignore") or []
        if not isinstance(ignore, list) or not all(isinstance(one, str) for one in ignore):
            raise ToolProblem("ls: the argument 'ignore' must be a list of strings")
        depth = arguments.whole(call, "depth", 0, most=LS_DEPTH)
        text = arguments.text(call, "path", "")
        params = {"path": text, "ignore": ignore or None, "depth": depth}
        place = await searched_place(text, call, context, params, "list")
        if not place.path.is_dir():
            raise ToolProblem(f"not a directory: {place.path}")
        request = {"mode": "ls", "ignore": ignore, "depth": depth, "most": LS_ENTRIES}
        # Numbers for all levels, so that a listing that is cut still says what is there.
        request["summary"] = depth == 0
        found = await run_search(request, place, call, context, LS_TIMEOUT_S)
        lines = [f"- {place.path}/"]
        for path, level, is_dir in found.rows:
            name = path.rpartition("/")[2]
            lines.append(f"{'  ' * level}- {name}{'/' if is_dir else ''}")
        if found.truncated:
            lines.append(
                f"\n(Results are truncated: {len(found.rows)} entries shown. Use a more specific "
                "path, or depth)"
            )
        return ToolResult(
            content="\n".join(lines) + "\n",
            metadata={"number_of_files": len(found.rows), "truncated": found.truncated}
            | ({"summary": found.summary} if found.summary else {}),
        )
