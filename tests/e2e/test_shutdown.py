"""Ordered, bounded shutdown, and nothing left behind (G10, G11)."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.kit import Server, alive, eventually, script

STUBBORN = "trap '' TERM INT; (setsid sh -c 'trap \"\" TERM; echo $$ >> pids; sleep 600' &) ; " + (
    "echo $$ >> pids; while :; do sleep 1; done"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_running_run_and_keeps_the_queued_one(
    server: Server, project: Path, number: signal.Signals
) -> None:
    """G11: `cancelled`, reason `shutdown`; the queued run goes on at the next start."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "some"}, {"silence": True}])
    server.prompt(workspace, session, "go", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: server.record("running")["waiting_on"] == "model")
    assert server.stop(number) == 0
    assert not Path(server.socket_path).exists()
    assert _left_in(server.data) == set()
    server.start()
    record = server.record("running")
    assert record["outcome"] == "cancelled"
    assert record["cancelled_by"]["reason"] == "shutdown"
    assert server.ended("queued")["outcome"] == "completed"


def test_everything_stuck_at_once_still_ends_within_the_bound(
    server: Server, project: Path
) -> None:
    """G10, G11: a stubborn tool, a silent model, a subscriber; exit 0 and no process left."""
    workspace = server.workspace(project)
    tool = script(
        project / "tool.json",
        [{"tool": "bash", "input": {"command": STUBBORN, "description": "hang"}}],
    )
    hold = script(project / "hold.json", [{"silence": True}])
    for model in (tool, hold):
        session = server.session(workspace)
        server.prompt(workspace, session, "go", model=model, permission_mode="allow")
    pids = project / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    started = [int(pid) for pid in pids.read_text().split()]
    began = time.monotonic()
    with server.stream(workspace, "after=now"):
        assert server.stop(timeout=15) == 0
    assert time.monotonic() - began < 10
    assert not any(alive(pid) for pid in started)


def test_a_cancel_ends_a_stubborn_tool_within_three_seconds(server: Server, project: Path) -> None:
    """G4, G10: the whole tree is gone when the terminal event comes, and the report says so."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    tool = script(
        project / "tool.json",
        [{"tool": "bash", "input": {"command": STUBBORN, "description": "hang"}}],
    )
    server.prompt(workspace, session, "go", model=tool, permission_mode="allow", run_id="t")
    pids = project / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    began = time.monotonic()
    server.post("/v1/runs/t/cancel")
    record = server.ended("t")
    assert time.monotonic() - began < 4
    assert record["outcome"] == "cancelled"
    assert record["processes"]["killed"] >= 1
    assert record["processes"]["left"] == []
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_stop_ends_the_server_and_without_one_exits_0(server: Server) -> None:
    """G11, contract 6."""
    assert server.cli("stop").returncode == 0
    assert server.wait_exit() == 0
    assert server.cli("stop").returncode == 0


def test_an_idle_server_exits_by_itself(home: Path) -> None:
    """Contract 6: an auto-started server does not stay for ever."""
    server = Server(home, "--idle-exit", "0.3").start()
    assert server.wait_exit() == 0
    assert not Path(server.socket_path).exists()


def test_an_orderly_exit_leaves_a_checkpointed_database_and_no_process(
    server: Server, project: Path
) -> None:
    """G11: the write-ahead log is empty or gone, and the file is whole."""
    workspace = server.workspace(project)
    server.ended(server.prompt(workspace, server.session(workspace), "list")["run_id"])
    assert server.stop() == 0
    wal = server.data / "crush.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    with sqlite3.connect(server.data / "crush.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(server.data) not in listed.stdout


def _left_in(data: Path) -> set[str]:
    """What a stopped server has left besides its database, logs and lock file."""
    expected = {"crush.db", "crush.db-wal", "crush.db-shm", "lock", "server.log", "access.log"}
    return {path.name for path in data.iterdir()} - expected
