"""What the host is given in these tests: a model that does what its prompt says, small tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.hooks import NoHooks
from crush_trio.agent.ports import (
    Decision,
    Emit,
    HookPlace,
    Hooks,
    Model,
    ModelError,
    ModelInfo,
    ModelRequest,
    PermissionAsk,
    ProcessHost,
    Sandbox,
    ShellResult,
    StepEnd,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from crush_trio.host.kit import Chosen, Listed, OnLive
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.messages import TextPart
from crush_trio.protocol.runs import LeftProcess, ProcessReport, Usage

Act = Callable[[ModelRequest, Emit], Awaitable[StepEnd]]
Shell = Callable[[Callable[[str, str], None]], Awaitable[ShellResult]]


def prompt_of(request: ModelRequest) -> str:
    """The last thing a person said."""
    users = [m for m in request.messages if m.role == "user"]
    return "".join(part.text for part in users[-1].parts if isinstance(part, TextPart))


@attrs.define(eq=False)
class FakeModel:
    """Does what was set for the first word of the prompt; else it answers at once. For a summary
    the word is SUMMARY; else it takes half a second. A title is what ``act_for_title`` says.

    ``requests`` are all requests made so far, in order; ``asked`` is set with the first.
    """

    acts: dict[str, Act] = attrs.field(factory=dict)
    requests: list[ModelRequest] = attrs.field(factory=list)
    asked: trio.Event = attrs.field(factory=trio.Event)
    act_for_title: Act | None = None
    info: ModelInfo = attrs.field(
        factory=lambda: ModelInfo("fake", "m", cost_per_1m_in=1.0, cost_per_1m_out=2.0)
    )

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Do what the prompt says."""
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        self.asked.set()
        if request.title and self.act_for_title is not None:
            return await self.act_for_title(request, emit)
        prompt = prompt_of(request)
        act = self.acts.get("SUMMARY" if request.summary else prompt.split()[0])
        if act is not None:
            return await act(request, emit)
        if request.summary:
            await trio.sleep(0.5)
            emit(TextDelta(f"summary of {len(request.messages) - 1}"))
            return StepEnd("end_turn", Usage(100, 20))
        emit(TextDelta(f"answer to {prompt}"))
        return StepEnd("end_turn", Usage(10, 5))


async def hang(request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a little, then nothing for ever."""
    emit(TextDelta("so far"))
    await trio.sleep_forever()
    raise AssertionError


async def silent(request: ModelRequest, emit: Emit) -> StepEnd:
    """Say nothing for ever."""
    await trio.sleep_forever()
    raise AssertionError


async def stubborn(request: ModelRequest, emit: Emit) -> StepEnd:
    """When cancelled, take two more seconds."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
    raise AssertionError


async def rude(request: ModelRequest, emit: Emit) -> StepEnd:
    """Turn a cancellation into an error of one's own."""
    try:
        await trio.sleep_forever()
    finally:
        raise RuntimeError("I was not finished")


async def broken(request: ModelRequest, emit: Emit) -> StepEnd:
    """Say a little, then break off."""
    emit(TextDelta("half an"))
    raise ModelError("truncated", "The answer broke off.", retryable=True, title="Truncated")


async def buggy(request: ModelRequest, emit: Emit) -> StepEnd:
    """A bug."""
    raise KeyError("oops")


@attrs.define(eq=False)
class Gate:
    """A model's act that says it was reached and waits to be let through."""

    reached: trio.Event = attrs.field(factory=trio.Event)
    go: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Wait, then answer."""
        self.reached.set()
        emit(TextDelta("waited"))
        await self.go.wait()
        return StepEnd("end_turn")


def ask_for(*names: str, then: Act | None = None) -> Act:
    """Ask for these tools in the first step; afterwards answer, or do ``then``."""

    async def act(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 1:
            if then is not None:
                return await then(request, emit)
            emit(TextDelta("done"))
            return StepEnd("end_turn", Usage(20, 7))
        emit(TextDelta("I look."))
        for number, name in enumerate(names):
            emit(ToolCallStart(f"call-{number}", name))
            emit(ToolCallEnd(f"call-{number}", "{}"))
        return StepEnd("tool_use", Usage(10, 5))

    return act


@attrs.define(eq=False)
class FakeTool:
    """A tool without parameters around a function."""

    name: str
    function: Callable[[ToolContext], Awaitable[ToolResult]]

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return ToolSpec(self.name, "", {"type": "object", "properties": {}})

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Call the function."""
        await trio.lowlevel.checkpoint()
        return await self.function(context)


async def echo(on_output: Callable[[str, str], None]) -> ShellResult:
    """A command that says something and ends with exit code 3."""
    await trio.sleep(0.5)
    on_output("stdout", "said\n")
    return ShellResult(3, "said\n", "")


async def stay(on_output: Callable[[str, str], None]) -> ShellResult:
    """A command that says something and does not end."""
    on_output("stderr", "so far\n")
    await trio.sleep_forever()
    raise AssertionError


@attrs.define(eq=False)
class FakeProcesses:
    """No processes; closing takes as long as it is told."""

    kit: FakeKit

    async def run_shell(
        self,
        command: str,
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        on_output: Callable[[str, str], None],
        spill_name: str,
        stdin: bytes = b"",
    ) -> ShellResult:
        """Do what was set for the first word of the command."""
        await trio.lowlevel.checkpoint()
        return await self.kit.shells[command.split()[0]](on_output)

    async def run_argv(
        self,
        argv: tuple[str, ...],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        on_output: Callable[[str, str], None],
        spill_name: str,
        stdin: bytes = b"",
        keep_whole: bool = False,
    ) -> ShellResult:
        """Never used here."""
        raise NotImplementedError

    async def aclose(self) -> ProcessReport:
        """Take a while, or fail."""
        self.kit.closing.set()
        await trio.sleep(self.kit.close_s)
        if self.kit.close_error is not None:
            raise self.kit.close_error
        return ProcessReport(started=1)


@attrs.define(eq=False)
class FakeJob:
    """A background job without a process: it says what it is told to, and ends when told to."""

    kit: FakeKit
    on_live: OnLive
    on_output: Callable[[str, str], None]
    on_growth: Callable[[], None]
    pid: int
    output: bytes = b""
    code: int | None = None
    exit: trio.Event = attrs.field(factory=trio.Event)

    def say(self, text: str) -> None:
        """Write to stdout."""
        self.output += text.encode()
        self.on_output("stdout", text)
        self.on_growth()

    async def run(self, command: str, *, cwd: Path, env: Mapping[str, str]) -> int:
        """Go on until `exit` is set; "broken" does not start."""
        await trio.lowlevel.checkpoint()
        if command == "broken":
            raise FileNotFoundError(2, "No such file or directory", "broken")
        self.kit.jobs.append(self)
        self.on_live((LeftProcess(self.pid, "1@boot", command),))
        await self.exit.wait()
        self.code = 3
        return self.code

    @property
    def output_bytes(self) -> int:
        """Bytes so far."""
        return len(self.output)

    def present(self) -> ShellResult:
        """What it has said."""
        return ShellResult(self.code, self.output.decode(), "")

    async def read(self, after: int, limit: int) -> tuple[bytes, int, int]:
        """A piece of it."""
        await trio.lowlevel.checkpoint()
        data = self.output[after : after + limit]
        return data, min(len(self.output), after + len(data)), 0

    async def aclose(self) -> ProcessReport:
        """Take a while."""
        await trio.sleep(self.kit.job_close_s)
        return ProcessReport(started=1, killed=int(self.code is None))


@attrs.define(eq=False)
class FakeKit:
    """A `host.kit.Kit` that is its own `WorkspaceSetup`."""

    fake: FakeModel = attrs.field(factory=FakeModel)
    tools: tuple[Tool, ...] = ()
    setup_error: Exception | None = None
    close_s: float = 0.0
    close_error: Exception | None = None
    closing: trio.Event = attrs.field(factory=trio.Event)
    modes: list[str] = attrs.field(factory=list)
    envs: list[dict[str, str]] = attrs.field(factory=list)
    on_live: list[OnLive] = attrs.field(factory=list)
    killed: list[LeftProcess] = attrs.field(factory=list)
    left: tuple[LeftProcess, ...] = ()
    forgotten: list[str] = attrs.field(factory=list)
    left_outputs: tuple[str, ...] = ()
    stuck_outputs: tuple[str, ...] = ()
    shells: dict[str, Shell] = attrs.field(factory=lambda: {"echo": echo, "stay": stay})
    jobs: list[FakeJob] = attrs.field(factory=list)
    job_close_s: float = 0.0
    has_sandbox: bool = True
    context_paths: tuple[str, ...] = ()
    allow_tools: tuple[str, ...] = ()
    deny_tools: tuple[str, ...] = ()
    deny_stops: bool = True
    ask_deadline_s: float = limits.ASK_DEADLINE_S
    auto_summarize: bool = True
    tool_config: Mapping[str, Any] = attrs.field(factory=dict)
    hooks_given: Hooks = attrs.field(factory=NoHooks)
    hook_places: list[HookPlace] = attrs.field(factory=list)

    def hooks(self, processes: ProcessHost, place: HookPlace) -> Hooks:
        """Those that were set, told whose they are."""
        self.hook_places.append(place)
        return self.hooks_given

    def environment(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def public(self, used: Sequence[ModelInfo] = ()) -> dict[str, Any]:
        """Nothing."""
        return {}

    def setup(self, workspace: Path) -> FakeKit:
        """Itself, unless it shall fail."""
        if self.setup_error is not None:
            raise self.setup_error
        return self

    async def describe(
        self, workspace: Path, env: Mapping[str, str]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Nothing to say."""
        await trio.lowlevel.checkpoint()
        return {}, ()

    async def used(self, workspace: Path, env: Mapping[str, str]) -> tuple[ModelInfo, ...]:
        """Nothing is known."""
        await trio.lowlevel.checkpoint()
        return ()

    async def model(
        self, name: str | None, workspace: Path, *, local: bool, env: Mapping[str, str]
    ) -> Chosen:
        """The one model there is."""
        self.envs.append(dict(env))
        await trio.lowlevel.checkpoint()
        return Chosen(self.fake)

    def check_record(self, path: str, *, local: bool) -> None:
        """Any file will do."""

    def recording(self, model: Model, path: str) -> Model:
        """Without the recording."""
        return model

    async def models(self, workspace: Path | None, env: Mapping[str, str]) -> tuple[Listed, ...]:
        """The one there is."""
        await trio.lowlevel.checkpoint()
        return (Listed(self.fake.info, available=True, chosen="large"),)

    async def refresh_models(self, url: str | None) -> dict[str, Any]:
        """Nothing newer."""
        await trio.lowlevel.checkpoint()
        return {}

    def job_process(
        self,
        on_live: OnLive,
        folder: str,
        name: str,
        on_output: Callable[[str, str], None],
        on_growth: Callable[[], None],
        sandbox: Sandbox | None = None,
    ) -> FakeJob:
        """A command that goes on until it is told to end."""
        return FakeJob(self, on_live, on_output, on_growth, len(self.jobs) + 1)

    def forget_outputs(self, folder: str) -> None:
        """Remember what was to be deleted."""
        if folder in self.stuck_outputs:
            raise StoreError("store_failed", "cannot be deleted")
        self.forgotten.append(folder)

    def open_output(self, folder: str, output_id: str) -> int | None:
        """Nothing is kept."""
        return None

    def outputs_at(self, folder: str) -> Path | None:
        """Nowhere."""
        return None

    def output_folders(self) -> tuple[str, ...]:
        """As a dead server left them."""
        return self.left_outputs

    def sandbox(
        self, workspace: Path, requested: str | None, readable: tuple[str | Path, ...] = ()
    ) -> Sandbox | None:
        """What is asked for, unless it cannot be had."""
        if requested in (None, "off"):
            return None
        if not self.has_sandbox:
            raise Refused("sandbox_unavailable", "No sandbox can be made here.")
        return Sandbox(requested, workspace)

    def processes(
        self, on_live: OnLive, folder: str, sandbox: Sandbox | None = None
    ) -> ProcessHost:
        """A host without processes."""
        self.on_live.append(on_live)
        return FakeProcesses(self)

    async def kill_recorded(self, processes: tuple[LeftProcess, ...]) -> ProcessReport:
        """Remember what was to be killed."""
        await trio.lowlevel.checkpoint()
        self.killed += processes
        return ProcessReport(left=self.left)

    def check_patterns(self, patterns: tuple[str, ...]) -> None:
        """All are fine."""

    def decide(
        self,
        ask: PermissionAsk,
        mode: str,
        allow: tuple[str, ...],
        deny: tuple[str, ...],
        workspace: Path,
    ) -> Decision | None:
        """What the mode says, unless the tool's name is forbidden."""
        self.modes.append(mode)
        if ask.tool_name in deny:
            return Decision(False, "forbidden")
        return None if mode == "ask" else Decision(mode == "allow", "not allowed")
