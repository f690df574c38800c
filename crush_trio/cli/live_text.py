"""The end of what a model is writing, for one line of a terminal (pure)."""

from __future__ import annotations

from crush_trio.cli.sanitize import for_terminal
from crush_trio.client.shapes import JsonObject, text

_KEPT_CHARS = 400
"""More than a terminal's line holds; what came before it is forgotten."""


class LiveText:
    """The newest words of the part that is being written: the answer, or a thought before it."""

    def __init__(self) -> None:
        self._tail = ""
        self._place: tuple[str, object] = ("", None)

    def take(self, frame: JsonObject) -> None:
        """Learn from a frame of the stream; what is not written text ends what was."""
        kind = frame.get("type")
        if kind == "message_delta" and frame.get("part") in ("text", "reasoning"):
            place = (text(frame, "message_id"), frame.get("index"))
            if place != self._place or frame.get("offset") == 0:
                self._place, self._tail = place, ""
            self._tail = (self._tail + text(frame, "text"))[-_KEPT_CHARS:]
        elif kind in ("message_delta", "message", "retry"):
            self._tail = ""

    def end(self, width: int) -> str:
        """Its last words on one harmless line of at most ``width`` characters, or nothing."""
        if width <= 0:
            return ""
        line = " ".join(for_terminal(self._tail).split())
        return line if len(line) <= width else "…" + line[len(line) - width + 1 :]
