"""The tool `glob`: files by the form of their path."""

from __future__ import annotations

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.limits import GLOB_RESULTS, GLOB_TIMEOUT_S
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.search.found import run_search, searched_place

_SPEC = ToolSpec(
    name="glob",
    description=(
        f"Find files by a glob pattern such as **/*.py or src/*.{{ts,tsx}}, newest first, at most "
        f"{GLOB_RESULTS}; what .gitignore files exclude is left out."
    ),
    parameters=arguments.schema(
        ("pattern",),
        pattern=arguments.string("The pattern, relative to path; ** crosses directories"),
        path=arguments.string("The directory to search (default: the workspace)"),
    ),
)


class GlobTool:
    """Finds files by name; see CW 7.4.

    It always searches with our own program: ripgrep's ``--glob`` would override .gitignore files,
    and filtering its complete list would have to hold that list.
    """

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Search; outside the workspace only with permission."""
        pattern = arguments.text(call, "pattern")
        if not pattern:
            raise ToolProblem("pattern is empty")
        text = arguments.text(call, "path", "")
        params = {"pattern": pattern, "path": text}
        place = await searched_place(text, call, context, params, "read")
        pattern = pattern.removeprefix(f"{place.path}/")
        request = {"mode": "glob", "pattern": pattern, "most": GLOB_RESULTS}
        found = await run_search(request, place, call, context, GLOB_TIMEOUT_S)
        content = "\n".join(str(place.path / row[0]) for row in found.rows) or "No files found"
        if found.timed_out:
            content += f"\n\n(The search was stopped after {GLOB_TIMEOUT_S:g} s)"
        elif found.truncated:
            content += "\n\n(Results are truncated. Use a more specific path or pattern)"
        return ToolResult(
            content=content,
            metadata={"number_of_files": len(found.rows), "truncated": found.truncated},
        )
