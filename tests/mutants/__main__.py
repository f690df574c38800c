"""Tries mutants: copies the project, puts one bug in, and runs what must notice it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from tests.mutants.mutant import ROOT, Mutant, StaleMutant, read_mutants

TRIAL_S = 240.0
"""One test selection may take this long; a bug that makes it hang has been noticed."""
EXPLORE_SCHEDULES = 3000
"""Schedules per scenario; every mutant of the explorer's table is found well before."""
_COPIED = ("crush_trio", "tests", "scripts", "docs", "changes", "pyproject.toml", "README.md")
_PYTEST_FAILED = 1
_EXPLORE_FAILED = 1


@attrs.frozen
class Verdict:
    """What came of one mutant; ``by`` is what noticed it, ``None`` if nothing did."""

    mutant: Mutant
    by: str | None
    seconds: float
    note: str = ""


def main(arguments: Sequence[str]) -> int:
    """Try the mutants and print a table; 0 if each was noticed, 1 otherwise."""
    wanted = _parser().parse_args(arguments)
    mutants = [
        mutant
        for mutant in read_mutants()
        if not wanted.names or any(name in mutant.name for name in wanted.names)
    ]
    if not mutants:
        print("mutants: none has such a name", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(wanted.jobs) as pool:
        verdicts = []
        for verdict in pool.map(_try, mutants):
            print(_line(verdict), flush=True)
            verdicts.append(verdict)
    alive = [verdict for verdict in verdicts if verdict.by is None]
    print(f"{len(verdicts) - len(alive)} of {len(verdicts)} mutants were noticed")
    return 1 if alive else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description="Put known bugs into a copy of the code, one by one."
    )
    parser.add_argument("names", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    return parser


def _try(mutant: Mutant) -> Verdict:
    began = time.monotonic()

    def verdict(by: str | None, note: str = "") -> Verdict:
        return Verdict(mutant, by, time.monotonic() - began, note)

    with tempfile.TemporaryDirectory(prefix="crush-mutant-") as folder:
        copy = Path(folder)
        _copy_project(copy)
        target = copy / mutant.file
        try:
            target.write_text(mutant.applied_to(target.read_text("utf-8")), "utf-8")
        except StaleMutant as stale:
            return verdict(None, str(stale))
        notes = []
        for test in mutant.killed_by:
            noticed, note = _run(test, copy)
            if noticed:
                return verdict(test)
            notes.append(note)
    return verdict(None, "; ".join(notes))


def _copy_project(copy: Path) -> None:
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "node_modules")
            shutil.copytree(source, copy / name, ignore=ignore)
        elif source.exists():
            shutil.copy(source, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")


def _run(test: str, copy: Path) -> tuple[bool, str]:
    """Whether ``test`` fails in the copy, and if not, what it said."""
    if test.startswith("explore:"):
        scenario = test.removeprefix("explore:")
        argv = ["scripts/explore", "--scenario", scenario]
        argv += ["--schedules", str(EXPLORE_SCHEDULES), "--jobs", "1"]
        failed = _EXPLORE_FAILED
    else:
        argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
        failed = _PYTEST_FAILED
    # First on the path, also for the servers that a test starts: not the installed package.
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        argv,
        cwd=copy,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as trial:
        try:
            said, _ = trial.communicate(timeout=TRIAL_S)
        except subprocess.TimeoutExpired:
            os.killpg(trial.pid, signal.SIGKILL)  # with the servers it has started
            return True, ""
    if trial.returncode == failed:
        return True, ""
    if trial.returncode == 0:
        return False, f"{test} passed"
    return False, f"{test} could not be run: {' '.join(said.strip().splitlines()[-1:])}"


def _line(verdict: Verdict) -> str:
    state = "noticed" if verdict.by else "ALIVE  "
    by = verdict.by or verdict.note
    return f"{state} {verdict.seconds:6.1f} s  {verdict.mutant.name:44} {by}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
