"""The tool `bash`: one command in a shell, in the foreground or as a background job."""

from __future__ import annotations

from crush_trio.agent.ports import (
    PermissionAsk,
    Sandbox,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.limits import (
    BASH_COMMAND_BYTES,
    BASH_TIMEOUT_S,
    JOB_FAST_FAILURE_S,
)
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered, demand
from crush_trio.tools.paths import look, place_of
from crush_trio.tools.shell.command_answer import answer_of
from crush_trio.tools.shell.jobs import run_as_job
from crush_trio.tools.shell.judge import judge
from crush_trio.tools.shell.safe_run import run_safe

_SPEC = ToolSpec(
    name="bash",
    description=(
        "Run a command in a shell in the workspace. Each call is a new shell; stdin is empty. It "
        f"is stopped after {BASH_TIMEOUT_S:g} s. Processes left behind with '&' end with the run. "
        "For a server, a watcher or anything long set run_in_background: the command becomes a "
        "job that goes on after this turn until it exits, job_kill ends it, or the session is "
        "deleted; its shell must stay, so do not use '&' in it. See its output with job_output. "
        "A command in the foreground is moved to the background only if you set "
        "auto_background_after; else it is waited for until it ends or its time is over."
    ),
    parameters=arguments.schema(
        ("description", "command"),
        description=arguments.string("What the command does, in a few words"),
        command=arguments.string("The command"),
        working_dir=arguments.string("Where to run it (default: the workspace)"),
        run_in_background=arguments.boolean("Start it as a background job (default: false)"),
        auto_background_after=arguments.integer(
            "Seconds after which it becomes a background job (default: 0, never)"
        ),
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
        """Run the command, with permission unless it is known to do no more than look."""
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
        background = arguments.flag(call, "run_in_background")
        if background and context.jobs is None:
            raise ToolProblem("Background jobs are not available here; run it in the foreground.")
        place = await place_of(working_dir or ".", context.workspace_path)
        if not await look(place.path.is_dir):
            raise ToolProblem(f"working_dir is not a directory: {place.path}")
        # In a thread: it looks at the disk, and its parser is loaded with the first command.
        judged = await look(
            judge, command, place.path, place.workspace, context.env.get("PATH", "")
        )
        ask = PermissionAsk(
            tool_name="bash",
            action="execute",
            description=f"Execute command: {command}",
            path=str(place.path),
            params={
                "description": description,
                "command": command,
                "working_dir": working_dir,
                "run_in_background": background,
                "auto_background_after": after_s,
            },
            target=command,
            inside=place.inside,
            why=judged.why,
            harmless=judged.harmless,
            writes=judged.writes,
        )
        result = None
        sandbox: Sandbox | None = None
        if judged.safe is not None and not background:
            demand(context.forbidden(ask))
            result = await run_safe(judged.safe, place.workspace, call, context)
        if result is None:
            sandbox = context.sandbox  # what only looks does not meet its edge, and quotes much
            demand(await context.permission(ask))
            if context.jobs is not None and (background or 0 < after_s < BASH_TIMEOUT_S):
                wait_s = JOB_FAST_FAILURE_S if background else after_s
                return await run_as_job(call, context, place.path, background, wait_s)
            result = await context.processes.run_shell(
                command,
                cwd=place.path,
                env=context.env,
                timeout_s=BASH_TIMEOUT_S,
                on_output=context.output,
                spill_name=call.id,
            )
        return answer_of(result, description, place.path, sandbox=sandbox)
