"""Goal 22: what tools cost, from a prompt to the end of its run, beside the bare programs."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from typing import Any

from figures import Figures
from processes import Ours, Workshop
from trees import FILES, make_tree

SHELLS = 20
OUTPUT_MB = 256
FILE_MB = 5
ONE_LINE = "a line that stands in the middle of it, once\n"
WRITE = f"head -c {OUTPUT_MB}M /dev/zero | tr '\\0' x"
# What ripgrep and our own search do not read alike is left to ours.
PATTERNS = {"grep": "needle_[0-9]+", "grep_own": r"\x6eeedle_[0-9]+"}


class Tools:
    """One server, on a workspace with a tree of files."""

    def __init__(self, shop: Workshop, *, quick: bool) -> None:
        self.shop = shop
        self.server: Ours = shop.keep(shop.ours())
        self.root = self.server.data.parent / "ws"
        self.files = FILES // 10 if quick else FILES
        self.calls = 5 if quick else 20
        make_tree(self.root / "tree", self.files)
        self._scripts = 0

    def _run(self, *calls: dict[str, Any]) -> float:
        """Seconds of a run that makes these calls, one in each step."""
        self._scripts += 1
        steps = [[call] for call in calls]
        model = self.shop.steps(f"tools{self._scripts}", *steps, [{"text": "done"}])
        body = {"session_id": self.server.session(), "prompt": "go", "model": model}
        body |= {"permission_mode": "allow"}
        began = time.perf_counter()
        run = self.server.http.json("POST", f"{self.server.base}/agent", body)["run_id"]
        record = self.server.wait(str(run))
        took = time.perf_counter() - began
        if record["tool_calls"] != len(calls):
            raise RuntimeError(f"the calls were not made: {record}")
        return took

    def searches(self, figures: Figures) -> None:
        """`grep`, `glob` and `ls` on the whole tree; what is bare has just read it, too."""
        tree = str(self.root / "tree")
        bare = {
            "grep": ["grep", "-rn", "needle_", tree],
            "glob": ["find", tree, "-name", "*.ts"],
            "ls": ["ls", "-R", tree],
        }
        for name, command in bare.items():
            _bare(command)
            figures.add(f"bare.{name}_s", _bare(command))
        plain = self._run()
        for name, pattern in PATTERNS.items():
            call = {"tool": "grep", "input": {"pattern": pattern, "path": "tree"}}
            figures.add(f"tools.{name}_s", self._run(call) - plain)
        glob = {"tool": "glob", "input": {"pattern": "**/*.ts", "path": "tree"}}
        figures.add("tools.glob_s", self._run(glob) - plain)
        figures.add("tools.ls_s", self._run({"tool": "ls", "input": {"path": "tree"}}) - plain)

    def commands(self, figures: Figures) -> None:
        """One call of bash, many at once, and one that writes without end."""
        call = _bash("true")
        plain = statistics.median([self._run() * 1000 for _ in range(self.calls)])
        cpu = self.server.cpu_s()
        bash = statistics.median([self._run(call) * 1000 for _ in range(self.calls)])
        figures.add("tools.bash_over_ms", bash - plain)
        cpu = self.server.cpu_s() - cpu
        figures.add("tools.bash_cpu_ms", cpu * 1000 / self.calls)
        bare = [_bare(["/bin/sh", "-c", "true"]) * 1000 for _ in range(self.calls)]
        figures.add("bare.sh_ms", statistics.median(bare))
        figures.add("tools.shells_s", self._at_once(_bash("sleep 0.2")))
        figures.add("bare.shells_s", _bare_at_once(["/bin/sh", "-c", "sleep 0.2"]))
        figures.add("tools.output_mb_s", OUTPUT_MB / self._run(_bash(WRITE)))
        figures.add("bare.output_mb_s", OUTPUT_MB / _bare(["/bin/sh", "-c", WRITE]))

    def _at_once(self, call: dict[str, Any]) -> float:
        model = self.shop.steps("shells", [call], [{"text": "done"}])
        bodies = [
            {"session_id": self.server.session(), "prompt": "go", "model": model}
            | {"permission_mode": "allow"}
            for _ in range(SHELLS)
        ]
        began = time.perf_counter()
        path = f"{self.server.base}/agent"
        runs = [self.server.http.json("POST", path, body)["run_id"] for body in bodies]
        for run in runs:
            self.server.wait(str(run))
        return time.perf_counter() - began

    def edit(self, figures: Figures) -> None:
        """A line of a large file, after a look at it; beside reading and writing it."""
        file = self.root / "large.txt"
        half = "some text that is there often\n" * (FILE_MB * 2**20 // 60)
        file.write_text(half + ONE_LINE + half)
        view = {"tool": "view", "input": {"file_path": str(file)}}
        change = {"file_path": str(file), "old_string": ONE_LINE, "new_string": "another line\n"}
        before = self._run(view)
        took = self._run(view, {"tool": "edit", "input": change}) - before
        figures.add("tools.edit_ms", took * 1000)
        if "another line" not in file.read_text():
            raise RuntimeError("the file was not edited")
        began = time.perf_counter()
        text = file.read_text().replace("another line\n", ONE_LINE)
        with file.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        figures.add("bare.edit_ms", (time.perf_counter() - began) * 1000)


def _bash(command: str) -> dict[str, Any]:
    return {"tool": "bash", "input": {"command": command, "description": "measure"}}


def _bare(command: list[str]) -> float:
    began = time.perf_counter()
    # All of it is read, as we do; GNU grep looks no further when it writes to /dev/null.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 20):
            pass
    return time.perf_counter() - began


def _bare_at_once(command: list[str]) -> float:
    began = time.perf_counter()
    processes = [subprocess.Popen(command) for _ in range(SHELLS)]
    for process in processes:
        process.wait()
    return time.perf_counter() - began
