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
from crush_trio.tools.search.ripgrep import (
    ripgrep_argv,
    ripgrep_program,
    ripgrep_rows,
    usable_include,
)

_SPEC = ToolSpec(
    name="grep",
    description=(
        f"Search file contents by a regular expression, newest file first, at most {GREP_MATCHES} "
        "matches; what .gitignore files exclude, binary and very large files are left out."
    ),
    parameters=arguments.schema(
        ("pattern",),
        pattern=arguments.string("The regular expression"),
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
        """Search with ripgrep or our own program; outside the workspace only with permission."""
        pattern = arguments.text(call, "pattern")
        if not pattern:
            raise ToolProblem("pattern is empty")
        include = arguments.text(call, "include", "")
        literal = arguments.flag(call, "literal_text")
        text = arguments.text(call, "path", "")
        params = {"pattern": pattern, "path": text, "include": include, "literal_text": literal}
        place = await searched_place(text, call, context, params, "read")
        program = ripgrep_program(context.env.get("PATH", ""), context.workspace_path)
        if program is not None and usable_include(include):
            argv = ripgrep_argv(program, pattern, place.path, literal=literal, include=include)
            found = await _with_ripgrep(argv, place, call, context)
        else:
            request = {
                "mode": "grep",
                "pattern": pattern,
                "include": include,
                "literal": literal,
                "most": GREP_MATCHES,
            }
            found = await run_search(request, place, call, context, GREP_TIMEOUT_S)
        return ToolResult(
            content=_shown(found, place),
            metadata={"number_of_matches": len(found.rows), "truncated": found.truncated},
        )


async def _with_ripgrep(
    argv: tuple[str, ...], place: Place, call: ToolCall, context: ToolContext
) -> Found:
    result = await context.processes.run_argv(
        argv,
        cwd=place.path if place.path.is_dir() else place.path.parent,
        env=context.env,
        timeout_s=GREP_TIMEOUT_S,
        on_output=lambda _stream, _text: None,
        spill_name=f"{call.id}-search",
    )
    # The memory holds head and tail of what it wrote; the first matches are in the head.
    head = result.stdout.partition("\n... [")[0] if result.stdout_dropped else result.stdout
    rows = ripgrep_rows(head)
    if result.exit_code not in (0, 1, None) and not rows:
        reason = result.stderr.strip() or f"exit code {result.exit_code}"
        raise ToolProblem(f"the search failed: {reason}")
    more = len(rows) > GREP_MATCHES or result.stdout_dropped > 0 or result.timed_out
    return Found(tuple(rows[:GREP_MATCHES]), more, result.timed_out)


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
