"""The moments at which a run can be cancelled, and what must be stored of it afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio

from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    ReasoningDelta,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolInputDelta,
    ToolResult,
)
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.messages import (
    FinishPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tests.host import fakes
from tests.host.fakes import FakeTool, Gate, ask_for
from tests.host.slow_hooks import SlowHooks
from tests.host.world import World, quiet

CANCELED = "canceled: User canceled request"
NO_ANSWER = ["assistant", CANCELED]
INTERRUPTED = ["tool", "error: context canceled", "stop: "]
NOT_RUN = ["tool", "error: Error: user cancelled assistant tool calling", "stop: "]
SEEN = ["tool", "seen", "stop: "]
Story = list[list[str]]


def story(messages: tuple[Message, ...]) -> Story:
    """Messages in words: role, then each part."""
    return [[message.role, *(_part(part) for part in message.parts)] for message in messages]


def _part(part: object) -> str:
    match part:
        case TextPart(text):
            return text
        case ReasoningPart(thinking, finished_at=finished):
            return f"thought: {thinking}" if finished else f"open thought: {thinking}"
        case ToolCallPart(_, name, text, finished):
            return f"{name}({text})" if finished else f"open {name}({text})"
        case ToolResultPart(content=content, is_error=is_error):
            return f"error: {content}" if is_error else content
        case FinishPart(reason, _, message, details):
            return f"{reason}: {message}{details}"
    return repr(part)


@attrs.frozen
class Window:
    """A run in one moment of its life. ``story`` is its transcript once it was cancelled then."""

    run: OpenRun
    story: Story
    was: str = "running"
    before: tuple[OpenRun, ...] = ()


async def accepted(world: World) -> Window:
    """The commit is queued and no more."""
    world.store.pause()
    run = world.submit("go")
    return Window(run, [["user", "go", "stop: "], NO_ANSWER], "queued")


async def queued(world: World) -> Window:
    """Another run of the session goes on."""
    world.kit.fake.acts["hang"] = fakes.hang
    running, run = world.submit("hang"), world.submit("go")
    await world.kit.fake.asked.wait()
    await quiet()
    return Window(run, [["user", "go", "stop: "], NO_ANSWER], "queued", (running,))


async def before_the_assistant_record(world: World) -> Window:
    """It has begun; its first commit waits for the disk."""
    run = world.submit("go")
    await run.accepted.wait()
    world.store.pause()
    await quiet()
    assert not world.kit.fake.requests
    return Window(run, [["user", "go", "stop: "], NO_ANSWER])


async def _asked(world: World, act: fakes.Act, *said: str) -> Window:
    world.kit.fake.acts["go"] = act
    run = world.submit("go")
    await world.kit.fake.asked.wait()
    await quiet()
    return Window(run, [["user", "go", "stop: "], ["assistant", *said, CANCELED]])


async def model_silent(world: World) -> Window:
    """Nothing has come yet."""
    return await _asked(world, fakes.silent)


async def streaming(world: World) -> Window:
    """There is some text (R54)."""
    return await _asked(world, fakes.hang, "so far")


async def reasoning(world: World) -> Window:
    """It thinks."""

    async def think(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(ReasoningDelta("hm"))
        await trio.sleep_forever()
        raise AssertionError

    return await _asked(world, think, "thought: hm")


async def arguments_half_written(world: World) -> Window:
    """One call is whole, the second stops in the middle of a string (R53)."""

    async def ask(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("I look."))
        emit(ToolCallStart("0", "look"))
        emit(ToolCallEnd("0", '{"a":1}'))
        emit(ToolCallStart("1", "look"))
        emit(ToolInputDelta("1", '{"path": "/et'))
        await trio.sleep_forever()
        raise AssertionError

    window = await _asked(world, ask, "I look.", 'look({"a":1})', "look({})")
    return attrs.evolve(window, story=[*window.story, NOT_RUN, NOT_RUN])


async def _tools(world: World, *names: str) -> tuple[OpenRun, Story, trio.Event]:
    """A run whose tools are asked for; the event says that ``stay`` was reached."""
    reached = trio.Event()

    async def stay(context: ToolContext) -> ToolResult:
        reached.set()
        await trio.sleep_forever()
        raise AssertionError

    async def look(context: ToolContext) -> ToolResult:
        return ToolResult("seen")

    world.kit.tools = (FakeTool("stay", stay), FakeTool("look", look))
    world.kit.fake.acts["go"] = ask_for(*names)
    calls = [f"{name}({{}})" for name in names]
    said = ["assistant", "I look.", *calls, "tool_use: "]
    return world.submit("go"), [["user", "go", "stop: "], said], reached


async def tool_running(world: World) -> Window:
    """The second of three calls does not come back."""
    run, began, reached = await _tools(world, "look", "stay", "look")
    await reached.wait()
    return Window(run, [*began, SEEN, INTERRUPTED, NOT_RUN, NO_ANSWER])


async def between_tool_calls(world: World) -> Window:
    """The first call's result waits for the disk."""
    run, began, _ = await _tools(world, "look", "look")
    look = world.kit.tools[1]
    assert isinstance(look, FakeTool)
    function = look.function

    async def and_pause(context: ToolContext) -> ToolResult:
        world.store.pause()
        return await function(context)

    look.function = and_pause
    await quiet()
    return Window(run, [*began, SEEN, NOT_RUN, NO_ANSWER])


async def between_steps(world: World) -> Window:
    """All calls have results; the next step's first commit waits for the disk."""
    run, began, _ = await _tools(world, "look")
    look = world.kit.tools[1]
    assert isinstance(look, FakeTool)
    function = look.function

    async def and_pause(context: ToolContext) -> ToolResult:
        world.store.pause()
        return await function(context)

    look.function = and_pause
    await quiet()
    return Window(run, [*began, SEEN, NO_ANSWER])


async def retry_sleep(world: World) -> Window:
    """The provider is asked again in a minute; what it had said is forgotten (R51)."""

    async def again(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("half"))
        emit(StreamReset(1, 3, 60.0, "status 529"))
        await trio.sleep(60)
        raise AssertionError

    window = await _asked(world, again)
    assert (await world.record(window.run.id)).waiting_on == "retry"
    return window


async def processes_closing(world: World) -> Window:
    """The model has said its last word; what the run started is being ended."""
    world.kit.close_s = 2
    run = world.submit("go")
    await world.kit.closing.wait()
    return Window(run, [["user", "go", "stop: "], ["assistant", "answer to go", CANCELED]])


async def _hooked(world: World, phase: str) -> tuple[OpenRun, Story]:
    """A run with a call whose hooks do not come back in this phase."""
    hooks = world.kit.hooks_given = SlowHooks(phase)
    run, began, _ = await _tools(world, "look")
    await hooks.reached.wait()
    return run, began


async def hook_before_a_tool(world: World) -> Window:
    """The tool itself has not begun."""
    run, began = await _hooked(world, "before")
    return Window(run, [*began, NOT_RUN, NO_ANSWER])


async def hook_after_a_tool(world: World) -> Window:
    """The tool has done its work; its hooks might have had something to add."""
    run, began = await _hooked(world, "after")
    return Window(run, [*began, SEEN, NO_ANSWER])


async def hook_at_the_end(world: World) -> Window:
    """The model has said its last word; a hook hears of it."""
    run, began = await _hooked(world, "end")
    return Window(run, [*began, SEEN, ["assistant", "done", CANCELED]])


async def swallowed(world: World) -> Window:
    """A model that takes no notice of the cancellation and answers."""

    async def deaf(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("so far"))
        try:
            await trio.sleep_forever()
        finally:
            emit(TextDelta(" so good"))
            return StepEnd("end_turn")  # noqa: B012

    return await _asked(world, deaf, "so far so good")


async def swallowed_and_gone_on(world: World) -> Window:
    """A model that takes no notice once, and is cancelled again at its next step."""

    async def deaf(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("so far"))
        with suppress(trio.Cancelled):  # the misbehaviour that this is about
            await trio.sleep_forever()
        emit(TextDelta(" and on"))
        await trio.sleep_forever()
        raise AssertionError

    return await _asked(world, deaf, "so far and on")


async def raising(world: World) -> Window:
    """A model that turns the cancellation into an error of its own."""
    return await _asked(world, fakes.rude)


async def blocking(world: World) -> Window:
    """A model that takes two seconds to close its connection, shielded."""
    return await _asked(world, fakes.stubborn)


async def hand_over(world: World) -> Window:
    """The run before it is ending: its outcome is fixed, its last commit waits for the disk."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    ending, run = world.submit("gate"), world.submit("go")
    await gate.reached.wait()
    world.store.pause()
    gate.go.set()
    await quiet()
    return Window(run, [["user", "go", "stop: "], NO_ANSWER], "queued", (ending,))


Opener = Callable[[World], Awaitable[Window]]
WINDOWS: list[Opener] = [
    accepted,
    queued,
    before_the_assistant_record,
    model_silent,
    streaming,
    reasoning,
    arguments_half_written,
    tool_running,
    between_tool_calls,
    between_steps,
    retry_sleep,
    processes_closing,
    hook_before_a_tool,
    hook_after_a_tool,
    hook_at_the_end,
    swallowed,
    swallowed_and_gone_on,
    raising,
    blocking,
    hand_over,
]
