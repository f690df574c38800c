"""What sandboxed commands cannot do, and what they can: each tried for real (T11, T30, T34-T36)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.tools.sandbox.place import BARE, MECHANISMS, World, demand, protects

ATTEMPTS = Path(__file__).with_name("attempts.py").read_text()
"""Handed over as text: the file may lie where a sandbox hides it."""

NEEDED = (
    "write a temporary file",
    "name a temporary file",
    "write to /dev/null",
    "read random bytes",
    "read a file of the system",
    "list the root",
    "read a file outside",
    "run a program",
    "start a thread",
    "talk through a pair of sockets",
    "see itself",
)
IN_THE_WORKSPACE = (
    "write in the workspace",
    "make a directory in the workspace",
    "rename in the workspace",
    "make a file executable",
    "write a git object",
)
OF_BUBBLEWRAP = (
    "talk to itself by TCP",
    "make a lock between processes",
    "open a terminal of its own",
    "write to /tmp",
)
# Landlock does not govern these; docs/sandbox.md says so.
NOT_WITH_LANDLOCK = ("list the keys", "change modes outside", "change times outside")
PROTECTED = (
    "add a git hook",
    "change git's settings",
    "replace git's settings",
    "swap the hooks",
    "swap the repository",
    "change an editor's tasks",
    "change our own settings",
    "delete our own settings",
)


async def attempt(world: World, mechanism: str, mode: str) -> dict[str, str]:
    """How each attempt went."""
    processes = world.processes(mechanism, world.sandbox(mode))
    try:
        result = await processes.run_argv(
            (sys.executable, "-I", "-c", ATTEMPTS, json.dumps(world.places)),
            cwd=world.workspace,
            env=world.env(),
            timeout_s=60,
            on_output=lambda _stream, _text: None,
            spill_name="attempts",
        )
    finally:
        await processes.aclose()
    assert result.exit_code == 0, result.stderr
    said: dict[str, str] = json.loads(result.stdout)
    return said


@pytest.mark.parametrize("mode", ["workspace-write", "read-only"])
@pytest.mark.parametrize("mechanism", [*MECHANISMS, BARE])
async def test_a_sandboxed_command_can_do_its_work_and_nothing_else(
    world: World, mechanism: str, mode: str
) -> None:
    demand(mechanism)
    said = await attempt(world, mechanism, mode)
    possible = set(NEEDED)
    if mode == "workspace-write":
        possible |= set(IN_THE_WORKSPACE)
    if mechanism == "bubblewrap":
        possible |= set(OF_BUBBLEWRAP)
    unsettled = set() if mechanism == "bubblewrap" else set(NOT_WITH_LANDLOCK)
    if not protects(mechanism):
        unsettled |= set(PROTECTED)
    unsettled |= {"send a datagram"}  # it goes out, and the world looks whether it arrives
    done = {name for name, how in said.items() if how == "done"}
    assert done - unsettled == possible, {name: said[name] for name in done ^ possible}
    assert len(said) > 80
    # What was told is what is so.
    assert (world.root / "outside" / "victim").read_text() == "secret"
    assert sorted(os.listdir(world.root / "outside")) == ["empty", "readable", "victim"]
    assert (world.workspace / "made").exists() == (mode == "workspace-write")
    assert not (world.workspace / "suid").exists() or mode == "workspace-write"
