"""What a tool call or a command writes while it runs, shown to subscribers up to a bound."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import orjson

from crush_trio import limits
from crush_trio.journal import Feed, FeedEntry
from crush_trio.protocol.ids import MessageId, RunId, SessionId


def pieces(text: str) -> list[tuple[int, str]]:
    """Parts of ``text`` that each fit into one frame however they are escaped, with their offsets.

    What is transient is never cut: it has no other place where a client could read the rest.
    """
    step = limits.DELTA_CHARS
    return [(at, text[at : at + step]) for at in range(0, len(text), step)]


@attrs.define(eq=False)
class LiveOutput:
    """Shows what one tool call writes while it runs, up to a bound (contract 4)."""

    feed: Feed
    session_ids: tuple[SessionId, ...]
    run_id: RunId
    tool_call_id: str
    limit_bytes: int
    _shown: dict[str, list[str]] = attrs.field(factory=dict, init=False)
    _lengths: dict[str, int] = attrs.field(factory=dict, init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def show(self, stream: str, text: str) -> None:
        """Show more output; beyond the bound nothing more is shown, the result has it."""
        raw = text.encode("utf-8", "replace")[: self.limit_bytes - self._bytes]
        text = raw.decode("utf-8", "ignore")  # a character that was cut in two is left out
        if self._closed or not text:
            return
        if not self._shown:
            self.feed.hold(self._key(), self.session_ids, self._present)
        self._bytes += len(raw)
        offset = self._lengths.get(stream, 0)
        self._shown.setdefault(stream, []).append(text)
        self._lengths[stream] = offset + len(text)
        for at, piece in pieces(text):
            self.feed.transient(self._entry(stream, offset + at, piece))

    def close(self) -> None:
        """The call has ended; its result follows. What still comes is not shown."""
        self._closed = True
        self.feed.release(self._key())
        self._shown.clear()  # a run has many calls, and a job is kept for hours

    def _key(self) -> MessageId:
        # Models number their calls: two sessions of a workspace may have the same id at once.
        return MessageId(f"call:{self.run_id}:{self.tool_call_id}")

    def _present(self) -> Sequence[FeedEntry]:
        return [
            self._entry(stream, at, piece)
            for stream, shown in self._shown.items()
            for at, piece in pieces("".join(shown))
        ]

    def _entry(self, stream: str, offset: int, text: str) -> FeedEntry:
        data = orjson.dumps(
            {
                "type": "tool_output",
                "tool_call_id": self.tool_call_id,
                "session_id": self.session_ids[0],
                "run_id": self.run_id,
                "stream": stream,
                "offset": offset,
                "text": text,
            }
        )
        return FeedEntry(None, "tool_output", self.session_ids, data, self._key())
