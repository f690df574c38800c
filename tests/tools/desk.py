"""A workspace and a context that records what a tool asked for and showed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio.agent.ports import Decision, PermissionAsk, Tool, ToolCall, ToolContext, ToolResult
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.sessions import Todo
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.processes.run_processes import RunProcesses


@attrs.define
class Desk:
    """A workspace with everything a tool may use; ``call`` runs a tool and remembers its reads."""

    root: Path
    processes: RunProcesses
    decision: Decision = attrs.Factory(lambda: Decision(True))
    asks: list[PermissionAsk] = attrs.Factory(list)
    shown: list[tuple[str, str]] = attrs.Factory(list)
    reads: dict[str, int] = attrs.Factory(dict)
    on_ask: Any = None
    todos: tuple[Todo, ...] = ()
    env: dict[str, str] = attrs.Factory(lambda: tool_environment(os.environ))

    async def ask(self, ask: PermissionAsk) -> Decision:
        self.asks.append(ask)
        if self.on_ask is not None:
            self.on_ask()
        await trio.lowlevel.checkpoint()
        return self.decision

    def context(self) -> ToolContext:
        return ToolContext(
            workspace_id=WorkspaceId("w"),
            workspace_path=self.root,
            session_id=SessionId("s"),
            run_id=RunId("r"),
            ask=self.ask,
            output=lambda stream, text: self.shown.append((stream, text)),
            last_read=self.reads.get,
            processes=self.processes,
            env=self.env,
            config={},
            todos=self.known_todos,
        )

    async def known_todos(self) -> tuple[Todo, ...]:
        await trio.lowlevel.checkpoint()
        return self.todos

    async def call(self, tool: Tool, **arguments: Any) -> ToolResult:
        call = ToolCall("call-1", tool.spec.name, arguments)
        result = await tool.run(call, self.context())
        for path in result.read_paths:
            self.reads[path] = result.read_at_ns
        return result

    def write(self, name: str, content: str | bytes = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path
