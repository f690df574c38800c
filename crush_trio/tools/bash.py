"""The tool `bash`: one command in a shell, in the foreground."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from crush_trio.agent.ports import (
    PermissionAsk,
    ShellResult,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.limits import (
    BASH_COMMAND_BYTES,
    BASH_TIMEOUT_S,
    SAFE_GIT_TIMEOUT_S,
    TOOL_OUTPUT_COLUMNS,
)
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered, demand
from crush_trio.tools.paths import FILE_WORK, Place, place_of
from crush_trio.tools.safe_git import (
    CONFIG_NAMES,
    filter_names,
    git_program,
    hardened_argv,
    hardened_environment,
    safe_git,
)
from crush_trio.tools.truncate import truncate

NO_BACKGROUND = (
    "Background jobs are not available here. Run the command in the foreground, or start it with "
    "'&' in a foreground command: it then lives until this run ends."
)
_SPEC = ToolSpec(
    name="bash",
    description=(
        "Run a command in a shell in the workspace. Each call is a new shell; stdin is empty. It "
        f"is stopped after {BASH_TIMEOUT_S:g} s. Processes left in the background end with the run."
    ),
    parameters=arguments.schema(
        ("description", "command"),
        description=arguments.string("What the command does, in a few words"),
        command=arguments.string("The command"),
        working_dir=arguments.string("Where to run it (default: the workspace)"),
        run_in_background=arguments.boolean("Not available: such a call is refused"),
        auto_background_after=arguments.integer("Ignored: commands stay in the foreground"),
    ),
)


class BashTool:
    """Runs a command; see CW 7.3."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Run the command, with permission unless it is one of a few git commands."""
        command = arguments.text(call, "command")
        description = arguments.text(call, "description", "")
        working_dir = arguments.text(call, "working_dir", "")
        after_s = arguments.whole(call, "auto_background_after", 0, most=10**9)
        if not command.strip():
            raise ToolProblem("command is empty")
        if len(command.encode("utf-8", "replace")) > BASH_COMMAND_BYTES:
            raise ToolProblem(
                f"command is longer than {BASH_COMMAND_BYTES} bytes; write it to a file first"
            )
        if arguments.flag(call, "run_in_background"):
            raise ToolProblem(NO_BACKGROUND)
        place = await place_of(working_dir or ".", context.workspace_path)
        if not await trio.to_thread.run_sync(place.path.is_dir, limiter=FILE_WORK):
            raise ToolProblem(f"working_dir is not a directory: {place.path}")
        result = await _run_safe_git(command, place, call, context)
        if result is None:
            ask = PermissionAsk(
                tool_name="bash",
                action="execute",
                description=f"Execute command: {command}",
                path=str(place.path),
                params={
                    "description": description,
                    "command": command,
                    "working_dir": working_dir,
                    "run_in_background": False,
                    "auto_background_after": after_s,
                },
                target=command,
                inside=place.inside,
            )
            demand(await context.permission(ask))
            result = await context.processes.run_shell(
                command,
                cwd=place.path,
                env=context.env,
                timeout_s=BASH_TIMEOUT_S,
                on_output=context.output,
                spill_name=call.id,
            )
        output = _output_of(result)
        return ToolResult(
            content=_content(result, output, place.path),
            metadata={
                "start_time": result.started_ms,
                "end_time": result.ended_ms,
                "output": output,
                "description": description,
                "working_directory": str(place.path),
            },
        )


async def _run_safe_git(
    command: str, place: Place, call: ToolCall, context: ToolContext
) -> ShellResult | None:
    """Run the command without permission if it is a safe git command; ``None`` if it is not."""
    workspace = place.workspace
    git = await trio.to_thread.run_sync(safe_git, command, place.path, workspace, limiter=FILE_WORK)
    program = git_program(context.env.get("PATH", ""), workspace) if git is not None else None
    if git is None or program is None:
        return None

    async def execute(
        argv: tuple[str, ...], filters: frozenset[str], show: Callable[[str, str], None]
    ) -> ShellResult:
        return await context.processes.run_argv(
            argv,
            cwd=place.path,
            env=hardened_environment(context.env, filters),
            timeout_s=SAFE_GIT_TIMEOUT_S,
            on_output=show,
            spill_name=call.id,
        )

    names = await execute((program, *CONFIG_NAMES), frozenset(), lambda _stream, _text: None)
    filters = filter_names(names.stdout)
    if names.exit_code != 0 or names.stdout_dropped or filters is None:
        return None  # a configuration we cannot read, or one that makes nothing safe
    return await execute(hardened_argv(program, git), filters, context.output)


def _output_of(result: ShellResult) -> str:
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


def _content(result: ShellResult, output: str, directory: Path) -> str:
    return f"{output}\n\n<cwd>{directory}</cwd>" if output else "no output"
