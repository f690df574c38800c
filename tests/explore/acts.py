"""What prompts do here: a model and tools that follow the prompt's first word, await by await."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from crush_trio.agent.ports import (
    Emit,
    ModelError,
    ModelInfo,
    ModelRequest,
    PermissionAsk,
    ShellResult,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
)
from crush_trio.agent.transcript import is_valid
from crush_trio.protocol.runs import Outcome, Usage
from crush_trio.tools.agent import AgentTool
from tests.host.fakes import FakeKit, FakeModel, FakeTool, prompt_of

if TYPE_CHECKING:
    from tests.explore.world import Explored

Act = Callable[["Explored", ModelRequest, Emit], Awaitable[StepEnd]]
INFO = ModelInfo("fake", "m", context_window=1_000, cost_per_1m_in=1.0, cost_per_1m_out=2.0)


class Injected(Exception):
    """What breaks where a scenario wants it to."""


@attrs.frozen
class Kind:
    """What a first word does, and how such a run ends if nobody interferes; ``None``: never."""

    act: Act
    natural: Outcome | None


async def say(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Answer in two pieces."""
    emit(TextDelta("one "))
    await w.step(request.run_id)
    emit(TextDelta("two"))
    return StepEnd("end_turn", Usage(10, 5))


async def hang(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a little, then nothing for ever."""
    emit(TextDelta("so far"))
    await trio.sleep_forever()
    raise AssertionError


async def silent(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Nothing for ever."""
    await trio.sleep_forever()
    raise AssertionError


async def gate(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Answer when the scenario lets it."""
    emit(TextDelta("waited"))
    await w.gate.wait()
    return StepEnd("end_turn")


async def stubborn(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """As `hang`, and takes two more seconds when it is cancelled."""
    try:
        return await hang(w, request, emit)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)


async def rude(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """As `hang`, and turns a cancellation into an error of its own."""
    try:
        return await hang(w, request, emit)
    finally:
        raise RuntimeError("I was not finished")


async def broken(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a little, then break off."""
    emit(TextDelta("half an"))
    await w.step(request.run_id)
    raise ModelError("truncated", "The answer broke off.", retryable=True, title="Truncated")


async def buggy(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """A bug."""
    raise KeyError("oops")


async def cut(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """The provider's limit."""
    emit(TextDelta("too long"))
    return StepEnd("max_tokens", Usage(1, 1))


async def retry(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Break off, wait, answer."""
    emit(TextDelta("first"))
    await w.step(request.run_id)
    emit(StreamReset(1, 3, 0.5, "overloaded"))
    await trio.sleep(0.5)
    return await say(w, request, emit)


def tools(*names: str) -> Act:
    """Ask for these tools in the first step, then answer."""

    async def act(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 1:
            return await say(w, request, emit)
        emit(TextDelta("I look."))
        for number, name in enumerate(names):
            emit(ToolCallStart(f"call-{number}", name))
            emit(ToolCallEnd(f"call-{number}", "{}"))
        return StepEnd("tool_use", Usage(10, 5))

    return act


async def full(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
    """Ask for a tool and fill the window: the next step begins with a summary."""
    if request.step > 1:
        return await say(w, request, emit)
    emit(ToolCallStart("call-0", "look"))
    emit(ToolCallEnd("call-0", "{}"))
    return StepEnd("tool_use", Usage(950, 10))


def calls(task: str) -> Act:
    """Give this task to a sub-agent, or two of them, in the first step; then answer."""

    async def act(w: Explored, request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 1:
            return await say(w, request, emit)
        for number in range(1 + ("twice" in prompt_of(request))):
            emit(ToolCallStart(f"call-{number}", "agent"))
            emit(ToolCallEnd(f"call-{number}", f'{{"prompt": "{task}"}}'))
        return StepEnd("tool_use", Usage(10, 5))

    return act


KINDS: dict[str, Kind] = {
    "say": Kind(say, Outcome.COMPLETED),
    "hang": Kind(hang, None),
    "silent": Kind(silent, None),
    "gate": Kind(gate, Outcome.COMPLETED),
    "stubborn": Kind(stubborn, None),
    "rude": Kind(rude, None),
    "broken": Kind(broken, Outcome.FAILED),
    "buggy": Kind(buggy, Outcome.FAILED),
    "cut": Kind(cut, Outcome.LIMITED),
    "retry": Kind(retry, Outcome.COMPLETED),
    "tool": Kind(tools("look", "look"), Outcome.COMPLETED),
    "stay": Kind(tools("look", "stay", "look"), None),
    "deny": Kind(tools("deny"), Outcome.DENIED),
    "refuse": Kind(tools("refuse"), Outcome.DENIED),
    "ask": Kind(tools("ask", "look"), Outcome.DENIED),
    "full": Kind(full, Outcome.COMPLETED),
    "echo": Kind(say, Outcome.COMPLETED),
    "break": Kind(tools("break", "look"), Outcome.COMPLETED),
    "call": Kind(calls("say it"), Outcome.COMPLETED),
    "callbroken": Kind(calls("broken"), Outcome.COMPLETED),
    "callhang": Kind(calls("hang"), None),
    "callstubborn": Kind(calls("stubborn"), None),
    "callretry": Kind(calls("retry"), Outcome.COMPLETED),
}


def kind_of(prompt: str) -> Kind:
    """What a prompt does."""
    return KINDS[prompt.split()[0]]


@attrs.define(eq=False)
class ActingModel(FakeModel):
    """Does what the prompt's first word says, and watches what it is asked."""

    world: Explored = attrs.field(kw_only=True)
    info: ModelInfo = INFO

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """One request; the model of a server that was started again just answers."""
        w = self.world
        with w.ledger.working(request.run_id, request.session_id):
            if not is_valid(request.messages):
                w.ledger.wrong(f"I13: an invalid request of {request.run_id}")
            await w.step(request.run_id)
            known = KINDS.get(prompt_of(request).split()[0])
            act = known.act if known and not (w.revived or request.summary) else say
            return await act(w, request, emit)

    def titler(self) -> FakeModel | None:
        """Names conversations at once."""
        return FakeModel(acts={}, info=INFO) if self.world.titles else None


def make_kit(w: Explored) -> FakeKit:
    """A kit for one world."""

    async def look(context: ToolContext) -> ToolResult:
        context.output("stdout", "seen")
        await w.step(context.run_id)
        return ToolResult("seen", read_paths=("/a",))

    async def stay(context: ToolContext) -> ToolResult:
        await trio.sleep_forever()
        raise AssertionError

    async def deny(context: ToolContext) -> ToolResult:
        await w.step(context.run_id)
        return ToolResult("no", is_error=True, denied=True)

    async def refuse(context: ToolContext) -> ToolResult:
        await w.step(context.run_id)
        return ToolResult("no", is_error=True, denied=True, stop_turn=True)

    async def fail(context: ToolContext) -> ToolResult:
        await w.step(context.run_id)
        raise OSError("broken tool")

    async def ask(context: ToolContext) -> ToolResult:
        call = PermissionAsk("ask", "write", "ask x", "/w", {}, "/w/x")
        decision = await context.permission(call)
        if not decision.allowed:
            return ToolResult("no", is_error=True, denied=True, stop_turn=decision.stop_turn)
        w.ledger.allowed += 1
        return ToolResult("done")

    async def echo(on_output: Callable[[str, str], None]) -> ShellResult:
        on_output("stdout", "said\n")
        await trio.lowlevel.checkpoint()
        return ShellResult(3, "said\n", "")

    async def guarded(
        function: Callable[[ToolContext], Awaitable[ToolResult]], context: ToolContext
    ) -> ToolResult:
        with w.ledger.working(context.run_id, context.session_id):
            return await function(context)

    def tool(name: str, function: Callable[[ToolContext], Awaitable[ToolResult]]) -> FakeTool:
        return FakeTool(name, lambda context: guarded(function, context))

    kit = FakeKit(fake=ActingModel(world=w))
    kit.shells["echo"] = echo
    if w.revived:
        kit.shells["stay"] = echo
    kit.tools = (
        AgentTool(),
        tool("ask", ask),
        tool("break", fail),
        tool("deny", deny),
        tool("look", look),
        tool("refuse", refuse),
        tool("stay", stay),
    )
    return kit
