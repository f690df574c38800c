"""Changes of configuration while the server runs: made over the API, and noticed in files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.config.change import Change, Files
from crush_trio.config.files import Identity
from crush_trio.config.load import Config, fingerprint, load_config
from crush_trio.config.paths import machine_config_path
from crush_trio.host.host import Host
from crush_trio.host.kit import Kit
from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import ConfigError, StoreError
from crush_trio.protocol.events import ConfigChanged
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Transaction

logger = logging.getLogger(__name__)

_State = tuple[Identity, ...] | None


def certificates_file() -> Path | None:
    """The certificates that count for the whole server besides the system's; blocking.

    Named by the user's own files alone, and read when the server starts: its connections are
    shared by all workspaces. A configuration that cannot be used does not keep it from starting.
    """
    try:
        named = load_config(None, environ=os.environ).options.get("ca_file")
    except ConfigError as exc:
        logger.warning("%s", exc)
        return None
    return Path(named) if named else None


@attrs.define(eq=False)
class Settings:
    """Changes configuration, and tells the open workspaces about every change (CW 2.7).

    Runs that have begun keep what they have; a new one reads what is there when it begins.
    """

    host: Host
    kit: Kit
    data_dir: Path
    _known: dict[WorkspaceId, _State] = attrs.field(factory=dict, init=False)
    _looking: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def watch(self) -> None:
        """Look for changes every `limits.CONFIG_LOOK_S`, until cancelled."""
        while True:
            await self.look()
            await trio.sleep(limits.CONFIG_LOOK_S)

    def note(self, workspace: Workspace, state: _State) -> None:
        """Remember what a client is about to be told, unless it is known already."""
        self._known.setdefault(workspace.id, state)

    async def look(self, told: Workspace | None = None) -> None:
        """Publish ``config_changed`` in each open workspace whose configuration has changed.

        In ``told`` it is published in any case.
        """
        async with self._looking:  # two looks at once would tell of one change twice
            workspaces = self.host.workspaces()
            states = await trio.to_thread.run_sync(self._states, [each.path for each in workspaces])
            for workspace, state in zip(workspaces, states, strict=True):
                known = self._known.get(workspace.id, state)
                self._known[workspace.id] = state
                if workspace is told or known != state:
                    await self._publish(workspace)
            for closed in [each for each in self._known if self.host.find_open(each) is None]:
                del self._known[closed]

    async def change(self, workspace: Workspace, scope: int, changes: Sequence[Change]) -> Path:
        """Change a file of the configuration, and publish it; the file.

        Raises:
            ConfigError: Nothing was changed.
        """
        files = Files(workspace.path, self.data_dir, os.environ)
        path = await trio.to_thread.run_sync(files.change, scope, changes)
        await self.look(workspace)
        return path

    def read(self, workspace: Path) -> Config:
        """The configuration of a workspace, as it is now; blocking.

        Raises:
            ConfigError: It cannot be used.
        """
        return load_config(workspace, environ=os.environ, data_dir=self.data_dir)

    def state(self, workspace: Path) -> _State:
        """What the files of its configuration are like now; blocking, a few ``stat`` calls."""
        try:
            return fingerprint(workspace, environ=os.environ, data_dir=self.data_dir)
        except ConfigError:  # the environment names a wrong file, which does not change
            return None

    def is_initialised(self, workspace: Path) -> bool:
        """Whether somebody has said that the project has its description; blocking."""
        return self._mark(workspace).exists()

    def mark_initialised(self, workspace: Path) -> None:
        """Remember that; blocking.

        Raises:
            ConfigError: It cannot be written.
        """
        mark = self._mark(workspace)
        try:
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            mark.touch(0o600)
        except OSError as exc:
            raise ConfigError(f"{mark}: cannot be written: {exc.strerror}.") from exc

    def forget(self, workspace: Path) -> None:
        """Remove what was set for one workspace alone; blocking, and no error if it cannot be."""
        path = machine_config_path(self.data_dir, workspace)
        for each in (path, path.with_name(path.name + ".lock"), self._mark(workspace)):
            with suppress(OSError):  # what cannot be removed harms nobody
                each.unlink()

    def _mark(self, workspace: Path) -> Path:
        return machine_config_path(self.data_dir, workspace).with_suffix(".init")

    def _states(self, paths: Iterable[Path]) -> list[_State]:
        return [self.state(path) for path in paths]

    def _problem(self, path: Path) -> str:
        try:
            self.kit.setup(path)
        except ConfigError as exc:
            return str(exc)
        return ""

    async def _publish(self, workspace: Workspace) -> None:
        problem = await trio.to_thread.run_sync(self._problem, workspace.path)
        if self.host.find_open(workspace.id) is not workspace:
            return
        changed = ConfigChanged(workspace.id, problem)
        if problem:
            logger.warning("%s: %s", workspace.path, problem)

        def commit(tx: Transaction) -> None:
            tx.emit("config_changed", "updated", changed)

        # No await since it was seen open: an ending of it is queued behind this commit.
        try:
            await self.host.store.commit_nowait(workspace.id, commit).wait()
        except StoreError as exc:
            logger.warning("%s: nobody could be told of the change: %s", workspace.path, exc)
