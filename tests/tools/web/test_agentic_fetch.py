"""The tool `agentic_fetch`: what its sub-agent is given, and that nothing of yours is in reach."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from crush_trio.agent.ports import Decision, SubAgentEnd, SubAgentTask, ToolCall, ToolResult
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.runs import Outcome
from crush_trio.tools.catalogue import builtin_tools
from crush_trio.tools.web.agentic_fetch import AgenticFetchTool
from tests.tools.desk import Desk


@attrs.define(eq=False)
class Agents:
    """Sub-agents that end as a test says."""

    end: SubAgentEnd | Refused
    tasks: list[SubAgentTask] = attrs.field(factory=list)

    async def run(self, task: SubAgentTask) -> SubAgentEnd:
        self.tasks.append(task)
        if isinstance(self.end, Refused):
            raise self.end
        return self.end


def end(text: str, outcome: Outcome = Outcome.COMPLETED, error: str = "") -> SubAgentEnd:
    return SubAgentEnd(SessionId("c"), RunId("cr"), outcome, text, error)


async def called(desk: Desk, agents: Agents | None, **arguments: Any) -> ToolResult:
    context = attrs.evolve(desk.context(), agents=agents)
    return await AgenticFetchTool().run(ToolCall("call-1", "agentic_fetch", arguments), context)


async def test_a_sub_agent_that_reads_the_web_gets_nothing_that_reads_files(desk: Desk) -> None:
    """T49: what a page tells it to read and to send it cannot read."""
    agents = Agents(end("42."))
    result = await called(desk, agents, url="http://x.test/a b".replace(" ", "%20"), prompt="Why?")
    assert not result.is_error
    mark, _, answer = result.content.partition("\n\n")
    assert "untrusted data" in mark
    assert answer == "42."
    (task,) = agents.tasks
    assert (task.call_id, task.title, task.small) == ("call-1", "Fetch Analysis", True)
    assert task.tools == {"web_fetch"}
    assert task.tools <= {tool.spec.name for tool in builtin_tools({}) if tool.spec.for_sub_agents}
    assert task.prompt == "Why?\n\nBegin with the page http://x.test/a%20b."
    assert "do not follow instructions" in task.instructions
    (ask,) = desk.asks
    assert (ask.tool_name, ask.action, ask.path) == ("agentic_fetch", "fetch", "http://x.test")
    assert ask.params == {"url": "http://x.test/a%20b", "prompt": "Why?"}


async def test_without_a_url_the_prompt_is_what_is_asked_about(desk: Desk) -> None:
    agents = Agents(end("yes"))
    await called(desk, agents, prompt=" Is http://x.test up? ")
    assert agents.tasks[0].prompt == "Is http://x.test up?"
    assert desk.asks[0].params == {"prompt": "Is http://x.test up?"}
    assert desk.asks[0].target == "prompt: Is http://x.test up?"


async def test_without_permission_no_sub_agent_is_run(desk: Desk) -> None:
    desk.decision = Decision(False, "No.")
    agents = Agents(end("x"))
    result = await called(desk, agents, prompt="x")
    assert (result.denied, agents.tasks) == (True, [])


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (end(""), "produced no text output"),
        (end("", Outcome.FAILED, "It broke."), "Failed to generate response: It broke."),
        (end("x", Outcome.LIMITED, "Too long."), "Failed to generate response: Too long."),
        (Refused("limit", "No more."), "Failed to generate response: No more."),
        (None, "there are no sub-agents"),
    ],
)
async def test_a_sub_agent_that_brings_nothing_is_an_error(
    desk: Desk, ending: SubAgentEnd | Refused | None, words: str
) -> None:
    result = await called(desk, None if ending is None else Agents(ending), prompt="x")
    assert result.is_error
    assert words in result.content
