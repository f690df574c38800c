"""The server's process shows its memory and environment to nobody (T36)."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Root's privileges are given up first, since root can look into everything.
_BEGIN = (
    "import ctypes, sys, pathlib\n"
    "from crush_trio.tools.sandbox.confine import _drop_capabilities\n"
    "_drop_capabilities(ctypes.CDLL(None, use_errno=True), frozenset())\n"
)
_VICTIM = _BEGIN + "{}\nprint('ready', flush=True)\ninput()\n"
_LOOK = _BEGIN + "pathlib.Path(f'/proc/{sys.argv[1]}/environ').read_bytes()\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
@pytest.mark.parametrize("private", [True, False])
def test_a_private_process_cannot_be_looked_into(private: bool) -> None:
    call = "from crush_trio.server.private_process import keep_private; keep_private()"
    program = _VICTIM.format(call if private else "")
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        look = [sys.executable, "-c", _LOOK, str(victim.pid)]
        done = subprocess.run(look, capture_output=True, timeout=30)
        victim.kill()
    assert (done.returncode != 0) == private, done.stderr
    assert (b"PermissionError" in done.stderr) == private
