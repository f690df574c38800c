"""A command's end as the model is told of it (CW 7.3)."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import ShellResult, ToolResult
from crush_trio.limits import TOOL_OUTPUT_COLUMNS
from crush_trio.tools.truncate import truncate


def output_of(result: ShellResult) -> str:
    """Both streams, each cut to its columns, and how the command ended unless it went well."""
    out = truncate(result.stdout, TOOL_OUTPUT_COLUMNS, more_lines=result.stdout_dropped_lines)
    err = truncate(result.stderr, TOOL_OUTPUT_COLUMNS, more_lines=result.stderr_dropped_lines)
    parts = [part.rstrip("\n") for part in (out, err) if part.strip("\n")]
    if result.timed_out:
        seconds = (result.ended_ms - result.started_ms) / 1000
        parts.append(
            f"Command was aborted before completion: it was stopped after {seconds:.0f} s with "
            "everything it had started"
        )
    elif result.exit_code:
        parts.append(f"Exit code {result.exit_code}")
    if result.spill_path is not None:
        dropped = result.stdout_dropped + result.stderr_dropped
        parts.append(f"({dropped} bytes are not shown; the output is in {result.spill_path})")
    if result.still_running:
        parts.append(
            f"({result.still_running} of its processes are still running; they end with this run)"
        )
    return "\n".join(parts)


def answer_of(
    result: ShellResult, description: str, directory: Path, **metadata: object
) -> ToolResult:
    """The answer to a call whose command has ended."""
    output = output_of(result)
    return ToolResult(
        content=f"{output}\n\n<cwd>{directory}</cwd>" if output else "no output",
        metadata={
            "start_time": result.started_ms,
            "end_time": result.ended_ms,
            "output": output,
            "description": description,
            "working_directory": str(directory),
            **metadata,
        },
    )
