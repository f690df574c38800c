"""A test run that leaves a process behind fails, names it, and ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Starts a sleeper that nobody will wait for, adopted by init; notes its number.
ORPHAN = """
import os, subprocess, sys
MIDDLE = (
    "import subprocess; none = subprocess.DEVNULL; "
    "p = subprocess.Popen(['sleep', '100'], start_new_session=True, stdout=none, stderr=none); "
    "print(p.pid)"
)
def test_it(tmp_path):
    with open({note!r}, "wb") as note:
        command = [sys.executable, "-c", MIDDLE]
        subprocess.run(command, env={env}, cwd={cwd}, stdout=note, check=True)
"""


def run_pytest(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_one.py").write_text(source)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.leftovers",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [
            *command,
            "-c",
            os.devnull,
            f"--rootdir={folder}",
            f"--basetemp={folder / 'base'}",
            str(folder),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only /proc tells an orphan's")
@pytest.mark.parametrize(
    ("env", "cwd"),
    [("dict(os.environ)", "'/'"), ("{'PATH': os.environ['PATH']}", "tmp_path")],
    ids=["by its mark", "by its directory"],
)
def test_a_run_that_leaves_an_orphan_fails_names_it_and_ends_it(
    tmp_path: Path, env: str, cwd: str
) -> None:
    note = tmp_path / "pid"
    done = run_pytest(tmp_path, ORPHAN.format(env=env, cwd=cwd, note=str(note)))
    pid = int(note.read_text())
    assert "1 passed" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"{pid}: sleep 100" in done.stdout
    with pytest.raises(OSError, match="No such"):
        _ = Path(f"/proc/{pid}/cwd").readlink()


def test_a_run_that_leaves_nothing_passes(tmp_path: Path) -> None:
    source = "import subprocess\ndef test_it():\n    subprocess.run(['true'], check=True)\n"
    done = run_pytest(tmp_path, source)
    assert done.returncode == 0, done.stdout
    assert "left behind" not in done.stdout
