"""Goal 20: a thousand subscribers at 20 flushes a second, with and without one that stalls."""

from __future__ import annotations

import contextlib
import resource
from typing import Any

from figures import Figures
from life import stalled
from processes import Ours, Workshop

MS = 1e-6  # of a nanosecond
SUBSCRIBERS = 1_000
FILES = 4_096  # this process, the server and the subscribers: a socket each, and more
EVERY_MS = 50  # 20 flushes a second
HISTORY = 400_000  # characters of a message; three fill a socket whose peer does not read


class Crowd:
    """One server and one crowd; pairs of turns, the second of each beside a stalled subscriber."""

    def __init__(self, shop: Workshop, *, quick: bool) -> None:
        self.shop = shop
        self.subscribers = 200 if quick else SUBSCRIBERS
        self.pairs = 2 if quick else 5
        self.tokens = 40 if quick else 80
        self.done = False

    def round(self, figures: Figures) -> None:
        """All pairs, in the first round; the ratio is taken pair by pair."""
        if self.done:
            return
        self.done = True
        raise_file_limit()
        with (
            self.shop.using(self.shop.ours()) as server,
            contextlib.ExitStack() as subscribers,
        ):
            flood = self.shop.steps("history", [{"text": "x" * HISTORY}])
            session = server.session()
            for _ in range(3):
                server.wait(server.prompt(session, flood))
            sink = self.shop.sink(server.path, server.stream, self.subscribers)
            subscribers.enter_context(self.shop.using(sink))
            self._turn(server, sink)  # the first one pays for what all keep
            for _ in range(self.pairs):
                self._add(figures, "free", self._turn(server, sink))
                peer = stalled(server)
                self._add(figures, "stalled", self._turn(server, sink))
                peer.close()

    def _turn(self, server: Ours, sink: Any) -> dict[str, Any]:
        model = self.shop.script(
            "stamped-crowd", {"text": "word ", "tokens": self.tokens, "every_ms": EVERY_MS}
        )
        cpu = server.cpu_s()
        server.prompt(server.session(), model)
        turn: dict[str, Any] = sink.turn()
        turn["cores"] = (server.cpu_s() - cpu) / ((turn["end_ns"] - turn["first_ns"]) / 1e9)
        return turn

    def _add(self, figures: Figures, name: str, turn: dict[str, Any]) -> None:
        for share, lag in zip(("p50", "p95", "p99"), turn["lags"], strict=True):
            figures.add(f"crowd.{name}.{share}", lag * MS)
        figures.add(f"crowd.{name}.cores", turn["cores"])
        least_deltas, most_deltas = turn["deltas_each"]
        if most_deltas != self.tokens:
            raise RuntimeError(f"{most_deltas} deltas of {self.tokens} tokens")
        figures.add("crowd.gaps", self.tokens - least_deltas + turn["gaps"])


def raise_file_limit() -> None:
    """So that a thousand sockets fit; what is started afterwards inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
