"""The real models, tools, permissions and configuration behind `host.kit.Kit`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio.agent.ports import (
    Decision,
    HookPlace,
    Hooks,
    Model,
    ModelInfo,
    PermissionAsk,
    ProcessHost,
    Sandbox,
    Titler,
    Tool,
)
from crush_trio.config.expand import layered
from crush_trio.config.files import Identity
from crush_trio.config.load import Config, fingerprint, load_config
from crush_trio.config.paths import other_extra_config
from crush_trio.config.public import public
from crush_trio.host.kit import Chosen, Listed, OnLive
from crush_trio.limits import ASK_DEADLINE_S
from crush_trio.models import registry
from crush_trio.models.catalogue.refresh import CATALOGUE_URL
from crush_trio.models.record import RecordingModel, check_record_file
from crush_trio.protocol.errors import ConfigError, CrushError, Refused, StoreError
from crush_trio.protocol.runs import LeftProcess, ProcessReport
from crush_trio.server.providers.listing import listing
from crush_trio.server.providers.models import Models
from crush_trio.server.sandboxes import Sandboxes
from crush_trio.tools.catalogue import builtin_tools
from crush_trio.tools.hooks.configured import Hook, configured
from crush_trio.tools.hooks.running import CommandHooks
from crush_trio.tools.permission.names import unknown_name
from crush_trio.tools.permission.patterns import decide, parse_pattern
from crush_trio.tools.processes.cgroup import Cgroup
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.processes.job_process import JobProcess
from crush_trio.tools.processes.recorded import kill_recorded
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import CallSpill, SpillArea
from crush_trio.tools.web.web import Web

logger = logging.getLogger(__name__)


@attrs.frozen
class Setup:
    """One workspace's configuration with the tools it leaves switched on."""

    config: Config
    tools: tuple[Tool, ...]
    data_dir: Path
    hook_commands: tuple[Hook, ...] = ()

    @property
    def context_paths(self) -> tuple[str, ...]:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.context_paths

    @property
    def allow_tools(self) -> tuple[str, ...]:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.allowed_tools

    @property
    def deny_tools(self) -> tuple[str, ...]:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.denied_tools

    @property
    def deny_stops(self) -> bool:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.permissions.get("on_deny") != "continue"

    @property
    def ask_deadline_s(self) -> float:
        """See `host.kit.WorkspaceSetup`."""
        return float(self.config.permissions.get("deadline_s", ASK_DEADLINE_S))

    @property
    def auto_summarize(self) -> bool:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.options.get("disable_auto_summarize") is not True

    @property
    def tool_config(self) -> Mapping[str, Any]:
        """See `host.kit.WorkspaceSetup`."""
        return self.config.tools

    @property
    def notices(self) -> tuple[str, ...]:
        """What is unknown, and what does not count (contract 7)."""
        return self.config.notices

    def hooks(self, processes: ProcessHost, place: HookPlace) -> Hooks:
        """See `host.kit.WorkspaceSetup`."""
        return CommandHooks(self.hook_commands, processes, place)

    def environment(self) -> dict[str, str]:
        """See `host.kit.WorkspaceSetup`."""
        return tool_environment(os.environ, allow=self.config.env_allow)

    def public(self, used: Sequence[ModelInfo] = ()) -> dict[str, Any]:
        """See `host.kit.WorkspaceSetup`."""
        return public(self.config, data_directory=self.data_dir, used=used)


@attrs.define(eq=False)
class ServerKit:
    """What `serve` gives the host.

    A workspace's configuration is read again when one of its files changes (inode, size or
    times); until then asking costs seven ``stat`` calls and no read.
    """

    data_dir: Path
    spill: SpillArea
    network: Models
    cgroup: Cgroup | None = None
    web: Web = attrs.field(factory=Web)
    live: dict[int, tuple[LeftProcess, ...]] = attrs.field(factory=dict, init=False)
    _sandboxes: Sandboxes = attrs.field(init=False)
    _keys: Iterator[int] = attrs.field(factory=count, init=False)
    _setups: dict[Path, tuple[tuple[Identity, ...], Setup]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._sandboxes = Sandboxes(self.data_dir)

    def setup(self, workspace: Path) -> Setup:
        """See `host.kit.Kit`."""
        now = fingerprint(workspace, environ=os.environ, data_dir=self.data_dir)
        known = self._setups.get(workspace)
        if known is not None and known[0] == now:
            return known[1]
        config = load_config(workspace, environ=os.environ, data_dir=self.data_dir)
        _check_rules(config)
        tools, hooks = builtin_tools(config.data, self.web), configured(config.hooks)
        setup = Setup(config, tools, self.data_dir, hooks)
        self._setups[workspace] = (now, setup)
        for notice in setup.notices:  # here, so that each is named once until a file changes
            logger.warning("%s: %s", workspace, notice)
        return setup

    async def describe(
        self, workspace: Path, env: Mapping[str, str]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """See `host.kit.Kit`; who only looks at workspaces is not kept out by a broken file."""
        try:
            setup = await trio.to_thread.run_sync(self.setup, workspace, abandon_on_cancel=True)
        except ConfigError as exc:
            return public(Config({}), data_directory=self.data_dir), (str(exc),)
        return setup.public(await self._used(setup.config, env)), setup.notices

    async def model(
        self, name: str | None, workspace: Path, *, local: bool, env: Mapping[str, str]
    ) -> Chosen:
        """See `host.kit.Kit`."""
        if name is not None and registry.is_built_in(name):
            return await _built_in(name, allow_script=local)
        setup = await trio.to_thread.run_sync(self.setup, workspace, abandon_on_cancel=True)
        other = other_extra_config(env, os.environ)
        try:
            chosen = await self._choose(name, setup.config, local=local, env=env)
        except Refused as exc:
            raise Refused(exc.code, " ".join((exc.message, *other))) from None
        return attrs.evolve(chosen, notices=(*chosen.notices, *other))

    async def _choose(
        self,
        name: str | None,
        config: Config,
        *,
        local: bool,
        env: Mapping[str, str],
        asks: bool = True,
    ) -> Chosen:
        wanted = config.model() if name is None else None
        if wanted is not None and registry.is_built_in(wanted):
            return await _built_in(wanted, allow_script=local)
        chosen = await self.network.choose(name, config, env, asks=asks)
        return chosen or Chosen(registry.default())

    async def used(self, workspace: Path, env: Mapping[str, str]) -> tuple[ModelInfo, ...]:
        """See `host.kit.Kit`."""
        setup = await trio.to_thread.run_sync(self.setup, workspace, abandon_on_cancel=True)
        return await self._used(setup.config, env)

    async def _used(self, config: Config, env: Mapping[str, str]) -> tuple[ModelInfo, ...]:
        try:
            model = (await self._choose(None, config, local=True, env=env, asks=False)).model
        except CrushError:
            return ()
        small = model.titler() if isinstance(model, Titler) else None
        return model.info, (small or model).info

    def check_record(self, path: str, *, local: bool) -> None:
        """See `host.kit.Kit`; who may have files read may have them written (contract 9)."""
        if not local:
            raise Refused(
                "model_not_allowed",
                "recordings are written on the local unix socket only, unless the server was "
                "started with --allow-script-models",
            )
        check_record_file(Path(path))

    def recording(self, model: Model, path: str) -> Model:
        """See `host.kit.Kit`."""
        return RecordingModel(model, Path(path), self.network.secrets)

    async def models(self, workspace: Path | None, env: Mapping[str, str]) -> tuple[Listed, ...]:
        """See `host.kit.Kit`."""
        config = await trio.to_thread.run_sync(self._config, workspace, abandon_on_cancel=True)
        providers = await self.network.everywhere(config, env)
        used = await self._used(config, env)
        environ = layered(env, os.environ)
        return listing(providers.values(), environ, registry.available(), used)

    async def refresh_models(self, url: str | None) -> dict[str, Any]:
        """See `host.kit.Kit`; of all configuration the user's own alone says where from."""
        if not url:
            config = await trio.to_thread.run_sync(self._config, None, abandon_on_cancel=True)
            url = config.options.get("catalogue_url") or CATALOGUE_URL
        return attrs.asdict(await self.network.refresher.refresh(url))

    def _config(self, workspace: Path | None) -> Config:
        if workspace is not None:
            return self.setup(workspace).config
        return load_config(None, environ=os.environ, data_dir=self.data_dir)

    def tidy(self) -> None:
        """Remove what runs of an earlier server have left in the system's temporary directory."""
        self._sandboxes.tidy()

    def processes(
        self, on_live: OnLive, folder: str, sandbox: Sandbox | None = None
    ) -> ProcessHost:
        """See `host.kit.Kit`; the live launchers are remembered for the gate (contract 7)."""
        return self._run_processes(on_live, folder, sandbox)

    def job_process(
        self,
        on_live: OnLive,
        folder: str,
        name: str,
        on_output: Callable[[str, str], None],
        on_growth: Callable[[], None],
        sandbox: Sandbox | None = None,
    ) -> JobProcess:
        """See `host.kit.Kit`."""
        spill = CallSpill(self.spill, name, folder, keep_small=True)
        processes = self._run_processes(on_live, folder, sandbox)
        return JobProcess(processes, spill, on_output, on_growth)

    def _run_processes(self, on_live: OnLive, folder: str, sandbox: Sandbox | None) -> RunProcesses:
        key = next(self._keys)

        def note(live: tuple[LeftProcess, ...]) -> None:
            self.live.pop(key, None)
            if live:
                self.live[key] = live
            on_live(live)

        confinement = self._sandboxes.confinement(sandbox)
        return RunProcesses(self.spill, note, folder, self.cgroup, confinement)

    def sandbox(
        self, workspace: Path, requested: str | None, readable: tuple[str | Path, ...] = ()
    ) -> Sandbox | None:
        """See `host.kit.Kit`."""
        options = self.setup(workspace).config.options
        places = (self.spill.directory / path for path in readable)
        return self._sandboxes.of(options, requested, workspace, places)

    def forget_outputs(self, folder: str) -> None:
        """See `host.kit.Kit`."""
        try:
            self.spill.remove_folder(folder)
        except OSError as exc:
            raise StoreError("store_failed", f"Tool outputs cannot be deleted: {exc}.") from exc

    def open_output(self, folder: str, output_id: str) -> int | None:
        """See `host.kit.Kit`."""
        return self.spill.find(folder, output_id)

    def outputs_at(self, folder: str) -> Path | None:
        """See `host.kit.Kit`."""
        return self.spill.place(folder)

    def output_folders(self) -> tuple[str, ...]:
        """See `host.kit.Kit`."""
        return self.spill.folders()

    def launcher_pids(self) -> tuple[int, ...]:
        """The pids of all tool process launchers that run now."""
        return tuple(process.pid for live in self.live.values() for process in live)

    def is_tool(self, pid: int) -> bool:
        """Whether a process is in the cgroup of a tool, also when its launcher is gone."""
        return bool(self.live) and self.cgroup is not None and self.cgroup.has(pid)

    async def kill_recorded(self, processes: tuple[LeftProcess, ...]) -> ProcessReport:
        """See `host.kit.Kit`."""
        return await kill_recorded(processes)

    def check_patterns(self, patterns: tuple[str, ...]) -> None:
        """See `host.kit.Kit`."""
        try:
            doubts = [unknown_name(parse_pattern(pattern)) for pattern in patterns]
        except ValueError as exc:
            raise Refused("bad_request", str(exc)) from exc
        for doubt in filter(None, doubts):
            raise Refused("bad_request", doubt)

    def decide(
        self,
        ask: PermissionAsk,
        mode: str,
        allow: tuple[str, ...],
        deny: tuple[str, ...],
        workspace: Path,
    ) -> Decision | None:
        """See `host.kit.Kit`."""
        return decide(ask, mode, allow, deny, workspace=workspace)


def _check_rules(config: Config) -> None:
    """A rule that cannot be read forbids nothing and allows nothing: nobody is to rely on it."""
    for key, patterns in (
        ("allowed_tools", config.allowed_tools),
        ("denied_tools", config.denied_tools),
    ):
        for pattern in patterns:
            try:
                parse_pattern(pattern)
            except ValueError as exc:
                sources = [str(s.path) for s in config.sources if "permissions" in s.keys]
                where = " or ".join(sources) or "configuration"
                raise ConfigError(f"{where}: $.permissions.{key}: {exc}.") from exc


async def _built_in(name: str, *, allow_script: bool) -> Chosen:
    read = partial(registry.resolve, name, allow_script=allow_script)
    return Chosen(await trio.to_thread.run_sync(read, abandon_on_cancel=True))
