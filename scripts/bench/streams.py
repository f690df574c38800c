"""Goals 4 and 6 to 9: tokens on their way to one and to a hundred subscribers."""

from __future__ import annotations

from typing import Any

from figures import Figures
from processes import Bare, Http, Ours, Workshop

MS = 1e-6  # of a nanosecond
MANY = 100
TOKEN = "fourteen bytes"


class Streams:
    """Subscribers are connected for the measurement and gone after it."""

    def __init__(self, shop: Workshop, bare: Bare, ours: Ours, *, quick: bool) -> None:
        self.shop, self.bare, self.ours = shop, bare, ours
        self.bare_http = Http(bare.path)
        self.single: Ours = shop.keep(shop.ours("--join-bytes", "1"))
        self.paced_tokens = 100 if quick else 200
        self.fast_turns = 2 if quick else 5
        self.fan_turns = 1 if quick else 2
        self.each_tokens = 60 if quick else 150

    def _play(self, sink: Any, tokens: int, every_ms: float = 0) -> dict[str, Any]:
        self.bare_http.call("POST", "/play", {"tokens": tokens, "every_ms": every_ms})
        turn: dict[str, Any] = sink.turn()
        return turn

    def _prompt(self, server: Ours, sink: Any, **text: Any) -> dict[str, Any]:
        name = "stamped" if text.get("every_ms") else "fast"
        model = self.shop.script(f"{name}-{text['tokens']}", {"text": TOKEN, **text})
        server.prompt(server.session(), model)
        turn: dict[str, Any] = sink.turn()
        return turn

    def _connected(self, server: Bare | Ours, count: int, mode: str = "join") -> Any:
        target = server.stream if isinstance(server, Ours) else f"/ws?mode={mode}"
        return self.shop.using(self.shop.sink(server.path, target, count))

    # --- as fast as it goes ---------------------------------------------------------------

    def full_speed(self, figures: Figures, count: int) -> None:
        """Goals 6 and 7: 1,000 tokens to ``count`` subscribers, tokens a second."""
        turns = self.fast_turns if count == 1 else self.fan_turns
        for name, server in (("bare", self.bare), ("ours", self.ours)):
            rates = []
            with self._connected(server, count) as sink:
                for _ in range(turns):
                    if server is self.bare:
                        turn = self._play(sink, 1000)
                    else:
                        turn = self._prompt(self.ours, sink, tokens=1000)
                        if turn["frames"] > turn["deltas"] + turn["events"]:
                            raise RuntimeError("more frames than events")
                        figures.add(f"joined.{count}", turn["deltas"] / turn["frames"])
                    rates.append(1000 / (turn["end_ns"] - turn["first_ns"]) * 1e9)
            figures.spread(f"{name}.rate.{count}", rates, 0.5)

    def one_by_one(self, figures: Figures) -> None:
        """Goal 7: one frame per event against a bare ``websocket.send``, deliveries a second."""
        tokens = self.each_tokens
        for name, server in (("bare", self.bare), ("ours", self.single)):
            with self._connected(server, MANY, "each") as sink:
                if server is self.bare:
                    turn = self._play(sink, tokens)
                else:
                    turn = self._prompt(self.single, sink, tokens=tokens)
            frames = turn["deltas"]
            figures.add(f"{name}.each", frames / (turn["end_ns"] - turn["first_ns"]) * 1e9)

    # --- at the pace of a model -----------------------------------------------------------

    def paced(self, figures: Figures, count: int) -> None:
        """Goals 4 and 8: 100 tokens a second; delays from writing to arrival, CPU share."""
        tokens = self.paced_tokens
        for name, server in (("bare", self.bare), ("ours", self.ours)):
            with self._connected(server, count, "each") as sink:
                cpu = server.cpu_s()
                if server is self.bare:
                    turn = self._play(sink, tokens, 10)
                else:
                    turn = self._prompt(self.ours, sink, tokens=tokens, every_ms=10)
                seconds = (turn["end_ns"] - turn["first_ns"]) / 1e9
                figures.add(f"{name}.paced.{count}.cores", (server.cpu_s() - cpu) / seconds)
            for share, lag in zip(("p50", "p95", "p99"), turn["lags"], strict=True):
                figures.add(f"{name}.paced.{count}.{share}", lag * MS)

    # --- bytes ----------------------------------------------------------------------------

    def size(self, figures: Figures) -> None:
        """Goal 9: what a token costs on the wire, and that it always costs the same."""
        with self._connected(self.ours, 1) as sink:
            once = self._prompt(self.ours, sink, tokens=1000)
            twice = self._prompt(self.ours, sink, tokens=2000)
        figures.add("envelope", max(once["envelopes"] + twice["envelopes"]))
        figures.add("bytes_per_token", (twice["bytes"] - once["bytes"]) / 1000)
        figures.add("linear", twice["bytes"] / once["bytes"])
        figures.add("frames_per_event", once["frames"] / (once["deltas"] + once["events"]))
