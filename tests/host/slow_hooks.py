"""Hooks without commands, for the life of runs in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from crush_trio.agent.ports import HookDecision, HookSays


@attrs.define(eq=False)
class SlowHooks:
    """Hooks that once take as long as they are told to, in one phase: before or after a call, or
    at the end of a run. ``asked`` are the tools they heard of, ``ended`` the ends."""

    phase: str = ""
    decision: HookDecision = "none"
    seconds: float = float("inf")
    error: Exception | None = None
    reached: trio.Event = attrs.field(factory=trio.Event)
    hears_ends: bool = True
    asked: list[str] = attrs.field(factory=list)
    ended: list[tuple[str, str, str]] = attrs.field(factory=list)

    async def before_tool(self, tool_name: str, tool_input: Mapping[str, Any]) -> tuple[HookSays]:
        """Note it, and take a while."""
        self.asked.append(tool_name)
        await self._wait("before")
        return (HookSays("h", decision=self.decision),)

    async def after_tool(
        self, tool_name: str, tool_input: Mapping[str, Any], content: str, *, is_error: bool
    ) -> tuple[HookSays, ...]:
        """Take a while."""
        await self._wait("after")
        return ()

    async def run_ended(self, outcome: str, text: str, error: str) -> None:
        """Note it, and take a while."""
        self.ended.append((outcome, text, error))
        await self._wait("end")

    async def _wait(self, phase: str) -> None:
        if phase == self.phase and not self.reached.is_set():
            self.reached.set()
            await trio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
