"""A world whose tools ask a person, and that person."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from crush_trio.agent.ports import PermissionAsk, ToolContext, ToolResult
from crush_trio.host.asks.asking import Waiting
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant, Resolution
from crush_trio.protocol.runs import RunRecord
from crush_trio.store.contract import AskRow
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import World, payload, quiet

ANA = "ana"


@attrs.define(eq=False)
class Asker:
    """Two tools that need permission, and what they did."""

    world: World
    done: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.world.kit.tools = (self._tool("touch", "/w"), self._tool("wipe", "/elsewhere"))
        self.world.kit.fake.acts["one"] = ask_for("touch")
        self.world.kit.fake.acts["two"] = ask_for("touch", "touch")
        self.world.kit.fake.acts["both"] = ask_for("touch", "wipe")

    def _tool(self, name: str, path: str) -> FakeTool:
        async def run(context: ToolContext) -> ToolResult:
            ask = PermissionAsk(name, "write", f"{name} x", path, {"file_path": "x"}, f"{path}/x")
            decision = await context.permission(ask)
            if not decision.allowed:
                return ToolResult(
                    decision.reason, is_error=True, denied=True, stop_turn=decision.stop_turn
                )
            self.done.append(f"{context.session_id} {name}")
            return ToolResult("did it")

        return FakeTool(name, run)

    @property
    def waiting(self) -> Waiting:
        """The workspace's requests."""
        return self.world.workspace.home.waiting

    async def pending(self, count: int = 1) -> tuple[AskRow, ...]:
        """The stored requests, once there are so many."""
        with trio.fail_after(5):
            while len(rows := await self.world.store.pending_asks()) != count:
                await quiet()
        return rows

    async def ask(self, prompt: str = "one", **named: Any) -> tuple[OpenRun, AskRow]:
        """A run whose first call waits for a person."""
        before = len(await self.world.store.pending_asks())
        run = self.world.submit(prompt, **named)
        return run, (await self.pending(before + 1))[-1]

    async def answer(self, row: AskRow, action: str = "allow", by: str = ANA) -> Resolution:
        """Answer as the route does, with the request as it was shown."""
        return await answer_permission(self.waiting, grant(row, action), by)

    async def ended(self, run: OpenRun) -> RunRecord:
        """The run's record, at its end."""
        with trio.fail_after(5):
            return (await self.world.ended(run))[0]

    async def notices(self) -> list[tuple[bool, bool]]:
        """How requests ended, as every subscriber was told: (granted, denied)."""
        events = [e for e in await self.world.events() if e.kind == "permission_notification"]
        return [(payload(e)["granted"], payload(e)["denied"]) for e in events]

    async def results(self, session: Session | None = None) -> list[str]:
        """The tool results of a session."""
        messages = await self.world.messages(session)
        return [part.content for message in messages for part in message.tool_results()]


def grant(row: AskRow, verdict: str, /, **changed: Any) -> PermissionGrant:
    """An answer that echoes a request; ``changed`` fields say something else."""
    assert isinstance(row.request, PermissionRequest)
    shown = attrs.asdict(row.request) | changed
    return PermissionGrant(PermissionEcho(**shown), verdict)
