"""A process that has imported the server and forks one when asked: a start without imports.

Run as a program it reads lines from stdin: JSON ``{"argv": …, "stdout": FIFO, "stderr": file}``
forks a server and answers with its pid; ``poll`` answers with the exit code of the last one, or
``null``. In this process no fault of the shim counts.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Forked:
    """One forked server, with the part of `subprocess.Popen` that is used here."""

    def __init__(self, zygote: Zygote, pid: int, stdout: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.stdout = os.fdopen(stdout, "rb", buffering=0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; ``None`` while it lives."""
        if self.returncode is None:
            self.returncode = self._zygote.ask("poll")
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("server", timeout)
            time.sleep(0.003)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, if it is there; it is not reaped before `poll` has seen its end."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Zygote:
    """The process that forks; one at a time may live."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._home = home
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=home,
            env={**env, "CHAOS_ZYGOTE": "1"},
            text=True,
        )
        self.pid = self._process.pid

    def fork(self, *argv: str) -> Forked:
        """Start ``crush-trio`` with these arguments."""
        fifo = self._home / "stdout"
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        stdout = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        pid = self.ask(
            json.dumps({"argv": argv, "stdout": str(fifo), "stderr": str(self._home / "stderr")})
        )
        return Forked(self, pid, stdout)

    def ask(self, line: str) -> Any:
        """Its answer to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> None:
    """Serve the lines of stdin."""
    sys.path.pop(0)  # this file's directory
    import crush_trio.cli.main
    import crush_trio.cli.serve
    import crush_trio.server.serve  # what takes the time of a start

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; the harness ends us
    last = 0
    for line in iter(sys.stdin.readline, ""):
        answer: int | None = None
        if line != "poll\n":
            last = os.fork()
            if last == 0:
                become_server(**json.loads(line))
                crush_trio.cli.main.main()  # exits
                sys.exit(0)
            answer = last
        else:
            pid, status = os.waitpid(last, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def become_server(argv: list[str], stdout: str, stderr: str) -> None:
    """In the child: what an exec would have given."""
    for target, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, stdout, os.O_WRONLY),
        (2, stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.argv = ["crush-trio", *argv]


if __name__ == "__main__":
    main()
