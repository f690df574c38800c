"""A wall clock that jumps, and a server with few file descriptors."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.shim import Shim, why_not
from tests.e2e.kit import Server, eventually, script

DAY_S = 86_400.0

needs_shim = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture
def clock(home: Path) -> Iterator[tuple[Server, Shim]]:
    """A running server whose wall clock can be moved."""
    shim = Shim(home)
    server = Server(home)
    server.env.update(shim.env)
    server.start()
    yield server, shim
    if server.process is not None and server.process.poll() is None:
        server.kill()


@needs_shim
def test_jumps_of_the_wall_clock_change_neither_order_nor_deadlines(
    clock: tuple[Server, Shim], project: Path
) -> None:
    """G5, G7: a day on and a day back in the middle of a session."""
    server, shim = clock
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "some"}, {"silence": True}])
    runs = []
    for number, shift in enumerate((0.0, DAY_S, -DAY_S, 0.0)):
        runs.append(f"limited{number}")
        began = time.monotonic()
        server.prompt(
            workspace, session, "go", model=hold, run_id=runs[-1], limits={"timeout_s": 1}
        )
        runs.append(f"after{number}")
        server.prompt(workspace, session, "list", run_id=runs[-1])
        eventually(lambda: bool(server.record(runs[-2])["waiting_on"] == "model"))
        shim.shift_clock(shift)
        assert server.ended(runs[-2])["outcome"] == "limited"
        assert 0.9 < time.monotonic() - began < 8
        assert server.ended(runs[-1])["outcome"] == "completed"
    written = [
        message["run_id"]
        for message in server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    ]
    assert list(dict.fromkeys(written)) == runs
    events = server.events(workspace)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    ended = [e["payload"]["payload"]["run_id"] for e in events if e["type"] == "run_complete"]
    assert ended == runs
    assert server.stop(signal.SIGTERM) == 0


@needs_shim
@pytest.mark.parametrize(("shift", "outcome"), [(-DAY_S, "completed"), (DAY_S, "lost")])
def test_a_queued_run_is_judged_by_the_clock_of_the_next_start(
    clock: tuple[Server, Shim], project: Path, shift: float, outcome: str
) -> None:
    """G2: a clock that was set back makes nothing stale; one that went on a day does."""
    server, shim = clock
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "go", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: bool(server.record("running")["waiting_on"] == "model"))
    server.kill()
    shim.shift_clock(shift)
    server.start()
    assert server.ended("running")["outcome"] == "lost"
    assert server.ended("queued")["outcome"] == outcome
    after = server.prompt(workspace, session, "list")["run_id"]
    assert server.ended(after)["outcome"] == "completed"


FILES = 96


def test_a_server_out_of_file_descriptors_keeps_its_runs_and_recovers(
    home: Path, project: Path
) -> None:
    """G6, G9: clients beyond the bound are told so or wait; a run with a tool goes on, the server
    does not spin, and it is as before when they have gone."""
    server = Server(home)
    limited = f'ulimit -n {FILES}; exec "$0" -m crush_trio "$@"'
    server.command = ["/bin/sh", "-c", limited, sys.executable]
    server.start()
    workspace = server.workspace(project)
    go = project / "go"
    tool = {"command": f"until [ -e {go} ]; do sleep 0.05; done; echo done", "description": "wait"}
    again = {"command": "echo again", "description": "again"}
    model = script(
        project / "tool.json",
        [{"tool": "bash", "input": tool}],
        [{"tool": "bash", "input": again}],
        [{"text": "fine"}],
    )
    server.prompt(
        workspace,
        server.session(workspace),
        "go",
        model=model,
        permission_mode="allow",
        run_id="running",
    )
    eventually(lambda: "tool" in str(server.record("running")["waiting_on"]))
    with contextlib.ExitStack() as clients:
        for _ in range(3 * FILES):
            sock = clients.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(5)
            sock.connect(server.socket_path)
        eventually(lambda: _answer(server) == (503, "overloaded"))
        before = _cpu_seconds(server.pid)
        go.touch()  # a second command is started now, and what it says is stored
        time.sleep(1.0)  # the span over which the use of the processor is measured
        assert _cpu_seconds(server.pid) - before < 0.6
    record = server.ended("running")
    assert (record["outcome"], record["text"]) == ("completed", "fine")
    assert record["processes"]["started"] == 2
    assert server.stop() == 0


def _answer(server: Server) -> tuple[int, str]:
    """What a further client is told; nothing if its connection was closed before it asked."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, value = server.call("GET", "/v1/runs/running")
        return status, value.get("code", "")
    return 0, ""


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
