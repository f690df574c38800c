"""A server process that may be killed at any moment, and what it must not leave behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos.shim import Shim, why_not
from tests.chaos.zygote import Forked, Zygote
from tests.e2e.kit import UnixHTTP, environment

ROOT = Path(__file__).parents[2]
CALL_TIMEOUT_S = 20.0
READY_S = 30.0


class Unanswered(Exception):
    """The request may have been carried out or not."""


class ChaosServer:
    """``crush-trio serve`` on ``home/data``, started again and again.

    Args:
        home: Its home, with a short path.
        package: The directory that holds the package to run; by default this one.
        fork: Fork servers from a process that has imported everything, instead of starting
            interpreters: five times as many lives in the same time.
    """

    def __init__(
        self, home: Path, package: Path | None = None, *arguments: str, fork: bool = False
    ) -> None:
        self.home = home
        self.data = home / "data"
        self.socket = home / "s"
        self.arguments = arguments
        self.env = environment(home)
        self.env["PYTHONPATH"] = str(package or ROOT)
        self.shim = None if why_not() else Shim(home)
        if self.shim is not None:
            self.env.update(self.shim.env)
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.zygote = Zygote(self.env, home) if fork else None

    # --- life -----------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the process; do not wait for it."""
        arguments = ("serve", "--data-dir", str(self.data), "--host", f"unix://{self.socket}")
        if self.zygote is not None:
            self.process = self.zygote.fork(*arguments, *self.arguments)
            return
        with (self.home / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crush_trio", *arguments, *self.arguments],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.env,
            )

    def wait_ready(self, timeout: float = READY_S) -> bool:
        """Whether it says that it listens within ``timeout``; not if it ends before."""
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                return b"listening on" in os.read(self.process.stdout.fileno(), 4096)
        return False

    def signal(self, number: int) -> None:
        """Signal the process, if it is there."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float) -> int | None:
        """Its exit code; ``None`` if it does not end within ``timeout``."""
        assert self.process is not None
        assert self.process.stdout is not None
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self.process is None or self.process.poll() is not None

    # --- requests -------------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Any = None, timeout: float = CALL_TIMEOUT_S
    ) -> tuple[int, Any]:
        """One request; status and answer.

        Raises:
            Unanswered: No whole answer came.
        """
        connection = UnixHTTP(str(self.socket), timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise Unanswered(f"{method} {path}: {exc!r}") from exc
        finally:
            connection.close()

    # --- what is left ---------------------------------------------------------------------

    def tool_processes(self) -> dict[tuple[int, str], str]:
        """``{(pid, start): command}`` of every live process that a server here has started.

        A tool inherits ``HOME``, which is this server's alone; one that cleared its environment
        has said in ``pids`` who it is.
        """
        mark = f"HOME={self.home}".encode()
        told = set()
        with contextlib.suppress(FileNotFoundError):  # no tool has begun yet
            told = set((self.home / "pids").read_text().split())
        found = {}
        own = {str(one.pid) for one in (self.process, self.zygote) if one is not None}
        for entry in os.listdir("/proc"):
            if not entry.isdecimal() or entry in own:
                continue
            with contextlib.suppress(OSError, IndexError):  # it ended while we looked
                stat = Path(f"/proc/{entry}/stat").read_text("utf-8", "replace")
                fields = stat.rpartition(")")[2].split()
                if fields[0] in "ZX":
                    continue
                environ = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                if mark in environ or f"{entry}@{fields[19]}" in told:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[(int(entry), fields[19])] = words.decode("utf-8", "replace")[:150]
        return found
