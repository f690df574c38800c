"""A turn in a few lines: a script or a small model, small tools, and a journal that is a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import trio

from crush_trio.agent.budget import Progress
from crush_trio.agent.compaction import Fullness
from crush_trio.agent.hooks import NoHooks
from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Decision,
    Hooks,
    Model,
    PermissionAsk,
    ProcessHost,
    StreamReset,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.agent.transcript import user_message
from crush_trio.agent.turn import Turn, TurnEnd, TurnInput
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message, TextPart
from crush_trio.protocol.runs import Limits

SESSION, RUN = SessionId("s"), RunId("r")


@attrs.define(eq=False)
class ListJournal:
    """A `TurnJournal`: what was stored, in order, and what was seen on the way.

    ``waiting`` are prompts to fold at the next step. ``durable`` counts what a kill would leave.
    """

    stored: dict[MessageId, Message] = attrs.field(factory=dict)
    waiting: list[Message] = attrs.field(factory=list)
    live: LiveMessage | None = None
    durable: list[list[str]] = attrs.field(factory=list)
    checkpoints: list[str] = attrs.field(factory=list)
    waits: list[str] = attrs.field(factory=list)
    summaries: list[tuple[str, int, int]] = attrs.field(factory=list)
    prunings: list[tuple[int, int]] = attrs.field(factory=list)
    resets: list[StreamReset] = attrs.field(factory=list)
    effects: list[ToolResult] = attrs.field(factory=list)

    async def begin_step(self, assistant: Message, progress: Progress) -> tuple[Message, ...]:
        """Fold and flush."""
        folded, self.waiting = tuple(self.waiting), []
        for message in (*folded, assistant):
            self.stored[message.id] = message
        await self.flush()
        return folded

    def stage_message(self, message: Message, progress: Progress) -> None:
        """Keep it."""
        self.stored[message.id] = message

    def stage_summary(self, message: Message, progress: Progress, before: int, after: int) -> None:
        """Keep it."""
        self.stored[message.id] = message
        self.summaries.append((message.text(), before, after))

    def stage_pruned(self, before: int, after: int) -> None:
        """Note it."""
        self.prunings.append((before, after))

    def stage_effects(self, result: ToolResult) -> None:
        """Keep it."""
        self.effects.append(result)

    async def flush(self) -> None:
        """Note what is durable now."""
        self.durable.append([message.role for message in self.stored.values()])
        await trio.lowlevel.checkpoint()

    def open_live(self, live: LiveMessage) -> None:
        """Hold it."""
        self.live = live

    def close_live(self) -> None:
        """Let it go."""
        self.live = None

    def show_delta(
        self, index: int, part: str, offset: int, text: str, tool_call_id: str | None
    ) -> None:
        """Nobody looks."""

    async def checkpoint(self) -> None:
        """Note the text."""
        if self.live is not None:
            self.checkpoints.append(self.live.present().text())

    def show_reset(self, reset: StreamReset) -> None:
        """Note it."""
        self.resets.append(reset)
        self.waits.append("retry")

    def show_waiting_on(self, waiting_on: str) -> None:
        """Note it."""
        self.waits.append(waiting_on)

    def messages(self) -> list[Message]:
        """What the turn has written, the open message as it stands."""
        stored = self.stored
        if self.live is not None:
            stored = {**stored, self.live.base.id: self.live.present()}
        return list(stored.values())


@attrs.define(eq=False)
class SmallTool:
    """A tool around a function; ``schema`` describes its parameters."""

    name: str
    function: Callable[[Mapping[str, Any], ToolContext], Awaitable[ToolResult] | ToolResult]
    schema: Mapping[str, Any] = attrs.field(factory=dict)
    calls: list[Mapping[str, Any]] = attrs.field(factory=list)

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return ToolSpec(self.name, "", {"type": "object", **self.schema})

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Call the function."""
        await trio.lowlevel.checkpoint()
        self.calls.append(call.arguments)
        result = self.function(call.arguments, context)
        return result if isinstance(result, ToolResult) else await result


def answering(name: str, text: str = "seen", **result: Any) -> SmallTool:
    """A tool that always gives the same result."""
    return SmallTool(name, lambda _args, _context: ToolResult(text, **result))


def context(call_id: str) -> ToolContext:
    """What a call may use: hardly anything."""

    async def ask(wanted: PermissionAsk) -> Decision:
        return Decision(allowed=wanted.allowed_by_hook)

    return ToolContext(
        workspace_id=WorkspaceId("w"),
        workspace_path=Path("/w"),
        session_id=SESSION,
        run_id=RUN,
        ask=ask,
        output=lambda _stream, _text: None,
        last_read=lambda _path: None,
        processes=cast("ProcessHost", None),
        env={},
        config={},
    )


def turn_of(
    model: Model,
    tools: Sequence[Tool] = (),
    limits: Limits | None = None,
    history: Sequence[Message] = (),
    fullness: Fullness | None = None,
    hooks: Hooks | None = None,
) -> tuple[Turn, ListJournal]:
    """A turn that answers the prompt ``go``."""
    journal = ListJournal()
    user = user_message(SESSION, RUN, (TextPart("go"),), 0)
    given = TurnInput(
        session_id=SESSION,
        run_id=RUN,
        workspace_path=Path("/w"),
        system="",
        history=(*history, user),
        limits=limits or Limits(),
        model=model,
        tools=tuple(tools),
        context=context,
        now_s=lambda: 0,
        fullness=fullness or Fullness(),
        hooks=hooks or NoHooks(),
    )
    return Turn(given, journal), journal


async def take(
    model: Model, tools: Sequence[Tool] = (), limits: Limits | None = None
) -> tuple[TurnEnd, Turn, ListJournal]:
    """Take a whole turn."""
    turn, journal = turn_of(model, tools, limits)
    return await turn.take(), turn, journal
