"""What the host is given from outside: models, tools, permissions and configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from crush_trio.agent.ports import (
    Decision,
    HookPlace,
    Hooks,
    Model,
    ModelInfo,
    PermissionAsk,
    ProcessHost,
    Sandbox,
    ShellResult,
    Tool,
)
from crush_trio.protocol.runs import LeftProcess, ProcessReport

OnLive = Callable[[tuple[LeftProcess, ...]], None]
"""Takes a run's live process launchers, each time they change; never waits."""


class JobProcess(Protocol):
    """One command that may outlive its run, with its output (CW 7.3)."""

    @property
    def output_bytes(self) -> int:
        """Bytes of both streams so far."""
        ...

    async def run(self, command: str, *, cwd: Path, env: Mapping[str, str]) -> int:
        """Run ``command`` with the shell until the shell exits; its exit code.

        Cancelled, it ends the command's whole tree first, bounded.

        Raises:
            OSError: The command cannot be started.
        """
        ...

    def present(self) -> ShellResult:
        """What it has written, and how it ended if it has."""
        ...

    async def read(self, after: int, limit: int) -> tuple[bytes, int, int]:
        """Output from a position on: ``(bytes, next position, bytes dropped before them)``."""
        ...

    async def aclose(self) -> ProcessReport:
        """End what is left of it: TERM, 2 s, KILL. Shielded, bounded, idempotent."""
        ...


class WorkspaceSetup(Protocol):
    """The configuration of one workspace, as read when a run began; never changes."""

    @property
    def context_paths(self) -> tuple[str, ...]:
        """Names of the files that speak to the agent, relative to the workspace."""
        ...

    @property
    def allow_tools(self) -> tuple[str, ...]:
        """Permission patterns that the user's configuration allows always."""
        ...

    @property
    def deny_tools(self) -> tuple[str, ...]:
        """Permission patterns that it forbids always."""
        ...

    @property
    def deny_stops(self) -> bool:
        """Whether a person's denial ends the turn (R70), or the model goes on without the call."""
        ...

    @property
    def ask_deadline_s(self) -> float:
        """How long a request to a person waits; then it is denied, or cancelled."""
        ...

    @property
    def auto_summarize(self) -> bool:
        """Whether a conversation that gets too long is summarised by itself (R63)."""
        ...

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools a run may use, sorted by name."""
        ...

    @property
    def tool_config(self) -> Mapping[str, Any]:
        """The ``tools`` table of the configuration."""
        ...

    def hooks(self, processes: ProcessHost, place: HookPlace) -> Hooks:
        """The user's hooks for one run; they run among its ``processes``."""
        ...

    def environment(self) -> dict[str, str]:
        """The fixed environment of tool processes (contract 7)."""
        ...

    def public(self, used: Sequence[ModelInfo] = ()) -> dict[str, Any]:
        """The configuration as answered over HTTP, secrets masked (CW 10.5).

        ``used`` are the large and the small model that would be used now, if that is known.
        """
        ...


@attrs.frozen
class Chosen:
    """The model of a run; ``notices`` are sentences that whoever sent the prompt should read."""

    model: Model
    notices: tuple[str, ...] = ()


@attrs.frozen
class Listed:
    """A model that is known; ``available`` if it can be used with the keys there are.

    ``chosen`` is ``large`` or ``small`` if it is used where nobody names one, ``large`` if both.
    """

    info: ModelInfo
    available: bool
    chosen: str | None = None


class Kit(Protocol):
    """Everything the host uses but does not import; the composition root provides it."""

    def setup(self, workspace: Path) -> WorkspaceSetup:
        """Read the workspace's configuration; blocking.

        Raises:
            ConfigError: A file is wrong; one sentence.
        """
        ...

    async def describe(
        self, workspace: Path, env: Mapping[str, str]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The public configuration with the models that would be used (CW 10.5), and sentences
        its user should know.

        A configuration that cannot be used is a sentence, and the defaults in its place. ``env``
        is as in `model`.
        """
        ...

    async def model(
        self, name: str | None, workspace: Path, *, local: bool, env: Mapping[str, str]
    ) -> Chosen:
        """The model a prompt asks for, or the one that applies anyway (contract 9).

        ``local`` says whether the prompt came over the unix socket, ``env`` what its client sent
        of its environment, where keys are looked for first. Files are read in a thread, which is
        left behind when the caller is cancelled; local model servers may be asked.

        Raises:
            Refused: ``unknown_model``, ``model_not_allowed``, ``key_missing``.
            ConfigError: The configuration that should name it is wrong.
        """
        ...

    def check_record(self, path: str, *, local: bool) -> None:
        """Whether a prompt may have its model recorded to ``path``; blocking.

        Raises:
            Refused: ``model_not_allowed`` or ``record_file``.
        """
        ...

    def recording(self, model: Model, path: str) -> Model:
        """``model``, writing what it streams to ``path`` as a script; blocking.

        Raises:
            Refused: ``record_file``: the file exists by now, or cannot be made.
        """
        ...

    async def used(self, workspace: Path, env: Mapping[str, str]) -> tuple[ModelInfo, ...]:
        """The large and the small model where nobody names one; nothing if they are refused.

        Raises:
            ConfigError: The configuration is wrong.
        """
        ...

    async def models(self, workspace: Path | None, env: Mapping[str, str]) -> tuple[Listed, ...]:
        """Every model that is known, those that need no provider last; ``env`` as in `model`.

        Args:
            workspace: Whose configuration counts; ``None`` is the user's own alone.

        Raises:
            ConfigError: That configuration is wrong.
        """
        ...

    async def refresh_models(self, url: str | None) -> dict[str, Any]:
        """Fetch a newer list of models, from ``url`` or where the user's configuration says.

        What it found, ready for JSON; see `models.catalogue.refresh.Refreshed`.

        Raises:
            Refused: ``bad_request``, ``catalogue_unreachable``, ``catalogue_invalid`` or
                ``catalogue_unwritable``; the present list stays.
            ConfigError: The configuration that should say where from is wrong.
        """
        ...

    def sandbox(
        self, workspace: Path, requested: str | None, readable: tuple[str | Path, ...] = ()
    ) -> Sandbox | None:
        """What a run may touch; ``None`` for everything. Blocking.

        Args:
            workspace: Where it works.
            requested: The mode it was asked for with; the configured one counts without.
            readable: Folders of outputs, and directories, that its tools are to read.

        Raises:
            Refused: ``sandbox_unavailable``: this machine cannot confine commands.
            ConfigError: A file is wrong; one sentence.
        """
        ...

    def processes(
        self, on_live: OnLive, folder: str, sandbox: Sandbox | None = None
    ) -> ProcessHost:
        """The owner of one run's tool processes, all in ``sandbox``; ``on_live`` hears of each
        change.

        What does not fit into memory of their output lies in ``folder``, see `forget_outputs`.
        """
        ...

    def job_process(
        self,
        on_live: OnLive,
        folder: str,
        name: str,
        on_output: Callable[[str, str], None],
        on_growth: Callable[[], None],
        sandbox: Sandbox | None = None,
    ) -> JobProcess:
        """The process of one background job, not started yet; its output lies in ``folder``.

        ``on_output`` shows what it writes, up to a bound; ``on_growth`` is called for all of it.
        Neither waits.
        """
        ...

    def forget_outputs(self, folder: str) -> None:
        """Delete the tool outputs kept in a folder and below it; blocking.

        ``workspace/session`` or ``workspace``, by id. One without outputs is fine.

        Raises:
            StoreError: ``store_failed``: something cannot be deleted.
        """
        ...

    def open_output(self, folder: str, output_id: str) -> int | None:
        """A descriptor of one kept output, which the caller closes; blocking.

        ``None`` if the folder, ``workspace/session``, has no such output.
        """
        ...

    def outputs_at(self, folder: str) -> Path | None:
        """The directory of a folder of outputs, links resolved, whether it exists or not."""
        ...

    def output_folders(self) -> tuple[str, ...]:
        """Every ``workspace`` and ``workspace/session`` that has a folder of outputs; blocking."""
        ...

    async def kill_recorded(self, processes: tuple[LeftProcess, ...]) -> ProcessReport:
        """End what is still there of a dead server's tool processes; bounded (G10)."""
        ...

    def check_patterns(self, patterns: tuple[str, ...]) -> None:
        """Check permission patterns.

        Raises:
            Refused: ``bad_request`` with the pattern that cannot be read.
        """
        ...

    def decide(
        self,
        ask: PermissionAsk,
        mode: str,
        allow: tuple[str, ...],
        deny: tuple[str, ...],
        workspace: Path,
    ) -> Decision | None:
        """The decision on a call; ``None`` if a person has to make it. Deny beats allow.

        Relative globs of the patterns are relative to ``workspace``.
        """
        ...
