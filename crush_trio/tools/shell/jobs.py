"""Background jobs as a model uses them: started by `bash`, `job_output`, `job_kill` (CW 7.3)."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import Job, JobHost, ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.limits import BASH_TIMEOUT_S, TOOL_OUTPUT_COLUMNS
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.jobs import JobState
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.shell.command_answer import answer_of, output_of

_USE = "Use job_output to see its output, and job_kill to end it."
_OUTPUT_SPEC = ToolSpec(
    name="job_output",
    description=(
        "See what a background job has written, and whether it still runs. With offset you get "
        "what comes after that byte of its output, and the offset to go on from."
    ),
    parameters=arguments.schema(
        ("shell_id",),
        shell_id=arguments.string("The id that bash gave the job"),
        wait=arguments.boolean(
            f"Wait until it has ended, at most {BASH_TIMEOUT_S:g} s (default: false)"
        ),
        offset=arguments.integer("Byte to go on from (default: head and tail of all of it)"),
    ),
)
_KILL_SPEC = ToolSpec(
    name="job_kill",
    description="End a background job with everything it has started.",
    parameters=arguments.schema(
        ("shell_id",), shell_id=arguments.string("The id that bash gave the job")
    ),
)


async def run_as_job(
    call: ToolCall, context: ToolContext, directory: Path, background: bool, wait_s: float
) -> ToolResult:
    """Start a command that may outlive the run, and answer after ``wait_s`` at most.

    One that ends within that time is answered like any other command.
    """
    jobs = _host(context)
    description = arguments.text(call, "description", "")
    try:
        job = await jobs.start(
            arguments.text(call, "command"),
            description=description,
            cwd=directory,
            env=context.env,
            call_id=call.id,
            on_output=None if background else context.output,
        )
    except Refused as refused:
        raise ToolProblem(refused.message) from refused
    if await job.wait(wait_s) or not job.keep():
        await job.wait(BASH_TIMEOUT_S)  # it is ending: at most what a kill takes
        return answer_of(job.present(), description, directory, sandbox=context.sandbox)
    job_id = job.record.job_id
    content = f"Background shell started with ID: {job_id}\n\n{_USE}"
    if not background:
        content = (
            f"The command goes on after {wait_s:g} s and was moved to background.\n\n"
            f"Background shell ID: {job_id}\n\n{_USE}"
        )
    result = job.present()
    return ToolResult(
        content=content,
        metadata={
            "start_time": result.started_ms,
            "end_time": result.ended_ms,
            "output": output_of(result),
            "description": description,
            "working_directory": str(directory),
            "background": True,
            "shell_id": job_id,
        },
    )


class JobOutputTool:
    """Shows what a job of this session has written; needs no permission."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _OUTPUT_SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Answer at once, or when the job has ended."""
        arguments.demand_tool(call, context)
        offset = arguments.whole(call, "offset", -1, most=10**15)
        job = _job(call, context)
        done = job.record.state is not JobState.RUNNING
        if arguments.flag(call, "wait"):
            done = await job.wait(BASH_TIMEOUT_S)
        if offset < 0:
            output, next_offset = output_of(job.present(), context.sandbox), None
        else:
            piece = await job.read(offset, TOOL_OUTPUT_COLUMNS)
            output, next_offset = piece.data, piece.next
            if piece.dropped:
                output = f"... [{piece.dropped} bytes dropped] ...\n{output}"
            output += f"\n\n(go on with offset {piece.next})" if not piece.done else ""
        record = job.record
        metadata = {
            "shell_id": record.job_id,
            "command": record.command,
            "description": record.description,
            "done": done,
            "working_directory": record.working_dir,
        }
        if next_offset is not None:
            metadata["next_offset"] = next_offset
        status = "completed" if done else "running"
        return ToolResult(f"Status: {status}\n\n{output or 'no output'}", metadata=metadata)


class JobKillTool:
    """Ends a job of this session; needs no permission."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _KILL_SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Answer when nothing of the job is left."""
        arguments.demand_tool(call, context)
        job = _job(call, context)
        running = job.record.state is JobState.RUNNING
        await job.kill()
        record = job.record
        said = f"Background shell {record.job_id} terminated successfully"
        if not running:
            said = f"Background shell {record.job_id} had ended already"
        elif record.left:
            said = f"Background shell {record.job_id}: {len(record.left)} processes cannot be ended"
        return ToolResult(
            said,
            metadata={
                "shell_id": record.job_id,
                "command": record.command,
                "description": record.description,
            },
        )


def _host(context: ToolContext) -> JobHost:
    if context.jobs is None:
        raise ToolProblem("Background jobs are not available here.")
    return context.jobs


def _job(call: ToolCall, context: ToolContext) -> Job:
    jobs = _host(context)
    wanted = arguments.text(call, "shell_id")
    job = jobs.find(wanted)
    if job is None:
        known = ", ".join(one.record.job_id for one in jobs.known()) or "none"
        raise ToolProblem(f"background shell not found: {wanted}; this session has: {known}")
    return job
