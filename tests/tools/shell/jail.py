"""The lines of the two corpora, and a workspace in which every trap of theirs is real."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MAYBE_MISSING = ("cal", "file", "rg", "tree")
"""Programs of the table that not every machine has; there something that does nothing is it."""

Trace = dict[str, tuple[int, int, bytes]]


def lines_of(name: str, section: str = "") -> list[str]:
    """The command lines of a corpus, or of those of its sections that are called so."""
    found = []
    title = ""
    for line in (HERE / name).read_text().split("\n"):
        title = line[3:] if line.startswith("## ") else title
        if section not in title:
            continue
        if line.startswith('"') and line.endswith('"') and len(line) > 1:
            found.append(_json_or_raw(line))
        elif line and not line.startswith("# ") and not line.startswith("##"):
            found.append(line)
    return found


def _json_or_raw(line: str) -> str:
    """A line in quotes is a JSON string where it is one; else it is a shell's own quotes."""
    try:
        text = json.loads(line)
    except ValueError:
        return line
    assert isinstance(text, str)
    return text


def build_jail(base: Path) -> Path:
    """A workspace below ``base`` with links that lead out, and programs that leave a trace.

    Whoever runs a ``canary`` makes the file ``base/sung``.
    """
    root = Path(os.path.realpath(base)) / "jail"
    (root / "sub").mkdir(parents=True)
    (root.parent / "outside.txt").write_text("secret\n")
    for name in ("a.txt", "b.txt", "with space.txt", "übung.md", "sub/inner.txt"):
        (root / name).write_text(f"one\ntwo {name}\nthree:3\n")
    (root / "link").symlink_to("/etc")
    (root / "filelink").symlink_to("/etc/passwd")
    (root / "inlink").symlink_to("a.txt")
    (root / "loop").symlink_to("loop")
    (root / "sub" / "uplink").symlink_to("../..")
    (root / "device").symlink_to("/dev/zero")
    (root / "auto").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    for name in ("canary", "ls", "cat", "rg", "git", "sub/find", "sub/head"):
        program = root / name
        program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin touch {root.parent}/sung\n")
        program.chmod(0o755)
    for name in MAYBE_MISSING:
        if shutil.which(name) is None:
            (root.parent / "bin").mkdir(exist_ok=True)
            (root.parent / "bin" / name).symlink_to("/bin/true")
    who = ["-c", "user.name=x", "-c", "user.email=x"]
    for arguments in (["init", "-qb", "main"], ["add", "a.txt", "b.txt"], ["commit", "-qm", "x"]):
        subprocess.run(["git", *who, *arguments], cwd=root, check=True, env=_environment(base))
    return root


def jail_path(root: Path) -> str:
    """A PATH on which the workspace's own programs come first."""
    return f"{root}:.:{root}/sub:{os.environ['PATH']}:{root.parent}/bin"


def trace_of(root: Path) -> Trace:
    """Everything in and around the workspace: mode, time of change and content of each file."""
    found: Trace = {}
    for path in sorted(root.parent.rglob("*")):
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        found[str(path)] = (state.st_mode, state.st_mtime_ns, content)
    return found


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
