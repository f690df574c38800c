"""Goals 13 and 14: how long a start takes, of the command line and of the server."""

from __future__ import annotations

import subprocess
import sys
import time

from figures import Figures
from processes import OURS, Ours, Workshop, end_process, first_answer

PYTHON = sys.executable


class Starts:
    """Whole processes, from the spawn to the exit or to the first answer."""

    def __init__(self, shop: Workshop, ours: Ours, *, quick: bool) -> None:
        self.shop, self.ours = shop, ours
        self.times = 3 if quick else 6
        self.cold_times = 1 if quick else 2
        self.model = shop.script("start", {"text": "word "})

    def _seconds(self, *command: str) -> float:
        """From the spawn to the exit; waits in the kernel, as `run(timeout=)` would not."""
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=self.shop.env,
            cwd=self.shop.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            code = process.wait()
            took = time.perf_counter() - started
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
        if code:
            raise RuntimeError(f"{command} failed: {code}")
        return took

    def command_line(self, figures: Figures) -> None:
        """Goal 13; the commands take turns."""
        host = f"unix://{self.ours.path}"
        commands = {
            "cli.pass": (PYTHON, "-c", "pass"),
            "cli.trio": (PYTHON, "-c", "import trio, trio_websocket"),
            "cli.version": (OURS, "--version"),
            "cli.help": (OURS, "--help"),
            "cli.run": (OURS, "run", "--server", host, "-m", self.model, "go"),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(self.times):
            for name, command in commands.items():
                times[name].append(self._seconds(*command) * 1000)
        for name, values in times.items():
            figures.spread(name, values, 0.5)

    def server(self, figures: Figures) -> None:
        """Goal 14: start to first answer, and a ``run`` that starts its server."""
        floor = "import quart_trio, hypercorn.trio"
        imports, first, cold = [], [], []
        for _ in range(self.cold_times):
            imports.append(self._seconds(PYTHON, "-c", floor) * 1000)
            first.append(self._first_answer() * 1000)
            cold.append(self._cold_run() * 1000)
        figures.spread("start.imports", imports, 0.5)
        figures.spread("start.answer", first, 0.5)
        figures.spread("start.cold_run", cold, 0.5)

    def _first_answer(self) -> float:
        took, process = first_answer(self.shop.env, self.shop.fresh("start"))
        end_process(process)
        return took

    def _cold_run(self) -> float:
        data = str(self.shop.fresh("cold") / "data")
        try:
            return self._seconds(OURS, "run", "--data-dir", data, "-m", self.model, "go")
        finally:
            self._seconds(OURS, "stop", "--data-dir", data)
