"""Goal 15: resident memory of a server that has nothing to do, and of what it keeps."""

from __future__ import annotations

from figures import Figures
from processes import Http, Ours, Workshop

SOCKETS = 200


class Memory:
    """A new server each time, beside the plain stack."""

    def __init__(self, shop: Workshop, *, quick: bool) -> None:
        self.shop = shop
        self.sessions = 200 if quick else 1000
        self.model = shop.script("memory", {"text": "word "})

    def round(self, figures: Figures) -> None:
        """Idle, with subscribers, with sessions, and after their runs; in MB and kB."""
        with self.shop.using(self.shop.bare("--plain")) as plain:
            http = Http(plain.path)
            http.call("GET", "/healthz")
            figures.add("memory.plain_mb", plain.rss_kb() / 1024)
            http.close()
        with self.shop.using(self.shop.bare()) as bare:
            idle = bare.rss_kb()
            with self.shop.using(self.shop.sink(bare.path, "/ws?mode=each", SOCKETS)):
                figures.add("memory.bare_socket_kb", (bare.rss_kb() - idle) / SOCKETS)
        with self.shop.using(self.shop.ours()) as server:
            self._ours(server, figures)

    def _ours(self, server: Ours, figures: Figures) -> None:
        idle = server.rss_kb()
        figures.add("memory.idle_mb", idle / 1024)
        server.wait(server.prompt(server.session(), self.model))
        warm = server.rss_kb()
        figures.add("memory.first_turn_mb", (warm - idle) / 1024)
        before = server.rss_kb()
        sessions = [server.session() for _ in range(self.sessions)]
        figures.add("memory.session_kb", (server.rss_kb() - before) / self.sessions)
        for session in sessions:
            server.wait(server.prompt(session, self.model))
        figures.add("memory.finished_mb", (server.rss_kb() - idle) / 1024)
        figures.add("memory.finished_warm_mb", (server.rss_kb() - warm) / 1024)
        before = server.rss_kb()
        with self.shop.using(self.shop.sink(server.path, server.stream, SOCKETS)):
            figures.add("memory.socket_kb", (server.rss_kb() - before) / SOCKETS)
