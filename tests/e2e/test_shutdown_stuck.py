"""Everything stuck at once, and each way to end a server in the middle of it (G10, G11)."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from tests.e2e.kit import Server, UnixHTTP, alive, eventually, script

STUBBORN = "trap '' TERM INT; (setsid sh -c 'trap \"\" TERM; echo $$ >> pids; sleep 600' &) ; " + (
    "echo $$ >> pids; while :; do sleep 1; done"
)


@attrs.define
class Stuck:
    """A server in which nothing can go on by itself."""

    server: Server
    workspace: str
    pids: list[int]
    farewells: list[Any] = attrs.field(factory=list)
    waited: list[tuple[int, Any]] = attrs.field(factory=list)
    threads: list[threading.Thread] = attrs.field(factory=list)

    def join(self) -> None:
        """Wait for the clients, which end with the server."""
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


@contextlib.contextmanager
def everything_stuck(server: Server, project: Path) -> Iterator[Stuck]:
    """A stubborn tool, a silent model, a queued run; a subscriber that stopped reading, half a
    request, a long poll, and one subscriber that reads."""
    workspace = server.workspace(project)
    tool = script(
        project / "tool.json",
        [{"tool": "bash", "input": {"command": STUBBORN, "description": "hang"}}],
    )
    hold = script(project / "hold.json", [{"text": "some"}, {"silence": True}])
    flood = script(
        project / "flood.json", [{"text": "x" * 1000, "tokens": 1_000_000, "every_ms": 1}]
    )
    options = {"permission_mode": "allow"}
    for name, model in (("tool", tool), ("silent", hold)):
        server.prompt(
            workspace, server.session(workspace), name, model=model, run_id=name, **options
        )
    session = server.record("silent")["session_id"]
    server.prompt(workspace, session, "list", run_id="queued")
    with contextlib.ExitStack() as clients:
        deaf = clients.enter_context(socket.socket(socket.AF_UNIX))
        _subscribe_and_stop_reading(deaf, server, workspace)
        server.prompt(workspace, server.session(workspace), "flood", model=flood, run_id="flood")
        half = clients.enter_context(socket.socket(socket.AF_UNIX))
        half.connect(server.socket_path)
        half.sendall(b"POST /v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        pids = project / "pids"
        eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        eventually(lambda: bool(server.record("silent")["waiting_on"] == "model"))
        stuck = Stuck(server, workspace, [int(pid) for pid in pids.read_text().split()])
        reading = threading.Event()
        for target in (lambda: _read_to_the_end(stuck, reading), lambda: _long_poll(stuck)):
            stuck.threads.append(threading.Thread(target=target, daemon=True))
            stuck.threads[-1].start()
        assert reading.wait(10)
        yield stuck


def _subscribe_and_stop_reading(sock: socket.socket, server: Server, workspace: str) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(server.socket_path)
    sock.sendall(
        f"GET /v1/workspaces/{workspace}/ws?after=start HTTP/1.1\r\nHost: x\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b" 101 " in sock.recv(100)


def _read_to_the_end(stuck: Stuck, reading: threading.Event) -> None:
    uri = f"ws://localhost/v1/workspaces/{stuck.workspace}/ws?after=now&kinds=run_complete"
    with unix_connect(
        stuck.server.socket_path, uri=uri, compression=None, max_size=None, ping_interval=None
    ) as connection:
        try:
            while True:
                stuck.farewells += json.loads(connection.recv())
                reading.set()
        except ConnectionClosed as exc:
            stuck.farewells.append(exc.rcvd.code if exc.rcvd else None)


def _long_poll(stuck: Stuck) -> None:
    with contextlib.suppress(OSError):  # a second signal leaves it without an answer
        stuck.waited.append(stuck.server.call("GET", "/v1/runs/queued?wait=25"))


def check_nothing_left(stuck: Stuck) -> None:
    """No process, no socket, no lock, no file, no log in front of the database."""
    server = stuck.server
    assert not any(alive(pid) for pid in stuck.pids)
    assert list(Path(server.socket_path).parent.iterdir()) == []
    kept = {"crush.db", "crush.db-wal", "crush.db-shm", "lock", "server.log", "access.log"}
    assert {path.name for path in server.data.iterdir()} <= kept
    wal = server.data / "crush.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(server.home) not in listed.stdout


@pytest.mark.parametrize("way", ["SIGTERM", "stop"])
def test_with_everything_stuck_it_ends_in_order_and_in_time(
    server: Server, project: Path, way: str
) -> None:
    """G10, G11: exit 0 within 10 s, a last word to those who read, nothing left, queue kept."""
    with everything_stuck(server, project) as stuck:
        began = time.monotonic()
        if way == "stop":
            assert server.cli("stop").returncode == 0
            assert server.wait_exit() == 0
        else:
            assert server.stop(signal.Signals[way]) == 0
        assert time.monotonic() - began < 10
        stuck.join()
    assert stuck.farewells[-1] == 1001
    assert stuck.farewells[-2]["type"] == "bye"
    ended = [f for f in stuck.farewells[:-1] if f["type"] == "run_complete"]
    assert {f["payload"]["payload"]["run_id"] for f in ended} == {"tool", "silent", "flood"}
    assert [(status, answer["state"]) for status, answer in stuck.waited] == [(200, "queued")]
    check_nothing_left(stuck)
    server.start()
    for run in ("tool", "silent", "flood"):
        record = server.record(run)
        assert (record["outcome"], record["cancelled_by"]["reason"]) == ("cancelled", "shutdown")
    assert server.ended("queued")["outcome"] == "completed"


def test_a_session_is_not_said_to_be_cancelled_when_the_server_stops(
    server: Server, project: Path
) -> None:
    """G2, G4: the queued run stays queued in a shutdown, so the cancel is refused, not empty."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    tool = script(
        project / "tool.json",
        [{"tool": "bash", "input": {"command": STUBBORN, "description": "hang"}}],
    )
    server.prompt(workspace, session, "go", model=tool, permission_mode="allow", run_id="tool")
    server.prompt(workspace, session, "list", run_id="queued")
    pids = project / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    connection = UnixHTTP(server.socket_path)  # made before: the socket goes out of sight first
    connection.connect()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: not Path(server.socket_path).exists())
    path = f"/v1/workspaces/{workspace}/agent/sessions/{session}/cancel"
    connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (503, "server_stopping")
    connection.close()
    assert server.wait_exit() == 0
    server.start()
    assert server.ended("queued")["outcome"] == "completed"


def test_a_second_signal_ends_it_at_once(server: Server, project: Path) -> None:
    """G11: by the kernel, and the tools go with it; the next start owes the rest."""
    with everything_stuck(server, project) as stuck:
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not Path(server.socket_path).exists())
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == -signal.SIGTERM
        assert time.monotonic() - began < 1
        stuck.join()
        eventually(lambda: not any(alive(pid) for pid in stuck.pids), timeout=4)
    server.start()
    assert {server.ended(run)["outcome"] for run in ("tool", "silent")} <= {"cancelled", "lost"}
    assert server.ended("queued")["outcome"] == "completed"


SHIELDED = """
import sys, trio
from crush_trio.models.script import ScriptModel
from crush_trio.cli.main import main

async def stream(self, request, emit):
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

ScriptModel.stream = stream
sys.argv[0] = "crush-trio"
sys.exit(main())
"""


def test_a_model_that_shields_itself_is_left_behind_by_the_watchdog(
    server: Server, project: Path
) -> None:
    """G11: subscribers get their last word and HTTP ends in its time; then exit 70. The budget of
    each step follows `--shutdown-timeout`."""
    server.stop()
    server.arguments = ("--shutdown-timeout", "3")
    server.command = [sys.executable, "-c", SHIELDED]
    server.start()
    workspace = server.workspace(project)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, server.session(workspace), "go", model=hold, run_id="shielded")
    eventually(lambda: bool(server.record("shielded")["waiting_on"] == "model"))
    with server.stream(workspace, "after=now") as stream:
        stream.next()
        began = time.monotonic()
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert stream.until(lambda frame: frame["type"] == "bye")
        assert 1.4 < time.monotonic() - began < 2.5  # half of the time is for runs
        with pytest.raises(ConnectionClosed) as closed:
            stream.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert server.wait_exit() == 70
    assert 3.9 < time.monotonic() - began < 6
    server.arguments, server.command = (), Server.command
    server.start()
    assert server.ended("shielded")["outcome"] == "lost"
