"""What a turn relies on: the `Model` and `Tool` protocols, and the values that cross them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

from crush_trio.agent.hook_ports import HookDecision as HookDecision
from crush_trio.agent.hook_ports import HookPlace as HookPlace
from crush_trio.agent.hook_ports import Hooks as Hooks
from crush_trio.agent.hook_ports import HookSays as HookSays
from crush_trio.agent.job_ports import Job as Job  # part of the port
from crush_trio.agent.job_ports import JobHost as JobHost
from crush_trio.agent.process_ports import ProcessHost as ProcessHost
from crush_trio.agent.process_ports import ShellResult as ShellResult
from crush_trio.agent.sandbox_ports import PROTECTED as PROTECTED
from crush_trio.agent.sandbox_ports import PROTECTED_IN_GIT as PROTECTED_IN_GIT
from crush_trio.agent.sandbox_ports import Sandbox as Sandbox
from crush_trio.agent.sub_agent_ports import SubAgentEnd as SubAgentEnd
from crush_trio.agent.sub_agent_ports import SubAgents as SubAgents
from crush_trio.agent.sub_agent_ports import SubAgentTask as SubAgentTask
from crush_trio.protocol.errors import CrushError
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.models import ModelInfo as ModelInfo  # part of the port
from crush_trio.protocol.questions import Question, QuestionResponse
from crush_trio.protocol.runs import Usage
from crush_trio.protocol.sessions import Todo

# --- model --------------------------------------------------------------------------------


@attrs.frozen
class ToolSpec:
    """A tool as a model sees it; ``parameters`` is a JSON schema of an object.

    One that ``needs_person`` is offered only where somebody may answer: in the mode ``ask``; one
    ``for_sub_agents`` only to a sub-agent whose task names it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    needs_person: bool = False
    for_sub_agents: bool = False


@attrs.frozen
class ModelRequest:
    """One request to a model: valid messages in order (G7), and the tools it may call.

    ``step`` counts from 1 within the run. With ``summary`` the model is asked for a summary of the
    messages, by the last of them; such requests are counted by themselves. With ``title`` it is
    asked to name the session. ``sub_agent`` says that the run is one's. ``max_output_tokens`` is an
    upper bound: a smaller limit that the model was chosen with stays.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    session_id: SessionId
    run_id: RunId
    step: int
    workspace_path: Path
    max_output_tokens: int | None = None
    summary: bool = False
    title: bool = False
    sub_agent: bool = False


@attrs.frozen
class TextDelta:
    """More text of the answer."""

    text: str


@attrs.frozen
class ReasoningDelta:
    """More of what the model thinks."""

    text: str


@attrs.frozen
class ReasoningEnd:
    """The thought is complete; ``signature`` must be sent back unchanged, if not empty.

    Without a thought before it, a signature makes one that has no words.
    """

    signature: str = ""


@attrs.frozen
class ToolCallStart:
    """The model begins to ask for a tool; its arguments follow."""

    id: str
    name: str


@attrs.frozen
class ToolInputDelta:
    """More JSON text of a tool call's arguments."""

    id: str
    text: str


@attrs.frozen
class ToolCallEnd:
    """A tool call is complete; ``input`` is its whole JSON text (valid or not).

    ``signature`` must be sent back unchanged with the call, if not empty.
    """

    id: str
    input: str
    signature: str = ""


@attrs.frozen
class StreamReset:
    """The request is made again from the start: forget what this step has streamed (R51)."""

    attempt: int
    max_attempts: int
    delay_s: float
    cause: str


@attrs.frozen
class UsageSoFar:
    """What the provider has counted of this request until now; replaces what it said before.

    No content: a model that sends nothing else is silent. Output tokens that it has not counted
    are estimated from what it has streamed since.
    """

    usage: Usage


ModelEvent: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ReasoningEnd
    | ToolCallStart
    | ToolInputDelta
    | ToolCallEnd
    | StreamReset
    | UsageSoFar
)
Emit: TypeAlias = Callable[[ModelEvent], None]
"""Takes one event at once; never waits. Must be called from the task that called `Model.stream`."""


@attrs.frozen
class StepEnd:
    """How the model ended one request.

    ``reason`` is end_turn, tool_use, max_tokens, content_filter or unknown. ``usage`` is ``None``
    if the provider reported none. ``cost_usd`` overrides the price list if the provider said.
    """

    reason: str
    usage: Usage | None = None
    cost_usd: float | None = None


class ModelError(CrushError):
    """The provider's doing, or a prompt the model cannot do.

    Args:
        code: A stable word such as ``provider_error``, ``truncated``, ``no_language_model``.
        message: One sentence.
        retryable: Whether the same prompt may work later.
        title: Short title for the message's finish part (R53).
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = False, title: str = "Provider Error"
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.title = title


class Model(Protocol):
    """Something that answers a conversation with text and tool calls."""

    @property
    def info(self) -> ModelInfo:
        """What this model is."""
        ...

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Make one request; hand each piece to ``emit`` as it comes; return how it ended.

        Checkpoints at least once per piece read from outside. Cancellation closes whatever it
        had open, at once. A stream that breaks off raises; it never returns a made-up end.

        Raises:
            ModelError: The provider failed, refused, or broke off.
        """
        ...


@runtime_checkable
class Titler(Protocol):
    """A model that gives sessions their titles (CW 5.12)."""

    def titler(self) -> Model | None:
        """What to ask for a title first: a smaller model, itself, or nothing.

        If another model than itself fails, it is asked itself, with `ModelRequest.title`.
        """
        ...


@runtime_checkable
class HasSmaller(Protocol):
    """A model beside which a smaller one may be configured, for light work."""

    def smaller(self) -> Model | None:
        """That model; ``None`` if there is no other."""
        ...


# --- tools --------------------------------------------------------------------------------


@attrs.frozen
class ToolCall:
    """One call a model asked for; ``arguments`` is a JSON object that has the required keys."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@attrs.frozen
class FileChange:
    """A file a tool wrote: whole contents before (``None`` = did not exist) and after."""

    path: str
    before: str | None
    after: str


@attrs.frozen
class ToolResult:
    """What a tool answers, and what must be remembered with it in the same commit.

    ``metadata`` becomes JSON text in the result part. ``stop_turn`` ends the turn after this
    step (R70). ``denied`` counts this call as refused by the permission mode. ``read_paths`` are
    absolute paths the call has read or written, at ``read_at_ns`` (unix ns; 0 = at the commit);
    ``changes`` are stored as file versions; ``todos`` replace the session's list.
    """

    content: str
    metadata: Mapping[str, Any] | None = None
    is_error: bool = False
    data: str = ""
    mime_type: str = ""
    stop_turn: bool = False
    denied: bool = False
    read_paths: tuple[str, ...] = ()
    read_at_ns: int = 0
    changes: tuple[FileChange, ...] = ()
    todos: tuple[Todo, ...] | None = None


@attrs.frozen
class PermissionAsk:
    """What a tool wants to do (CW 7.2, 13.5).

    ``target`` is what patterns match: the command for bash, the absolute path for files.
    ``inside`` says whether a path target lies inside the workspace. ``allowed_by_hook`` is set on
    the way, never by a tool: a hook of the user's has allowed this very call (R67); so is
    ``sandboxed``, whether the run has a sandbox. Of a command
    line also: ``why`` it needs permission, the simple commands in it that are ``harmless``, and
    the files it ``writes`` by redirection, resolved.
    """

    tool_name: str
    action: str
    description: str
    path: str
    params: Any
    target: str
    inside: bool = True
    allowed_by_hook: bool = False
    sandboxed: bool = False
    why: str = ""
    harmless: frozenset[tuple[str, ...]] = frozenset()
    writes: tuple[str, ...] = ()


@attrs.frozen
class Decision:
    """Whether a call may go on, and why not in a sentence the model can act on.

    ``stop_turn``: a person has said no, so the turn ends (R70).
    """

    allowed: bool
    reason: str = ""
    stop_turn: bool = False


@attrs.frozen
class NoAnswer:
    """Why questions have no answers, in a sentence for the model; ``stop_turn`` as a denial's."""

    reason: str
    stop_turn: bool = True


AskQuestions: TypeAlias = Callable[
    [tuple[Question, ...], tuple[str, str]], Awaitable[tuple[QuestionResponse, ...] | NoAnswer]
]
"""Asks a person questions with a confirm title and text."""


async def no_todos() -> tuple[Todo, ...]:
    """An empty list, for a context without a session's."""
    return ()


def nothing_forbidden(_ask: PermissionAsk) -> Decision:
    """For a context without rules."""
    return Decision(True)


@attrs.frozen(eq=False)
class ToolContext:
    """What one call may use. Everything here belongs to the run and ends with it.

    Args:
        ask: Decides a permission; in mode ask it may wait for a person.
        forbidden: Decides on what needs no permission: only a rule that denies is against it.
        questions: Asks a person; ``None`` where nobody can answer.
        output: Shows live output ``(stream, text)`` to subscribers; never waits.
        last_read: Unix time in ns at which this session last read an absolute path, or ``None``.
        env: The fixed environment for tool processes (contract 7).
        outputs: Where this session's long outputs are kept, links resolved; they may be read.
        jobs: What may outlive the run; ``None`` where there is nobody to own it.
        agents: Runs sub-agents; ``None`` where there may be none, as in a sub-agent.
        todos: Gives the session's to-do list as it is now.
        sandbox: What may be touched at all, whatever is permitted; ``None`` is no sandbox.
    """

    workspace_id: WorkspaceId
    workspace_path: Path
    session_id: SessionId
    run_id: RunId
    ask: Callable[[PermissionAsk], Awaitable[Decision]]
    output: Callable[[str, str], None]
    last_read: Callable[[str], int | None]
    processes: ProcessHost
    env: Mapping[str, str]
    config: Mapping[str, Any]
    outputs: Path | None = None
    questions: AskQuestions | None = None
    jobs: JobHost | None = None
    agents: SubAgents | None = None
    todos: Callable[[], Awaitable[tuple[Todo, ...]]] = no_todos
    sandbox: Sandbox | None = None
    forbidden: Callable[[PermissionAsk], Decision] = nothing_forbidden

    async def permission(self, ask: PermissionAsk) -> Decision:
        """The decision on ``ask``; it is made before the tool touches anything."""
        return await self.ask(ask)


class Tool(Protocol):
    """Something a model can call."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        ...

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Do it. Being cancelled is an ordinary way to end; whatever was opened is closed.

        A problem the model can act on is a `ToolResult` with ``is_error``; an exception is a bug
        or a broken machine and ends up in the result as one sentence.
        """
        ...
