"""The built-in tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crush_trio.agent.ports import Tool
from crush_trio.tools.bash import BashTool
from crush_trio.tools.edit import EditTool
from crush_trio.tools.glob import GlobTool
from crush_trio.tools.grep import GrepTool
from crush_trio.tools.jobs import JobKillTool, JobOutputTool
from crush_trio.tools.ls import LsTool
from crush_trio.tools.multiedit import MultiEditTool
from crush_trio.tools.question import QuestionTool
from crush_trio.tools.view import ViewTool
from crush_trio.tools.write import WriteTool


def builtin_tools(config: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The tools a model gets, sorted by name, without those in ``options.disabled_tools``."""
    options = config.get("options") or {}
    disabled = frozenset(options.get("disabled_tools") or ())
    tools: tuple[Tool, ...] = (
        BashTool(),
        EditTool(),
        GlobTool(),
        GrepTool(),
        JobKillTool(),
        JobOutputTool(),
        LsTool(),
        MultiEditTool(),
        QuestionTool(),
        ViewTool(),
        WriteTool(),
    )
    enabled = (tool for tool in tools if tool.spec.name not in disabled)
    return tuple(sorted(enabled, key=lambda tool: tool.spec.name))
