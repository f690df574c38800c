"""Goals 1, 3, 4, 5 and 12: what one prompt costs, from its POST to its terminal event."""

from __future__ import annotations

import time
from typing import Any

from figures import Figures
from processes import Bare, Http, Ours, Sink, Workshop

MS = 1e-6  # of a nanosecond
ONE_TOKEN = {"text": "word ", "tokens": 1}
TURN = {"text": "word ", "tokens": 20, "every_ms": 2}
BODY = {"session_id": "abcdefghijklm", "prompt": "go", "model": "script//tmp/some/directory/m.json"}


class Turns:
    """One subscriber everywhere; each prompt waits for the end of the one before."""

    def __init__(self, shop: Workshop, bare: Bare, ours: Ours, *, quick: bool) -> None:
        self.accepts, self.histories, self.per_history = (40, 2, 5) if quick else (120, 4, 6)
        self.bare, self.ours = bare, ours
        self.bare_http = Http(bare.path)
        self.bare_sink: Sink = shop.keep(shop.sink(bare.path, "/ws?mode=each"))
        self.sink: Sink = shop.keep(shop.sink(ours.path, ours.stream))
        self.one_token = shop.script("stamped-one", ONE_TOKEN)
        self.turn = shop.script("stamped-turn", TURN)
        self.short = shop.script("short", ONE_TOKEN)
        self._warm_up()

    def _warm_up(self) -> None:
        for _ in range(5):
            self.bare_http.call("POST", "/accept", BODY)
            self.bare_sink.turn()
            self._prompt(self.ours.session(), self.one_token)

    def _prompt(self, session: str, model: str) -> tuple[int, int, dict[str, Any]]:
        """When it was sent, when it was answered, and what the subscriber saw."""
        body = {"session_id": session, "prompt": "go", "model": model}
        path = f"{self.ours.base}/agent"
        sent = time.monotonic_ns()
        status, answer = self.ours.http.call("POST", path, body)
        answered = time.monotonic_ns()
        if status != 202:
            raise RuntimeError(f"the prompt was refused: {answer!r}")
        return sent, answered, self.sink.turn()

    def accept(self, figures: Figures) -> None:
        """Goal 1 and 12: fresh sessions, one token."""
        times = []
        cpu = self.bare.cpu_s()
        for _ in range(self.accepts):
            sent = time.monotonic_ns()
            self.bare_http.call("POST", "/accept", BODY)
            times.append((time.monotonic_ns() - sent) * MS)
            self.bare_sink.turn()
        figures.add("bare.cpu_ms", (self.bare.cpu_s() - cpu) * 1000 / self.accepts)
        figures.spread("bare.accept", times, 0.5, 0.95)

        sessions = [self.ours.session() for _ in range(self.accepts)]
        times, whole = [], []
        cpu = self.ours.cpu_s()
        for session in sessions:
            sent, answered, turn = self._prompt(session, self.one_token)
            times.append((answered - sent) * MS)
            whole.append((turn["end_ns"] - sent) * MS)
        figures.add("ours.cpu_ms", (self.ours.cpu_s() - cpu) * 1000 / self.accepts)
        figures.spread("ours.accept", times, 0.5, 0.95)
        figures.spread("ours.whole", whole, 0.5, 0.95)

    def steps(self, figures: Figures) -> None:
        """Goals 3, 4 and 5: sessions of 20 messages and more, every tool, 20 tokens."""
        asked, first, end = [], [], []
        for _ in range(self.histories):
            session = self.ours.session()
            for _ in range(10):
                self._prompt(session, self.short)
            for _ in range(self.per_history):
                sent, _, turn = self._prompt(session, self.turn)
                asked.append((turn["first_stamp"] - sent) * MS)
                first.append(turn["first_lag"] * MS)
                end.append((turn["end_ns"] - turn["last_stamp"]) * MS)
        figures.spread("ours.asked", asked, 0.5, 0.95)
        figures.spread("ours.first", first, 0.5, 0.95)
        figures.spread("ours.end", end, 0.5, 0.95)
