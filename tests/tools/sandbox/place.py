"""A home with a workspace and secrets, and the things of the machine that a sandbox keeps from."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import attrs
import pytest

from crush_trio.agent.ports import Sandbox
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from crush_trio.tools.sandbox.confinement import Confinement
from crush_trio.tools.sandbox.mechanism import Found, Mechanisms, find
from crush_trio.tools.sandbox.policy import Settings, sandbox_of

MECHANISMS = ("bubblewrap", "landlock")
BARE = "landlock without mounts"  # as where user namespaces are forbidden
PREFIX = f"crush-trio-tmp-test-{os.getpid()}-"


@cache
def found(name: str) -> Found:
    """What this machine says to one mechanism; tried once."""
    if name != BARE:
        return find(name)
    landlock = find("landlock")
    if landlock.mechanism is None:
        return landlock
    return Found(attrs.evolve(landlock.mechanism, mounts=False, new_user=False))


def demand(name: str) -> None:
    """Skip a test, with the reason, where a mechanism does not work."""
    if found(name).mechanism is None:
        pytest.skip(found(name).sentence())


def protects(name: str) -> bool:
    """Whether a mechanism keeps files in a writable directory as they are."""
    mechanism = found(name).mechanism
    return mechanism is not None and mechanism.protects


@attrs.frozen
class World:
    """Directories below ``root``, and what listens and runs outside."""

    root: Path
    victim: int
    places: dict[str, str]

    @property
    def workspace(self) -> Path:
        return self.root / "home" / "ws"

    def sandbox(self, mode: str = "workspace-write", **settings: object) -> Sandbox:
        made = sandbox_of(
            Settings(**settings),  # type: ignore[arg-type]  # as a test writes them
            mode,
            self.workspace,
            home=self.root / "home",
            own=(self.root / "data",),
            readable=(Path(sys.prefix), Path(sys.base_prefix)),
        )
        assert made is not None
        return made

    def confinement(self, mechanism: str, sandbox: Sandbox) -> Confinement:
        mechanisms = Mechanisms()
        mechanisms._found = found(mechanism)
        return Confinement(sandbox, mechanisms, PREFIX)

    def processes(self, mechanism: str, sandbox: Sandbox) -> RunProcesses:
        spill = SpillArea(self.root / "spill")
        return RunProcesses(spill, confinement=self.confinement(mechanism, sandbox))

    def env(self) -> dict[str, str]:
        here = {"SSH_AUTH_SOCK": "/nowhere", "OPENAI_API_KEY": "key", **os.environ}
        return tool_environment(here) | {"HOME": str(self.root / "home")}


@contextmanager
def made_world(root: Path) -> Iterator[World]:
    """A world below ``root``, which is not in ``/tmp``, where everything would be hidden anyway."""
    workspace = root / "home" / "ws"
    for name in ("home/.ssh", "home/ws/.git/hooks", "home/ws/.vscode", "data", "outside/empty"):
        (root / name).mkdir(parents=True)
    for name in ("home/.ssh/id", "home/.netrc", "data/token", "outside/victim", "outside/readable"):
        (root / name).write_text("secret")
    for name in (".git/config", ".crush.json", "plain", ".vscode/tasks.json"):
        (workspace / name).write_text("{}")
    with ExitStack() as stack:
        paths = {name: str(root / f"{name}.sock") for name in ("unix", "server", "datagrams")}
        unix: dict[str, socket.socket] = {}
        for name, path in paths.items():
            kind = socket.SOCK_DGRAM if name == "datagrams" else socket.SOCK_STREAM
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listening.bind(path)
            unix[name] = listening
            if kind is socket.SOCK_STREAM:
                listening.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{PREFIX}{os.getpid()}")
        abstract.listen()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        command = [sys.executable, "-I", "-S", "-c", "input()"]
        victim = subprocess.Popen(command, stdin=subprocess.PIPE, env={"TOKEN": "secret"})
        stack.callback(victim.communicate)
        stack.callback(victim.kill)
        places = {
            "outside": str(root / "outside"),
            "workspace": str(workspace),
            "home": str(root / "home"),
            "data": str(root / "data"),
            "victim": str(victim.pid),
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "abstract": f"{PREFIX}{os.getpid()}",
            **paths,
        }
        yield World(root, victim.pid, places)
        assert victim.poll() is None, "the victim was reached after all"
        for name, each in {"tcp": tcp, "udp": udp, "abstract": abstract, **unix}.items():
            assert not select.select([each], [], [], 0)[0], f"{name} was reached after all"
