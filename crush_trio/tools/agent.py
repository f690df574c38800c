"""The tool `agent`: give a task to a sub-agent that reads and searches (CW 7.5)."""

from __future__ import annotations

from crush_trio import limits
from crush_trio.agent.ports import (
    SubAgentEnd,
    SubAgentTask,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.runs import Outcome
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered
from crush_trio.tools.truncate import truncate

TITLE = "New Agent Session"
TOOLS = frozenset({"glob", "grep", "ls", "view"})
_SPEC = ToolSpec(
    name="agent",
    description=(
        "Give a task to a sub-agent that can only read and search: it has "
        f"{', '.join(sorted(TOOLS))}. Use it to find something out that would take many searches, "
        "so that only the answer comes back. It knows nothing of this conversation: write down "
        "everything it needs, and what the answer shall say. It cannot ask back or change anything."
    ),
    parameters=arguments.schema(
        ("prompt",), prompt=arguments.string("The whole task, in words that stand for themselves")
    ),
)


class AgentTool:
    """Runs a sub-agent in a child session."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Carry the task to its end; its last words are the result."""
        arguments.demand_tool(call, context)
        prompt = arguments.text(call, "prompt")
        if not prompt.strip():
            raise ToolProblem("agent: the argument 'prompt' is empty; write the whole task")
        task = SubAgentTask(call.id, prompt, TITLE, TOOLS)
        return await run_sub_agent(task, context)


async def run_sub_agent(task: SubAgentTask, context: ToolContext) -> ToolResult:
    """Carry ``task`` to its end; the result of the call that asked for it (CW 7.5).

    Raises:
        ToolProblem: There are no sub-agents here, or it was not accepted.
        StoreError: It could not be made durable.
    """
    if context.agents is None:
        raise ToolProblem("A sub-agent cannot have sub-agents; do it yourself")
    try:
        end = await context.agents.run(task)
    except Refused as exc:
        raise ToolProblem(f"Failed to generate response: {exc.message}") from exc
    return result_of(end)


def result_of(end: SubAgentEnd) -> ToolResult:
    """How a sub-agent ended, for the model that called it.

    What it has said is the result if it came to its end, also if some of its calls were refused;
    otherwise it stands behind the reason, because it may be a part of the answer. A call of it
    that was refused counts as one of this run's: no run with a refusal ends as if all was well.
    """
    said = truncate(end.text.strip(), limits.TOOL_OUTPUT_COLUMNS)
    failed = end.outcome not in (Outcome.COMPLETED, Outcome.DENIED)
    if failed:
        content = f"Failed to generate response: {end.error}"
        content += f"\n\nThis is what it had said by then:\n\n{said}" if said else ""
    else:
        content = said or "Sub-agent completed but produced no text output."
    if end.denied:
        calls = "1 tool call" if end.denied == 1 else f"{end.denied} tool calls"
        content += f"\n\n({calls} of the sub-agent {'was' if end.denied == 1 else 'were'} denied.)"
    return ToolResult(
        content,
        metadata={"session_id": end.session_id, "run_id": end.run_id, "cost_usd": end.cost_usd},
        is_error=failed or not said,
        denied=bool(end.denied),
        stop_turn=end.stopped,
    )
