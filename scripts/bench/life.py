"""Goals 17 to 19: how long ends take, of a cancel and of a stuck server, and a long start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from figures import Figures
from processes import ANSWER_S, HERE, Http, Ours, Workshop, end_process, first_answer

MS = 1e-6  # of a nanosecond
STORED = 10_000
STUBBORN = (
    "trap '' TERM INT HUP; (trap '' TERM; exec sleep 600) & touch begun; while :; do sleep 1; done"
)
SILENT: list[dict[str, Any]] = [{"text": "so far"}, {"silence": True}]


class Life:
    """A server of its own for each measure."""

    def __init__(self, shop: Workshop, *, quick: bool) -> None:
        self.shop = shop
        self.cancels, self.kills, self.stops, self.starts = (8, 1, 1, 1) if quick else (20, 3, 1, 3)
        self.silent = shop.steps("silent", SILENT)
        bash = {"tool": "bash", "input": {"command": STUBBORN, "description": "stay"}}
        self.stubborn = shop.steps("stubborn", [bash])
        self._stored: Path | None = None

    # --- cancelling -----------------------------------------------------------------------

    def cancel(self, figures: Figures) -> None:
        """From the POST of a cancel until a subscriber has the terminal event."""
        with self.shop.using(self.shop.ours()) as server:
            for name, model, times in (
                ("plain", self.silent, self.cancels),
                ("stubborn", self.stubborn, self.kills),
            ):
                with self.shop.using(self.shop.sink(server.path, server.stream)) as sink:
                    took = [self._cancelled(server, sink, model) for _ in range(times)]
                figures.spread(f"cancel.{name}", took, 0.5, 1)

    def _cancelled(self, server: Ours, sink: Any, model: str) -> float:
        run = self._begun(server, model)
        sent = time.monotonic_ns()
        server.http.json("POST", f"/v1/runs/{run}/cancel", {})
        took: float = (sink.turn()["end_ns"] - sent) * MS
        record = server.http.json("GET", f"/v1/runs/{run}")
        if record["outcome"] != "cancelled" or record["processes"]["left"]:
            raise RuntimeError(f"not cancelled: {record}")
        return took

    def _begun(self, server: Ours, model: str) -> str:
        """A run that is in the middle of it: the model silent, or the tool trapping signals."""
        begun = server.data.parent / "ws" / "begun"
        begun.unlink(missing_ok=True)
        body = {"session_id": server.session(), "prompt": "go", "model": model}
        body |= {"permission_mode": "allow"}
        run = str(server.http.json("POST", f"{server.base}/agent", body)["run_id"])

        def is_so() -> bool:
            if model == self.stubborn:
                return begun.exists()
            messages = f"{server.base}/sessions/{body['session_id']}/messages"
            return "so far" in str(server.http.json("GET", messages))

        wait_for(is_so)
        return run

    # --- shutting down --------------------------------------------------------------------

    def stop(self, figures: Figures) -> None:
        """From SIGTERM to the exit, with everything stuck that can be."""
        for _ in range(self.stops):
            with self.shop.using(self.shop.ours()) as server:
                figures.add("stop.stuck_s", self._stopped(server))

    def _stopped(self, server: Ours) -> float:
        stuck = self._stalled(server)
        self._begun(server, self.silent)
        run = self._begun(server, self.stubborn)
        busy = server.http.json("GET", f"/v1/runs/{run}")["session_id"]
        server.http.json(
            "POST", f"{server.base}/agent", {"session_id": busy, "prompt": "waits", "run_id": "q"}
        )
        half = socket.socket(socket.AF_UNIX)
        half.connect(str(server.path))
        half.sendall(b"POST /v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        waiting = threading.Thread(target=_ask, args=(server.path, f"/v1/runs/{run}?wait=300"))
        waiting.start()
        started = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        code = server.popen.wait(timeout=30)
        took = time.monotonic() - started
        waiting.join(timeout=10)
        half.close()
        stuck.close()
        if code:
            raise RuntimeError(f"the server exited with {code}")
        return took

    def _stalled(self, server: Ours) -> socket.socket:
        """A subscriber of a long history that does not read."""
        flood = self.shop.steps("flood", [{"text": "x" * 400_000}])
        session = server.session()
        for _ in range(3):
            server.wait(server.prompt(session, flood))
        return stalled(server)

    # --- starting -------------------------------------------------------------------------

    def start(self, figures: Figures) -> None:
        """From the spawn to the first answer, with `STORED` sessions, after an orderly end."""
        if self._stored is None:
            self._stored = self._fill()
        empty = self.shop.fresh("empty")
        for _ in range(self.starts):
            for name, directory in (("empty", empty), ("stored", self._stored)):
                took, process = first_answer(self.shop.env, directory)
                end_process(process)
                figures.add(f"restart.{name}", took * 1000)
            took, process = first_answer(self.shop.env, self._stored)
            process.kill()
            process.wait()
            took, process = first_answer(self.shop.env, self._stored)
            end_process(process)
            figures.add("restart.killed", took * 1000)

    def _fill(self) -> Path:
        directory = self.shop.fresh("stored")
        workspace = directory / "ws"
        workspace.mkdir()
        command = [sys.executable, str(HERE / "stored.py"), str(directory / "data")]
        subprocess.run([*command, str(workspace), str(STORED)], env=self.shop.env, check=True)
        return directory


def stalled(server: Ours, query: str = "after=start") -> socket.socket:
    """A websocket whose peer reads the first bytes and then nothing more."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(server.path))
    peer.sendall(
        f"GET {server.base}/ws?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    if not peer.recv(12).startswith(b"HTTP/1.1 101"):
        raise RuntimeError("no upgrade")
    return peer


def wait_for(what: Any) -> None:
    """Ask again every 5 ms until it is so."""
    deadline = time.monotonic() + ANSWER_S
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError("the condition did not come true")
        time.sleep(0.005)


def _ask(path: Path, target: str) -> None:
    with contextlib.suppress(RuntimeError, OSError):  # cut by the shutdown, if it is late
        Http(path).call("GET", target)
