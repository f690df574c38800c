"""Following one run in a stream of frames: which frames are its own, and when it has ended."""

from __future__ import annotations

from typing import Any

from crush_trio.client.shapes import JsonObject, child, text

_CONNECTION = frozenset({"hello", "replayed", "bye"})


class RunWatch:
    """Looks at every frame; knows the run's record as far as the frames have told it.

    A run that was steered is followed into the run it joined, and so are runs that name one of
    ours as their parent (their frames are ours too, their ending is not).
    """

    def __init__(self, run_id: str) -> None:
        self.submitted = run_id
        self.current = run_id
        self._ours = {run_id}
        self._records: dict[str, JsonObject] = {}
        self._endings: dict[str, JsonObject] = {}
        self._cut: set[str] = set()

    @property
    def steered_into(self) -> str | None:
        """The run that the submitted one joined, or ``None``."""
        return None if self.current == self.submitted else self.current

    @property
    def record(self) -> JsonObject | None:
        """The record of the run that counts, once it has ended and both halves are known.

        ``None`` as well if its terminal event came without the whole answer (contract 4).
        """
        if self.current in self._cut:
            return None
        ending = self._endings.get(self.current)
        record = self._records.get(self.current)
        if ending is None or record is None:
            return None
        return {**record, **_from_ending(ending)}

    @property
    def ended(self) -> bool:
        """Whether the run that counts has had its terminal event."""
        return self.current in self._endings

    def is_ours(self, run_id: str) -> bool:
        """Whether a run is the one that was submitted, one it joined, or a sub-agent of theirs."""
        return run_id in self._ours

    def adopt(self, record: JsonObject) -> None:
        """Take a whole record from the server, as after a ``resync``."""
        run_id = text(record, "id")
        self._records[run_id] = record
        if record.get("state") == "finished":
            self._endings[run_id] = record
            self._cut.discard(run_id)
            self._follow_steering()

    def take(self, frame: JsonObject) -> bool:
        """Learn from ``frame``; whether it is one of ours and worth showing."""
        kind = frame.get("type")
        if kind in _CONNECTION:
            return False
        payload = child(child(frame, "payload"), "payload") if "payload" in frame else frame
        run_id = text(payload, "run_id")
        if kind == "run":
            run_id = text(payload, "id")
            if text(payload, "parent_run") in self._ours:
                self._ours.add(run_id)
            self._records[run_id] = payload
        elif kind == "run_complete":
            self._endings[run_id] = payload
            if "truncated" in frame:
                self._cut.add(run_id)
            shown = not run_id or run_id in self._ours
            self._follow_steering()
            return shown
        return not run_id or run_id in self._ours

    def _follow_steering(self) -> None:
        while self.current in self._endings:
            ending = self._endings[self.current]
            joined = text(ending, "steered_into")
            if ending.get("outcome") != "steered" or not joined or joined in self._ours:
                return
            self._ours.add(joined)
            self.current = joined


def _from_ending(ending: JsonObject) -> dict[str, Any]:
    """What a terminal event says better than the last record before it."""
    found: dict[str, Any] = {
        key: ending[key]
        for key in ("outcome", "text", "message_id", "usage", "processes")
        if key in ending
    }
    found["state"] = "finished"
    found.setdefault("text", "")
    found["error"] = ending.get("error_detail", ending.get("error"))
    if type(found["error"]) is not dict:
        found["error"] = None
    return found
