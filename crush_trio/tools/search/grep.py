"""The tool `grep`: lines that match a pattern."""

from __future__ import annotations

import itertools
from pathlib import Path

from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.limits import GREP_MATCHES, GREP_TIMEOUT_S
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.paths import Place
from crush_trio.tools.search.found import Found, run_search, searched_place
from crush_trio.tools.search.ripgrep import ripgrep_program

_SPEC = ToolSpec(
    name="grep",
    description=(
        f"Search file contents by a regular expression, newest file first, at most {GREP_MATCHES} "
        "matches; what .gitignore files exclude, binary and very large files are left out."
    ),
    parameters=arguments.schema(
        ("pattern",),
        pattern=arguments.string("The regular expression, without look-around or back-references"),
        path=arguments.string("The directory or file to search (default: the workspace)"),
        include=arguments.string("Only files like this, such as *.py or *.{ts,tsx}"),
        literal_text=arguments.boolean("Take the pattern literally (default false)"),
    ),
)


class GrepTool:
    """Searches file contents; see CW 7.4."""

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
        include = arguments.text(call, "include", "")
        literal = arguments.flag(call, "literal_text")
        text = arguments.text(call, "path", "")
        params = {"pattern": pattern, "path": text, "include": include, "literal_text": literal}
        place = await searched_place(text, call, context, params, "read")
        request = {
            "mode": "grep",
            "pattern": pattern,
            "include": include,
            "literal": literal,
            "most": GREP_MATCHES,
            "ripgrep": ripgrep_program(context.env.get("PATH", ""), str(context.workspace_path)),
        }
        found = await run_search(request, place, call, context, GREP_TIMEOUT_S)
        return ToolResult(
            content=_shown(found, place),
            metadata={"number_of_matches": len(found.rows), "truncated": found.truncated},
        )


def _shown(found: Found, place: Place) -> str:
    base = place.path if place.path.is_dir() else place.path.parent
    parts = [f"Found {len(found.rows)} matches" if found.rows else "No matches found"]
    for path, rows in itertools.groupby(found.rows, key=lambda row: Path(row[0])):
        parts.append(f"{base / path}:")
        parts += [f"  Line {number}: {line}" for _, number, line in rows]
    if found.timed_out:
        parts.append(f"\n(The search was stopped after {GREP_TIMEOUT_S:g} s)")
    elif found.truncated:
        parts.append("\n(Results are truncated. Use a more specific path or pattern)")
    return "\n".join(parts)
