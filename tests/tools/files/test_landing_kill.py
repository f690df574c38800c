"""A process that is killed while it writes a file leaves the old contents or the new ones (T40)."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from crush_trio.tools.files.text_file import read_text, replace_file

OLD, NEW = "old\n" * 20_000, "new\n" * 30_000
CHANGING = frozenset(
    {"open", "flush", "fchown", "fchmod", "setxattr", "fsync", "link", "rename", "unlink"}
)
LEFT = re.compile(r"\.a\.txt\.[0-9a-f]{16}\.tmp\Z")


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that kills itself right before the n-th system call that could change
    a file; whether there was one."""
    pid = os.fork()
    if pid == 0:  # nothing of the test may run on in the child
        left = call

        def count(_frame: FrameType, event: str, argument: Any) -> None:
            nonlocal left
            if event == "c_call" and argument.__name__ in CHANGING:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("exists", [True, False])
def test_killed_anywhere_a_write_has_happened_or_not(exists: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    call, seen = 0, set()
    while True:
        call += 1
        path.unlink(missing_ok=True)
        if exists:
            path.write_text(OLD)
            path.chmod(0o640)
        old = read_text(path)
        version = None if old is None else old.version
        was_killed = killed_at(call, lambda: replace_file(path, NEW, version))  # noqa: B023
        names = sorted(set(os.listdir(tmp_path)) - {"a.txt"})
        assert all(LEFT.fullmatch(name) for name in names), names
        assert len(names) <= 1
        for name in names:
            (tmp_path / name).unlink()
        found = path.read_text() if path.exists() else None
        assert found in (OLD if exists else None, NEW), f"torn at call {call}"
        if exists:
            assert path.stat().st_mode & 0o777 == 0o640
        seen.add(found)
        if not was_killed:
            break
    assert call > 6
    assert seen == {OLD if exists else None, NEW}
