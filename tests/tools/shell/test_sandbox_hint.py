"""A command that met its sandbox says so; see docs/sandbox.md."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from crush_trio.agent.ports import Sandbox, ShellResult
from crush_trio.tools.shell.command_answer import output_of

WRITE = Sandbox("workspace-write", Path("/w"), (Path("/w"), Path("/cache")))
READ = Sandbox("read-only", Path("/w"))

MET = {
    "mounts": "touch: cannot touch '/etc/x': Read-only file system",
    "Landlock": "touch: cannot touch '/etc/x': Permission denied",
    "git config": "error: could not write config file .git/config: Device or resource busy",
    "git": "fatal: unable to access 'https://x/': Could not resolve host: x",
    "ssh": "ssh: Could not resolve hostname x: Temporary failure in name resolution",
    "npm": "npm error code EAI_AGAIN",
    "node": "Error: connect ECONNREFUSED 127.0.0.1:1",
    "go": "dial tcp: lookup proxy.golang.org: no such host",
    "cargo": "warning: [6] Couldn't resolve host name (Could not resolve host: index.crates.io)",
}


@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in MET.items()])
def test_a_command_that_met_its_sandbox_says_so_and_how_to_widen_it(said: str) -> None:
    for result in (ShellResult(1, "", said), ShellResult(0, said, "")):
        told = output_of(result, WRITE)
        assert "sandbox workspace-write: it could write in /w, /cache" in told
        assert "options.sandbox.writable, options.sandbox.network" in told
        assert "--sandbox workspace-write" in output_of(result, READ)
        assert "sandbox" not in output_of(result)


def test_other_failures_are_not_laid_to_the_sandbox() -> None:
    failed = ShellResult(1, "", "AssertionError: 1 != 2")
    assert output_of(failed, WRITE) == output_of(failed)
    offline, online = WRITE, attrs.evolve(WRITE, network=True)
    refused = ShellResult(1, "", "Connection refused")
    assert "no network" in output_of(refused, offline)
    assert output_of(refused, online) == output_of(refused)
