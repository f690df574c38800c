"""What lies between a provider's socket and a subscriber: delays, and tokens a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from figures import Figures
from processes import ANSWER_S, HERE, Ours, Process, Workshop

MS = 1e-6  # of a nanosecond
MANY = 20
BARE = ("socket", "httpx")
WARM_UP = "fast-10"


class Providers:
    """A provider, a server that asks it, and the bare loops that read the same answers."""

    def __init__(self, shop: Workshop, *, quick: bool) -> None:
        self.shop = shop
        self.paced = f"paced-{100 if quick else 300}-10"
        self.tokens = {1: 10_000 if quick else 20_000, MANY: 1_000 if quick else 2_000}
        command = [sys.executable, "-I", "-S", str(HERE / "chat_server.py")]
        self.provider = shop.keep(Process(command, shop.env))
        self.port = self.provider.line()
        self.env = shop.environment("provider")
        self._configure(Path(self.env["HOME"]) / ".config" / "crush-trio" / "config.json")
        self.ours: Ours = shop.keep(Ours(self.env, shop.fresh("ours")))

    def _configure(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        names = [self.paced, WARM_UP, *(f"fast-{count}" for count in self.tokens.values())]
        bench = {
            "type": "openai-compat",
            "base_url": f"http://127.0.0.1:{self.port}/v1",
            "api_key": "bench",
            "models": [{"id": name, "context_window": 10_000_000} for name in names],
        }
        path.write_text(json.dumps({"providers": {"bench": bench}}))

    def delays(self, figures: Figures) -> None:
        """From the write of a piece to its arrival at a subscriber, 100 pieces a second."""
        for how in BARE:
            found = self._bare(how, self.paced, 1)
            for share, lag in zip(("p50", "p95"), found["lags"], strict=True):
                figures.add(f"provider.{how}.{share}", lag * MS)
        turn = self._turn(self.paced, 1)
        for share, lag in zip(("p50", "p95"), turn["lags"][:2], strict=True):
            figures.add(f"provider.ours.{share}", lag * MS)

    def rates(self, figures: Figures, count: int) -> None:
        """Tokens a second of ``count`` answers at once, from the first to the last."""
        model, expected = f"fast-{self.tokens[count]}", self.tokens[count] * count
        for how in BARE:
            found = self._bare(how, model, count)
            if found["tokens"] != expected:
                raise RuntimeError(f"{how} read {found['tokens']} tokens of {expected}")
            seconds = (found["last_ns"] - found["first_ns"]) / 1e9
            figures.add(f"provider.{how}.rate.{count}", expected / seconds)
        turn = self._turn(model, count)
        seconds = (turn["end_ns"] - turn["first_ns"]) / 1e9
        figures.add(f"provider.ours.rate.{count}", expected / seconds)
        figures.add(f"provider.ours.us.{count}", turn["cpu_s"] / expected * 1e6)

    def _bare(self, how: str, model: str, count: int) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "bare_reader.py"), self.port, how, model, str(count)]
        done = subprocess.run(
            command, env=self.env, stdout=subprocess.PIPE, timeout=ANSWER_S, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _turn(self, model: str, count: int) -> dict[str, Any]:
        """What a subscriber saw of ``count`` runs at once, in sessions of their own."""
        sessions = [self.ours.session() for _ in range(count)]
        for session in sessions:  # asks for the session's title, and opens connections
            self.ours.wait(self.ours.prompt(session, f"bench/{WARM_UP}"))
        with self.shop.using(self.shop.sink(self.ours.path, self.ours.stream, 1, count)) as sink:
            cpu = self.ours.cpu_s()
            runs = [self.ours.prompt(session, f"bench/{model}") for session in sessions]
            turn: dict[str, Any] = sink.turn()
            turn["cpu_s"] = self.ours.cpu_s() - cpu
            for run in runs:
                self.ours.wait(run)
        if turn["gaps"]:
            raise RuntimeError("events were missed")
        return turn
