"""What a command writes, in bounded memory: the head and the tail of each stream, decoded."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

from crush_trio.limits import TOOL_OUTPUT_LIVE_BYTES, TOOL_OUTPUT_MEMORY_BYTES


class HeadTail:
    """The first and the last half of ``limit_bytes`` of a stream; the middle is only counted."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.dropped = 0
        """Bytes left out so far."""
        self.dropped_lines = 0
        """Line ends among them."""

    def feed(self, data: bytes) -> None:
        """Take more of the stream, at most some 64 KiB at once."""
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
        while self._tail_bytes > self._half:
            self._drop(self._tail_bytes - self._half)

    def _drop(self, excess: int) -> None:
        first = self._tail.popleft()
        gone, kept = first[:excess], first[excess:]
        if kept:
            self._tail.appendleft(kept)
        self._tail_bytes -= len(gone)
        self.dropped += len(gone)
        self.dropped_lines += gone.count(b"\n")

    def text(self) -> str:
        """Head and tail as text, wrong bytes replaced; between them a line that counts the gap."""
        tail = b"".join(self._tail)
        if not self.dropped:
            return (bytes(self._head) + tail).decode("utf-8", "replace")
        # A character cut in two by the gap is left out on both sides, not shown as damage.
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        start = next((i for i, byte in enumerate(tail[:4]) if byte & 0xC0 != 0x80), 0)
        gap = f"\n... [{self.dropped} bytes dropped] ...\n"
        return head + gap + tail[start:].decode("utf-8", "replace")


class StreamCapture:
    """One stream of one command: kept in part, and shown live up to a bound.

    Args:
        name: ``stdout`` or ``stderr``.
        show: Takes ``(name, text)`` as it comes; never waits. Not called beyond
            `TOOL_OUTPUT_LIVE_BYTES` of this stream's bytes.
    """

    def __init__(self, name: str, show: Callable[[str, str], None]) -> None:
        self.name = name
        self.kept = HeadTail(TOOL_OUTPUT_MEMORY_BYTES)
        self.total = 0
        """Bytes fed so far."""
        self._show = show
        self._live_left = TOOL_OUTPUT_LIVE_BYTES // 2  # both streams share the call's bound
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Take more of the stream: keep it and show it."""
        self.total += len(data)
        self.kept.feed(data)
        shown = data[: self._live_left]
        self._live_left -= len(shown)
        if text := self._decoder.decode(shown):
            self._show(self.name, text)

    def finish(self) -> str:
        """The text that was kept, after the last byte; a cut-off character is shown as such."""
        if rest := self._decoder.decode(b"", final=True):
            self._show(self.name, rest)
        return self.kept.text()
