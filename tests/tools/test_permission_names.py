"""A pattern that names no tool is a slip, and said to be one."""

from __future__ import annotations

import pytest

from crush_trio.tools.catalogue import builtin_tools
from crush_trio.tools.permission.names import ACTIONS, unknown_name
from crush_trio.tools.permission.patterns import parse_pattern

SLIPS = {
    "bahs": "there is no tool bahs; did you mean bash?",
    "Bash": "there is no tool Bash; did you mean bash?",
    "xyzzy": "there is no tool xyzzy: agent, agentic_fetch, bash,",
    "bash:exec": "the action of bash is execute",
    "grep:list": "the action of grep is read",
}
KNOWN = ("bash", "bash:execute", "bash(rm)", "ls:list", "agent", "mcp_files_read", "write(docs/**)")


@pytest.mark.parametrize(("pattern", "said"), SLIPS.items())
def test_a_pattern_that_names_no_tool_is_said_to(pattern: str, said: str) -> None:
    assert said in (unknown_name(parse_pattern(pattern)) or "")


def test_every_tool_there_is_can_be_named() -> None:
    assert [unknown_name(parse_pattern(each)) for each in KNOWN] == [None] * len(KNOWN)
    assert sorted(ACTIONS) == [tool.spec.name for tool in builtin_tools({})]
