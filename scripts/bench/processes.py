"""The processes of one benchmark: started, spoken to, measured from outside, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = str(Path(sys.executable).with_name("crush-trio"))
ANSWER_S = 60.0  # the longest wait for anything
IDLE_S = 20.0  # a connection idle for longer is made again: servers close theirs after a while
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Http:
    """One keep-alive connection; as little work as possible per request."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._connect()

    def _connect(self) -> None:
        self._used = time.monotonic()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(self._path)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request: the status and the body of its answer."""
        if time.monotonic() - self._used > IDLE_S:
            self.close()
            self._connect()
        self._used = time.monotonic()
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        self._socket.sendall(head.encode() + b"\r\n" + data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        header, _, rest = answer.partition(b"\r\n\r\n")
        length = 0
        for line in header.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        while len(rest) < length:
            rest += self._receive()
        return int(header[9:12]), rest

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise RuntimeError("the server closed the connection")
        return data

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request that must succeed."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer!r}")
        return json.loads(answer) if answer else None


class Process:
    """A child with a pipe to its stdin and from its stdout; it ends when its stdin does."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd="/"
        )
        self._waiting = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def line(self, timeout: float = ANSWER_S) -> str:
        """The next line of its stdout."""
        assert self.popen.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._waiting:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.popen.stdout], [], [], left)[0]:
                raise RuntimeError(f"{self.popen.args} was silent for {timeout} s")
            data = os.read(self.popen.stdout.fileno(), 1 << 16)
            if not data:
                raise RuntimeError(f"{self.popen.args} ended too early")
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.decode()

    def cpu_s(self) -> float:
        """CPU seconds it and its reaped children have used, to a clock tick."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) * TICK_S

    def rss_kb(self) -> int:
        """Resident memory, in kB."""
        return rss_kb(self.pid)

    def end(self) -> None:
        """Close its stdin and wait; kill it if that does not help."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        with contextlib.suppress(OSError):  # it has gone already
            self.popen.stdin.close()
        try:
            self.popen.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()


def rss_kb(pid: int) -> int:
    """Resident memory of a process, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no memory")


class Sink(Process):
    """Subscribers; see `sink.py`."""

    def __init__(self, env: dict[str, str], path: Path, target: str, count: int, ends: int) -> None:
        command = [sys.executable, "-I", "-S", str(HERE / "sink.py"), str(path), target]
        super().__init__([*command, str(count), str(ends)], env)
        if self.line() != "ready":
            raise RuntimeError("the subscribers did not connect")

    def turn(self) -> dict[str, Any]:
        """What all of them saw of the next turn."""
        turn: dict[str, Any] = json.loads(self.line())
        return turn


class Bare(Process):
    """The bare handlers; see `bare.py`."""

    def __init__(self, env: dict[str, str], path: Path, *options: str) -> None:
        self.path = path
        super().__init__([sys.executable, str(HERE / "bare.py"), str(path), *options], env)
        if self.line() != "listening":
            raise RuntimeError("the bare server did not start")


class Ours(Process):
    """Our server; see `ours.py`."""

    def __init__(self, env: dict[str, str], directory: Path, *options: str) -> None:
        self.data = directory / "data"
        self.path = directory / "s"
        command = [sys.executable, str(HERE / "ours.py"), "--data-dir", str(self.data)]
        super().__init__([*command, "--socket", str(self.path), *options], env)
        if not self.line().startswith("listening on "):
            raise RuntimeError("the server did not start")
        self.http = Http(self.path)
        (directory / "ws").mkdir(exist_ok=True)
        created = self.http.json("POST", "/v1/workspaces", {"path": str(directory / "ws")})
        self.workspace = created["id"]
        self.base = f"/v1/workspaces/{self.workspace}"
        self.stream = f"{self.base}/ws?after=now"

    def session(self) -> str:
        """A new session's id."""
        created = self.http.json("POST", f"{self.base}/sessions", {"title": "bench"})
        return str(created["id"])

    def prompt(self, session: str, model: str, prompt: str = "go") -> str:
        """Submit a prompt; its run's id."""
        body = {"session_id": session, "prompt": prompt, "model": model}
        return str(self.http.json("POST", f"{self.base}/agent", body)["run_id"])

    def wait(self, run: str) -> dict[str, Any]:
        """The record of a run that must complete."""
        record: dict[str, Any] = self.http.json("GET", f"/v1/runs/{run}?wait=60")
        if record["outcome"] != "completed":
            raise RuntimeError(f"run {run} did not complete: {record}")
        return record


def first_answer(env: dict[str, str], directory: Path) -> tuple[float, subprocess.Popen[bytes]]:
    """Start a server on ``directory/data``: seconds from the spawn to its first answer.

    The first request is sent in the first millisecond in which it can be.
    """
    path = directory / "s"
    started = time.perf_counter()
    process = subprocess.Popen(
        [OURS, "serve", "--data-dir", str(directory / "data"), "--host", f"unix://{path}"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            with contextlib.suppress(OSError):
                http = Http(path)
                break
            if time.perf_counter() - started > ANSWER_S or process.poll() is not None:
                raise RuntimeError("the server did not start")
            time.sleep(0.001)
        http.json("GET", "/healthz")
        took = time.perf_counter() - started
        http.close()
        return took, process
    except BaseException:
        process.kill()
        process.wait()
        raise


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process and wait; kill it if that does not help."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Workshop:
    """A temporary directory, an environment with an empty home, and every process started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = contextlib.ExitStack()
        self._count = 0
        self.env = self.environment("home")

    def environment(self, name: str) -> dict[str, str]:
        """An environment with a home of its own."""
        home = self.fresh(name)
        (home / "run").mkdir(mode=0o700)
        inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return {
            **inherited,  # so that another checkout can be measured
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "LANG": "C.UTF-8",
        }

    def fresh(self, name: str) -> Path:
        """A new directory."""
        self._count += 1
        path = self.directory / f"{name}{self._count}"
        path.mkdir(mode=0o700)
        return path

    @contextlib.contextmanager
    def using(self, process: Process) -> Iterator[Any]:
        """A process that is ended after the block."""
        try:
            yield process
        finally:
            process.end()

    def keep(self, process: Any) -> Any:
        """A process that lives until the workshop closes."""
        self._stack.callback(process.end)
        return process

    def bare(self, *options: str) -> Bare:
        """Start the bare handlers."""
        return Bare(self.env, self.fresh("bare") / "s", *options)

    def ours(self, *options: str) -> Ours:
        """Start our server on a new data directory."""
        return Ours(self.env, self.fresh("ours"), *options)

    def sink(self, path: Path, target: str, count: int = 1, ends: int = 1) -> Sink:
        """Connect subscribers; ``ends`` runs make one turn."""
        return Sink(self.env, path, target, count, ends)

    def script(self, name: str, *actions: dict[str, Any]) -> str:
        """The name of a script model with one step."""
        return self.steps(name, list(actions))

    def steps(self, name: str, *steps: list[dict[str, Any]]) -> str:
        """The name of a script model."""
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps({"steps": [{"actions": actions} for actions in steps]}))
        return f"script/{path}"

    def close(self) -> None:
        """End everything, in reverse order."""
        self._stack.close()


@contextlib.contextmanager
def workshop(directory: Path | None, limit_s: int) -> Iterator[Workshop]:
    """A workshop that is left clean, also on a signal and after ``limit_s`` seconds."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(f"bench: ended by {signal.Signals(number).name}")

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.alarm(limit_s)
    with tempfile.TemporaryDirectory(prefix="ctb-", dir=directory) as name:
        shop = Workshop(Path(name))
        try:
            yield shop
        finally:
            signal.alarm(0)
            shop.close()
