"""What a background job writes, shown live in the job's name and no run's (contract 4)."""

from __future__ import annotations

import attrs
import orjson

from crush_trio.host.runs.live_output import LiveOutput
from crush_trio.journal import FeedEntry
from crush_trio.protocol.ids import MessageId


@attrs.define(eq=False)
class JobLive(LiveOutput):
    """As `LiveOutput`, with ``job_id`` in place of ``run_id``; opened when the job is announced.

    Until then what is written is only remembered: a frame that names a job comes after the event
    that creates it.
    """

    job_id: str = ""
    _announced: bool = attrs.field(default=False, init=False)

    def show(self, stream: str, text: str) -> None:
        """Show more output, or remember it."""
        if self._announced:
            super().show(stream, text)
        else:
            self.note(stream, text)

    def note(self, stream: str, text: str) -> str:
        """Remember output that counts against the bound; what fits of it."""
        raw = text.encode("utf-8", "replace")[: self.limit_bytes - self._bytes]
        text = raw.decode("utf-8", "ignore")
        if not text:
            return ""
        self._bytes += len(raw)
        self._shown.setdefault(stream, []).append(text)
        self._lengths[stream] = self._lengths.get(stream, 0) + len(text)
        return text

    def announce(self, *, again: bool) -> None:
        """From now on it is shown. ``again``: what was remembered has not been shown before."""
        if self._closed or self._announced:
            return
        self._announced = True
        if self._shown:
            self.feed.hold(self._key(), self.session_ids, self._present)
            for entry in self._present() if again else ():
                self.feed.transient(entry)

    def _key(self) -> MessageId:
        return MessageId(f"job:{self.job_id}")

    def _entry(self, stream: str, offset: int, text: str) -> FeedEntry:
        data = orjson.dumps(
            {
                "type": "tool_output",
                "tool_call_id": self.tool_call_id,
                "session_id": self.session_ids[0],
                "job_id": self.job_id,
                "stream": stream,
                "offset": offset,
                "text": text,
            }
        )
        return FeedEntry(None, "tool_output", self.session_ids, data, self._key())
