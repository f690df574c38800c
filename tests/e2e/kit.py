"""A server process and plain clients: stdlib HTTP, a foreign websocket client, the real CLI."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, unix_connect

from tests import forked

Json = dict[str, Any]
READY_S = 20.0
"""How long a server may take to be ready on a loaded machine."""


class UnixHTTP(http.client.HTTPConnection):
    """The standard library's HTTP client over a unix socket."""

    def __init__(self, path: str, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def environment(home: Path) -> dict[str, str]:
    """An environment with an empty home and nothing of the machine's configuration or keys."""
    home.mkdir(parents=True, exist_ok=True)
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        "COVERAGE_PROCESS_START": os.environ.get("COVERAGE_PROCESS_START", ""),
    }


class Server:
    """One ``crush-trio serve`` process on the data directory ``home/data``."""

    command: Sequence[str] = (sys.executable, "-m", "crush_trio")

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.data = home / "data"
        self.arguments = arguments
        self.env = environment(home)
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        """Start the process and wait for its first line."""
        command = [*self.command, "serve", "--data-dir", str(self.data)]
        self.process = forked.Popen(
            [*command, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.errors()
        self.url = line.removeprefix("listening on ").strip()
        return self

    def errors(self) -> str:
        """What a process that has ended wrote to stderr."""
        assert self.process is not None
        return self.process.communicate(timeout=READY_S)[1]

    @property
    def socket_path(self) -> str:
        """The path of its unix socket."""
        return self.url.removeprefix("unix://")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=READY_S)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Send a signal and wait for the exit; its code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=timeout)
        return self.process.returncode

    def wait_exit(self, timeout: float = 20) -> int:
        """Wait until the process ends by itself; its exit code."""
        assert self.process is not None
        self.process.communicate(timeout=timeout)
        return self.process.returncode

    # --- plain HTTP -----------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None
    ) -> tuple[int, Any]:
        """One request over the unix socket: status and parsed answer (``None`` if empty)."""
        connection = UnixHTTP(self.socket_path)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The answer to a GET that must succeed."""
        status, value = self.call("GET", path)
        assert status == 200, (status, value)
        return value

    def post(self, path: str, body: Any = None, expect: int = 200) -> Any:
        """The answer to a POST that must give ``expect``."""
        status, value = self.call("POST", path, {} if body is None else body)
        assert status == expect, (status, value)
        return value

    def workspace(self, path: Path) -> str:
        """The id of a workspace for a directory, which is made if it is missing."""
        path.mkdir(parents=True, exist_ok=True)
        return str(self.post("/v1/workspaces", {"path": str(path)})["id"])

    def session(self, workspace: str, title: str = "test") -> str:
        """A new session's id."""
        return str(self.post(f"/v1/workspaces/{workspace}/sessions", {"title": title})["id"])

    def prompt(self, workspace: str, session: str, prompt: str, **more: Any) -> Json:
        """Submit a prompt; its receipt."""
        body = {"session_id": session, "prompt": prompt, **more}
        receipt: Json = self.post(f"/v1/workspaces/{workspace}/agent", body, expect=202)
        return receipt

    def record(self, run: str, wait: float = 0) -> Json:
        """A run's record, after at most ``wait`` seconds of waiting for its end."""
        record: Json = self.get(f"/v1/runs/{run}?wait={wait}")
        return record

    def ended(self, run: str) -> Json:
        """A run's record; fails if it does not end."""
        record = self.record(run, wait=30)
        assert record["state"] == "finished", record
        return record

    # --- the stream -----------------------------------------------------------------------

    @contextlib.contextmanager
    def stream(self, workspace: str, query: str = "after=start") -> Iterator[Stream]:
        """A subscriber that uses a websocket client which was not written for this project."""
        uri = f"ws://localhost/v1/workspaces/{workspace}/ws?{query}"
        with unix_connect(
            self.socket_path, uri=uri, compression=None, max_size=None, ping_interval=None
        ) as connection:
            yield Stream(connection)

    def events(self, workspace: str, query: str = "after=start") -> list[Json]:
        """Every event of the journal up to now."""
        with self.stream(workspace, query) as stream:
            return [f for f in stream.until(lambda f: f["type"] == "replayed") if "seq" in f][1:-1]

    # --- the command line -----------------------------------------------------------------

    def cli(
        self, *arguments: str, cwd: Path | None = None, timeout: float = 60, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a client command against this server and wait for it."""
        return cli(
            self.env, *arguments, "--data-dir", str(self.data), cwd=cwd, timeout=timeout, **more
        )


class Stream:
    """The objects of a websocket's frames, one by one."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames = 0
        self.seen: list[Json] = []
        self._waiting: list[Json] = []

    def next(self, timeout: float = 20) -> Json:
        """The next object."""
        while not self._waiting:
            self._waiting = json.loads(self.connection.recv(timeout=timeout))
            self.frames += 1
        value = self._waiting.pop(0)
        self.seen.append(value)
        return value

    def until(self, wanted: Callable[[Json], bool], timeout: float = 20) -> list[Json]:
        """The objects up to and with the first wanted one."""
        found = []
        deadline = time.monotonic() + timeout
        while True:
            found.append(self.next(max(0.1, deadline - time.monotonic())))
            if wanted(found[-1]):
                return found

    def until_end_of(self, run: str) -> list[Json]:
        """The objects up to and with a run's terminal event."""
        return self.until(lambda frame: is_end_of(frame, run))


def is_end_of(frame: Json, run: str) -> bool:
    """Whether a frame is the terminal event of ``run``."""
    return frame["type"] == "run_complete" and bool(frame["payload"]["payload"]["run_id"] == run)


def cli(
    env: dict[str, str],
    *arguments: str,
    cwd: Path | None = None,
    timeout: float = 60,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run ``crush-trio`` with ``arguments`` and wait for it."""
    more.setdefault("stdin", subprocess.DEVNULL)
    return forked.run(
        [sys.executable, "-m", "crush_trio", *arguments],
        cwd=cwd,
        env=env,
        text=True,
        capture_output=True,
        timeout=timeout,
        **more,
    )


def script(path: Path, *steps: Sequence[Json], **more: Any) -> str:
    """Write a script model whose n-th step plays the n-th list of actions; its name."""
    path.write_text(json.dumps({"steps": [{"actions": list(step)} for step in steps], **more}))
    return f"script/{path}"


def eventually(what: Callable[[], bool], timeout: float = 15) -> None:
    """Wait until a condition of another process holds; asks again every 10 ms."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
