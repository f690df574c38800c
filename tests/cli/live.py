"""The real command line as processes, and a real server for them to talk to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from tests import forked

LIMIT_S = 30.0
_COMMAND = (sys.executable, "-m", "crush_trio")


@attrs.frozen
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@attrs.frozen
class Shell:
    """Commands in an environment of their own: home, data, runtime directory and workspace."""

    root: Path
    environ: dict[str, str]

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def run(
        self, *words: str, stdin: bytes | None = None, environ: dict[str, str] | None = None
    ) -> Done:
        """Run a command to its end; without ``stdin`` it gets /dev/null."""
        done = forked.run(
            [*_COMMAND, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=self.work,
            env=self.environ if environ is None else environ,
            timeout=LIMIT_S,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextlib.contextmanager
    def start(
        self, *words: str, stdin: int | IO[bytes] = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A running command, ended with the block at the latest."""
        process = forked.Popen(
            [*_COMMAND, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.work,
            env=self.environ,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """A server started by hand, for as long as the block lasts; its URL."""
        with self.start("serve", *words) as process:
            first = read_line(process)
            assert first.startswith("listening on "), process.communicate()
            try:
                yield first.removeprefix("listening on ")
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=LIMIT_S)

    def script(self, name: str, *steps: Sequence[dict[str, Any]]) -> str:
        """A script model that plays ``steps``; its name for ``-m``."""
        path = self.root / f"{name}.json"
        path.write_text(json.dumps({"steps": [{"actions": list(step)} for step in steps]}))
        return f"script/{path}"


def read_line(process: subprocess.Popen[bytes]) -> str:
    """The next line of a command's stdout."""
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


def read_json_until(process: subprocess.Popen[bytes], kind: str) -> list[dict[str, Any]]:
    """JSON lines of a command up to and with the first of that type."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != kind:
        line = read_line(process)
        assert line, found
        found.append(json.loads(line))
    return found


def make_shell(root: Path) -> Shell:
    """A fresh environment below ``root``, which must be short: a socket's path is bounded."""
    for name in ("home", "run", "work"):
        (root / name).mkdir(mode=0o700)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(root / "home"),
        "XDG_RUNTIME_DIR": str(root / "run"),
        "XDG_DATA_HOME": str(root),
        "LANG": "C.UTF-8",
    }
    (root / "data").symlink_to(root / "crush-trio")
    return Shell(root, environ)
