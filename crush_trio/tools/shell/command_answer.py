"""A command's end as the model is told of it (CW 7.3)."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import Sandbox, ShellResult, ToolResult
from crush_trio.limits import TOOL_OUTPUT_COLUMNS
from crush_trio.tools.shell.plain_output import plain_output
from crush_trio.tools.shell.sandbox_hint import sandbox_hint
from crush_trio.tools.truncate import truncate


def output_of(result: ShellResult, sandbox: Sandbox | None = None) -> str:
    """Both streams, each cut to its columns, and how the command ended unless it went well.

    With the ``sandbox`` it ran in also what that forbids, if it seems to have met it.
    """
    stdout, stderr = plain_output(result.stdout), plain_output(result.stderr)
    out = truncate(stdout, TOOL_OUTPUT_COLUMNS, more_lines=result.stdout_dropped_lines)
    err = truncate(stderr, TOOL_OUTPUT_COLUMNS, more_lines=result.stderr_dropped_lines)
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
        parts.append(_where(result))
    elif result.total and (out, err) != (stdout, stderr):
        parts.append(f"({result.total} bytes in all; what is not shown was not kept)")
    if result.still_running:
        parts.append(
            f"({result.still_running} of its processes are still running; they end with this run)"
        )
    hint = sandbox_hint(result, sandbox)
    return "\n".join([*parts, hint] if hint else parts)


def _where(result: ShellResult) -> str:
    kept = f"output {result.output_id}, in {result.spill_path}"
    if not result.spill_dropped:
        return f"({result.total} bytes in all; the whole output is {kept})"
    rest = f"all but {result.spill_dropped} bytes from its middle are {kept}"
    return f"({result.total} bytes in all; {rest})"


def answer_of(
    result: ShellResult,
    description: str,
    directory: Path,
    *,
    sandbox: Sandbox | None = None,
) -> ToolResult:
    """The answer to a call whose command has ended."""
    output = output_of(result, sandbox)
    return ToolResult(
        content=f"{output}\n\n<cwd>{directory}</cwd>" if output else "no output",
        metadata={
            "start_time": result.started_ms,
            "end_time": result.ended_ms,
            "output": output,
            "description": description,
            "working_directory": str(directory),
            **_kept(result),
        },
    )


def _kept(result: ShellResult) -> dict[str, object]:
    """Where all of it is, for programs; nothing if all of it was shown."""
    if result.output_id is None:
        return {}
    return {
        "output_id": result.output_id,
        "output_bytes": result.total,
        "output_dropped": result.spill_dropped,
    }
