"""The newest part of a workspace's journal in memory, with what is open and being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from crush_trio import limits
from crush_trio.journal.entries import FeedEntry, event_entry
from crush_trio.protocol.ids import SessionId, WorkspaceId
from crush_trio.store.contract import StoredEvent

OPENED = "opened"
"""Kind of the ring's note that something is held from here on; it is never sent."""

Present = Callable[[], Sequence[FeedEntry]]
"""Gives the present state of an open thing; called in a reader's step, so it must not wait."""


@attrs.frozen
class Held:
    """An open thing: whose it is, and how to ask for its present state.

    Readers that came after event ``since`` may not have seen the event that made it; ``None``: no
    event made it.
    """

    session_ids: tuple[SessionId, ...]
    present: Present
    since: int | None


class Feed:
    """A bounded ring of encoded objects, shared by all readers of a workspace (G9).

    Every object has a *position*, counted from 0 and never used again. Readers keep their own
    position; the feed knows nothing of them but their number, and waits for none. When the ring
    is full the oldest objects go: who has not read them goes on from the store. Without a reader
    nothing is kept. Everything here is one synchronous step.

    Args:
        last_seq: The newest event that the store holds already.
    """

    def __init__(
        self,
        workspace_id: WorkspaceId,
        *,
        last_seq: int,
        max_entries: int = limits.FEED_ENTRIES,
        max_bytes: int = limits.FEED_BYTES,
    ) -> None:
        self.workspace_id = workspace_id
        self.last_seq = last_seq
        """The newest event that readers may see."""
        self.closed: str | None = None
        """Why there will be no more objects, once that is so."""
        self.start = 0
        """Position of the oldest object kept."""
        self.end = 0
        """Position that the next object will get."""
        self.held: dict[str, Held] = {}
        """What is open, by key, in the order in which it was opened."""
        self.readers = 0
        self._slots: list[FeedEntry | None] = [None] * max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._parked = trio.lowlevel.ParkingLot()

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Append committed events, in order; wakes waiting readers."""
        if not events:
            return
        if self.readers:
            for event in events:
                self._append(event_entry(event))
        self.last_seq = max(self.last_seq, events[-1].seq)
        self._parked.unpark_all()

    def transient(self, entry: FeedEntry) -> None:
        """Append something that is being written now; wakes waiting readers."""
        if self.readers:
            self._append(entry)
            if self._parked:  # most tokens come while the readers have others to send
                self._parked.unpark_all()

    def hold(
        self,
        key: str,
        session_ids: tuple[SessionId, ...],
        present: Present,
        *,
        since: int | None = None,
    ) -> None:
        """Open a thing whose state is more than the journal tells, until `release`.

        Who joins later is given ``present()``, and from there on the transient objects with this
        ``key``. To be called once the event that creates the thing is published, and before its
        first transient object. ``since`` is an event before that one: who has joined in between
        from now on (`JournalReader`) is given the state, too.
        """
        if key in self.held:
            raise ValueError(f"{key} is held already")
        self.held[key] = Held(session_ids, present, since)
        if self.readers and since is not None:
            self._append(FeedEntry(None, OPENED, session_ids, b"", key))

    def release(self, key: str) -> None:
        """End a `hold`; harmless if there is none.

        To be called in the step that queues the finishing commit. Later would be wrong: whoever
        joins between its event and the release would get an older state after the newer one.
        """
        self.held.pop(key, None)

    def close(self, reason: str) -> None:
        """No more objects come; readers get what is there and then the end."""
        if self.closed is None:
            self.closed = reason
            self._parked.unpark_all()

    def at(self, position: int) -> FeedEntry:
        """The object at a position from ``start`` to ``end - 1``."""
        assert self.start <= position < self.end
        entry = self._slots[position % len(self._slots)]
        assert entry is not None
        return entry

    def attach(self) -> None:
        """Count a reader in; from now on objects are kept."""
        self.readers += 1

    def detach(self) -> None:
        """Count a reader out; the last one leaves an empty ring."""
        self.readers -= 1
        if not self.readers:
            while self.start < self.end:
                self._drop_oldest()

    async def wait(self) -> None:
        """Wait for the next change. Look before waiting, without a checkpoint in between."""
        await self._parked.park()

    def _append(self, entry: FeedEntry) -> None:
        if self.end - self.start == len(self._slots):
            self._drop_oldest()
        self._slots[self.end % len(self._slots)] = entry
        self.end += 1
        self._bytes += len(entry.data)
        while self._bytes > self._max_bytes and self.start < self.end - 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        slot = self.start % len(self._slots)
        entry = self._slots[slot]
        assert entry is not None
        self._bytes -= len(entry.data)
        self._slots[slot] = None
        self.start += 1
