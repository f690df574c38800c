"""A command of the configuration ends with the run that waits for its output."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import trio

from crush_trio.server.providers.access import run_cancellable


async def test_a_command_is_killed_when_its_run_is_cancelled(tmp_path: Path) -> None:
    """G10."""
    written = tmp_path / "pid"
    command = f"echo $$ >{written}.new; mv {written}.new {written}; sleep 60"
    run = partial(run_cancellable, command, {"PATH": os.environ["PATH"]})
    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, abandon_on_cancel=True), run)
            while not written.exists():  # noqa: ASYNC110  # a process makes it
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        pid = int(written.read_text())
        while not _is_gone(pid):  # noqa: ASYNC110  # the kernel says it to nobody
            await trio.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_outside_of_trio_a_command_just_runs() -> None:
    assert run_cancellable("echo key", {"PATH": os.environ["PATH"]}) == "key"
