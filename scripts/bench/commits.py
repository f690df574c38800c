"""Goal 16: transactions of a turn, counted in SQLite's write-ahead log.

Each transaction that changes something ends with a frame whose header gives the size of the
database after it; all other frames have 0 there. So counting those frames counts transactions,
from outside and exactly, as long as the log is not begun again in between, which its salt tells.
"""

from __future__ import annotations

import struct
from pathlib import Path

from figures import Figures
from processes import Ours, Workshop

HEADER_BYTES = 32
FRAME_HEADER = struct.Struct(">IIII")  # page number, size after commit or 0, salt, salt


class LogBegunAgain(Exception):
    """The log was checkpointed and begun again between two looks."""


def transactions(log: Path) -> tuple[bytes, int]:
    """The log's salt, and how many transactions it holds."""
    data = log.read_bytes()
    salt = data[16:24]
    frame_bytes = int.from_bytes(data[8:12], "big") + 24
    count = 0
    for start in range(HEADER_BYTES, len(data) - frame_bytes + 1, frame_bytes):
        _, size, *_ = FRAME_HEADER.unpack_from(data, start)
        if data[start + 8 : start + 16] != salt:
            break  # left over from before the log was begun again
        count += size != 0
    return salt, count


class Commits:
    """A server of its own, on which nothing else happens."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.one = shop.script("commits-1", {"text": "word "})
        self.many = shop.script("commits-1000", {"text": "word ", "tokens": 1000})
        self.view = self._with_calls("view", {"file_path": "note"})
        self.ls = self._with_calls("ls", {"path": "."})

    def _with_calls(self, tool: str, given: dict[str, str]) -> str:
        step = [{"tool": tool, "input": given}]
        return self.shop.steps(f"commits-{tool}", step, step, [{"text": "done"}])

    def round(self, figures: Figures) -> None:
        """Transactions per turn: of one token, of a thousand, with two steps that call a tool.

        ``ls`` starts a process, ``view`` does not.
        """
        with self.shop.using(self.shop.ours()) as server:
            one = self._of(server, self.one)
            many = self._of(server, self.many)
            (server.data.parent / "ws" / "note").write_text("x")
            view = self._of(server, self.view)
            ls = self._of(server, self.ls)
        figures.add("commits.turn", one)
        figures.add("commits.per_token", (many - one) / 1000)
        figures.add("commits.per_view", (view - one) / 2)
        figures.add("commits.per_ls", (ls - one) / 2)

    def _of(self, server: Ours, model: str) -> float:
        turns = 5
        for _ in range(3):
            sessions = [server.session() for _ in range(turns)]
            log = server.data / "crush.db-wal"
            salt, before = transactions(log)
            for session in sessions:
                server.wait(server.prompt(session, model))
            salt_after, after = transactions(log)
            if salt == salt_after:
                return (after - before) / turns
        raise LogBegunAgain
