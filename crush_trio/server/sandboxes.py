"""The sandboxes of one server's runs: what each may touch, and what confines its commands."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from crush_trio.agent.ports import Sandbox
from crush_trio.protocol.sockets import default_socket_path
from crush_trio.tools.sandbox.confinement import Confinement, remove_private
from crush_trio.tools.sandbox.mechanism import Mechanisms
from crush_trio.tools.sandbox.policy import sandbox_of, settings_of

_PROGRAMS = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent.parent)
"""What the search tools are made of, wherever it is installed."""


def _configuration(environ: Mapping[str, str]) -> list[Path]:
    """Where keys may stand in configurations, if that is not below the home directory."""
    places = [environ.get(name, "") for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")]
    found = [Path(place) / name for place in places for name in ("crush-trio", "crush") if place]
    return [*found, *map(Path, filter(os.path.isabs, [environ.get("CRUSH_TRIO_CONFIG", "")]))]


@attrs.frozen(eq=False)
class Sandboxes:
    """Sandboxes for the runs of the server of ``data_dir``."""

    data_dir: Path
    mechanisms: Mechanisms = attrs.field(factory=Mechanisms)

    def of(
        self,
        options: Mapping[str, Any],
        requested: str | None,
        workspace: Path,
        readable: Iterable[Path] = (),
    ) -> Sandbox | None:
        """What a run may touch; ``None`` for everything. Blocks; the first time it tries things.

        Args:
            options: The table ``options`` of the workspace's configuration.
            requested: The mode that was asked for with the run.
            workspace: Without symbolic links.
            readable: What its tools are to read, although it lies in the data directory.

        Raises:
            Refused: ``sandbox_unavailable``: it was asked for, and this machine cannot do it.
            ConfigError: The configuration is wrong.
        """
        environ = os.environ
        socket = default_socket_path(self.data_dir, environ, os.getuid())
        sandbox = sandbox_of(
            settings_of(options.get("sandbox")),
            requested,
            workspace,
            home=Path(environ.get("HOME") or os.path.expanduser("~")),
            own=(self.data_dir, socket.parent, *_configuration(environ)),
            readable=(*_PROGRAMS, *readable),
        )
        if sandbox is not None:
            self.mechanisms.demand(sandbox)
        return sandbox

    def confinement(self, sandbox: Sandbox | None) -> Confinement | None:
        """What confines the commands of one run or job to ``sandbox``."""
        if sandbox is None:
            return None
        return Confinement(sandbox, self.mechanisms, self._prefix())

    def tidy(self) -> None:
        """Remove what an earlier server of this data directory has left; blocking."""
        remove_private(self._prefix())

    def _prefix(self) -> str:
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.data_dir))).hexdigest()
        return f"crush-trio-tmp-{digest[:8]}-"
