"""The built-in tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crush_trio.agent.ports import Tool
from crush_trio.tools.agent import AgentTool
from crush_trio.tools.files.edit import EditTool
from crush_trio.tools.files.multiedit import MultiEditTool
from crush_trio.tools.files.view import ViewTool
from crush_trio.tools.files.write import WriteTool
from crush_trio.tools.question import QuestionTool
from crush_trio.tools.search.glob import GlobTool
from crush_trio.tools.search.grep import GrepTool
from crush_trio.tools.search.ls import LsTool
from crush_trio.tools.shell.bash import BashTool
from crush_trio.tools.shell.jobs import JobKillTool, JobOutputTool
from crush_trio.tools.todos import TodosTool
from crush_trio.tools.web.agentic_fetch import AgenticFetchTool
from crush_trio.tools.web.download import DownloadTool
from crush_trio.tools.web.fetch import FetchTool
from crush_trio.tools.web.web import Web
from crush_trio.tools.web.web_fetch import WebFetchTool


def builtin_tools(config: Mapping[str, Any], web: Web | None = None) -> tuple[Tool, ...]:
    """The tools a model gets, sorted by name, without those in ``options.disabled_tools``.

    ``web`` is how they reach the web, default as a process without a server does.
    """
    options = config.get("options") or {}
    reach = (web or Web()).reach(config)
    disabled = frozenset(options.get("disabled_tools") or ())
    tools: tuple[Tool, ...] = (
        AgentTool(),
        AgenticFetchTool(),
        BashTool(),
        DownloadTool(reach),
        EditTool(),
        FetchTool(reach),
        GlobTool(),
        GrepTool(),
        JobKillTool(),
        JobOutputTool(),
        LsTool(),
        MultiEditTool(),
        QuestionTool(),
        TodosTool(),
        ViewTool(),
        WebFetchTool(reach),
        WriteTool(),
    )
    enabled = (tool for tool in tools if tool.spec.name not in disabled)
    return tuple(sorted(enabled, key=lambda tool: tool.spec.name))
