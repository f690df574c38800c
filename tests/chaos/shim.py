"""The preloaded library that kills, fails or shifts time inside the server process."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
LAYOUT = struct.Struct("<qqiiiiq")  # clock_ns, left, call, action, error, again, fired
CALLS = {
    name: number
    for number, name in enumerate(
        ("pwrite", "fdatasync", "fsync", "ftruncate", "unlink", "write", "send", "open"), 1
    )
}
ACTIONS = {"before": 1, "after": 2, "torn": 3, "fail": 4}


def why_not() -> str:
    """Why there can be no such library here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "preloading is done on Linux only"
    return "" if _compiler() else "there is no C compiler"


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def library(directory: Path) -> Path:
    """The compiled library, in ``directory``."""
    compiler = _compiler()
    if compiler is None:
        raise RuntimeError(why_not())
    made = directory / "shim.so"
    if not made.exists():
        part = directory / f"shim.{os.getpid()}.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(part), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        part.replace(made)
    return made


class Shim:
    """One server's control file; what is written takes effect at once, in a running server too."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shim.control"
        self.path.write_bytes(bytes(LAYOUT.size))
        self.env = {"LD_PRELOAD": str(library(directory)), "CHAOS_SHIM": str(self.path)}

    def arm(
        self, action: str, call: str, n: int = 1, *, error: int = errno.EIO, again: bool = False
    ) -> None:
        """Do ``action`` at the ``n``-th call from now: before, after, torn (kills) or fail."""
        now = list(LAYOUT.unpack(self.path.read_bytes()))
        now[1:] = [n, CALLS[call], ACTIONS[action], error, int(again), 0]
        self._write(now)

    def disarm(self) -> None:
        """No fault from now on."""
        now = list(LAYOUT.unpack(self.path.read_bytes()))
        now[1:] = [0] * 6
        self._write(now)

    def shift_clock(self, seconds: float) -> None:
        """The server's wall clock is so much ahead of the real one."""
        now = list(LAYOUT.unpack(self.path.read_bytes()))
        now[0] = int(seconds * 1e9)
        self._write(now)

    @property
    def fired(self) -> int:
        """How often the action was done."""
        return int(LAYOUT.unpack(self.path.read_bytes())[-1])

    def _write(self, values: list[int]) -> None:
        with self.path.open("r+b") as file:  # not truncated: it is mapped
            file.write(LAYOUT.pack(*values))
