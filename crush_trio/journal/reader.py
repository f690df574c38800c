"""One subscriber's way through the journal: from the table, from the ring, and what is open."""

from __future__ import annotations

import math
from collections import deque
from types import TracebackType
from typing import Literal

import trio

from crush_trio import limits
from crush_trio.journal.entries import FeedEntry, control_entry, event_entry
from crush_trio.journal.feed import OPENED, Feed
from crush_trio.protocol.events import Replayed, Resync
from crush_trio.store.contract import EventPage, Selection, Store

Detail = Literal["delta", "snapshot"]


class JournalReader:
    """Everything selected after a cursor, in order, none twice; then what happens (G8).

    It replays from the store, then gives the present state of everything open, then `replayed`,
    then what the feed has. Whenever the ring has moved past it, it does the same again, without
    `replayed`. A cursor that cannot be served gives one `resync`, and what comes after it.

    It holds no more than one frame and one page of events, however slow its subscriber is. All
    decisions are made in plain functions on the feed as it is; only `next_batch` waits.

    Args:
        cursor: Events after this one are wanted; ``None`` means from now on, 0 from the start.
        detail: ``delta`` passes on what is being written; ``snapshot`` gives the present state of
            open messages instead, at most every `limits.SNAPSHOT_INTERVAL_S`.
        epoch: The numbering the cursor belongs to, if the subscriber knows it.
        tag: Whether control objects name the workspace.
    """

    def __init__(
        self,
        store: Store,
        feed: Feed,
        *,
        cursor: int | None,
        selection: Selection | None = None,
        detail: Detail = "delta",
        epoch: str | None = None,
        tag: bool = False,
    ) -> None:
        self._store = store
        self._feed = feed
        self._selection = selection or Selection()
        self._snapshots = detail == "snapshot"
        self._tag = feed.workspace_id if tag else None
        self._cursor = feed.last_seq if cursor is None else cursor
        self._joined_at = self._cursor  # events up to here were never shown
        self._position = feed.end
        self._replay_upto: int | None = None  # set while events come from the store
        self._page: deque[FeedEntry] = deque()
        self._scanned = 0
        self._first: deque[FeedEntry] = deque()  # decided already, goes out before all else
        self._joining = True  # deltas are passed over until the present state was taken
        self._stale: dict[str, None] = {}  # held keys whose present state must come next
        self._state_at = -math.inf  # trio time from which present states may be sent
        self._announced = False  # `replayed` has been sent
        self._attached = True
        feed.attach()
        if epoch and epoch != store.epoch:
            self._resync("epoch")
        elif self._cursor > feed.last_seq:
            self._resync("cursor_ahead")
        else:
            self._replay()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the feed keeps nothing for this reader any more."""
        if self._attached:
            self._attached = False
            self._feed.detach()

    @property
    def progress(self) -> int:
        """Everything selected up to this event has been returned."""
        return self._cursor

    async def next_frame(self, deadline_s: float = math.inf) -> bytes | None:
        """What is ready, as one JSON array of at most `limits.FRAME_JOIN_BYTES`.

        A single larger object travels alone. Waits at most ``deadline_s`` seconds for something.

        Returns:
            Empty bytes if nothing came in time; ``None`` when the feed is closed and everything
            has been returned.
        """
        batch = await self.next_batch(deadline_s)
        if not batch:
            return None if batch is None else b""
        return b"[%b]" % b",".join([entry.data for entry in batch])

    async def next_batch(self, deadline_s: float = math.inf) -> tuple[FeedEntry, ...] | None:
        """The objects of `next_frame`, one by one; an empty tuple if nothing came in time.

        Being cancelled loses nothing.
        """
        deadline = trio.current_time() + deadline_s
        # Before anything is decided, so that a cancellation takes nothing with it.
        await trio.lowlevel.checkpoint()
        while True:
            now = trio.current_time()
            batch = self._collect(now)
            if batch:
                return tuple(batch)
            if self._replay_upto is not None:
                await self._read_page(self._replay_upto)
            elif self._feed.closed is not None:
                return None
            elif now >= deadline:
                return ()
            else:
                # No checkpoint since the look at the feed, so no wake-up is missed.
                with trio.move_on_at(min(deadline, self._state_at if self._stale else math.inf)):
                    await self._feed.wait()

    async def _read_page(self, upto: int) -> None:
        page = await self._store.events(
            self._feed.workspace_id,
            after=self._cursor,
            upto=upto,
            selection=self._selection,
            limit=limits.EVENT_PAGE,
        )
        self._take_page(page)

    # --- decisions ----------------------------------------------------------------------------

    def _replay(self) -> None:
        """Go on from the store up to what is published now, then from the ring."""
        self._position = self._feed.end
        self._joining = True
        self._stale.clear()
        behind = self._cursor < self._feed.last_seq
        self._replay_upto = self._feed.last_seq if behind else None

    def _resync(self, reason: str) -> None:
        """Skip to what is published now, and say so."""
        self._cursor = self._joined_at = self._feed.last_seq
        self._page.clear()
        self._replay()
        frame = Resync(reason, self._cursor, self._store.epoch, self._tag)
        self._first.append(control_entry(frame))

    def _take_page(self, page: EventPage) -> None:
        if self._cursor < page.oldest - 1:
            self._resync("too_old")
            return
        self._page.extend(event_entry(event) for event in page.events)
        self._scanned = page.scanned

    def _collect(self, now: float) -> list[FeedEntry]:
        """What goes out now; empty if something must be waited for."""
        batch = _Batch()
        if not batch.take_from(self._first) or not self._collect_page(batch):
            return batch.entries
        if self._position < self._feed.start:
            self._replay()
            if self._replay_upto is not None:
                return batch.entries
        if self._collect_ring(batch):
            self._collect_states(batch, now)
        return batch.entries

    def _collect_page(self, batch: _Batch) -> bool:
        """Take events read from the store; whether the replay is over."""
        while self._page and batch.offer(self._page[0]):
            self._advance(self._page.popleft())
        if self._page:
            return False
        if self._replay_upto is None:
            return True
        self._cursor = max(self._cursor, self._scanned)
        if self._cursor < self._replay_upto:
            return False
        self._replay_upto = None
        return True

    def _collect_ring(self, batch: _Batch) -> bool:
        """Take what the ring has; whether its end was reached. Runs per object and subscriber."""
        feed, passes, offer = self._feed, self._passes, batch.offer
        while self._position < feed.end:
            entry = feed.at(self._position)
            if passes(entry) and not offer(entry):
                return False
            self._position += 1
            if entry.seq is not None:
                self._advance(entry)
        return True

    def _passes(self, entry: FeedEntry) -> bool:
        """Whether an object of the ring goes out as it is."""
        if entry.kind is OPENED:
            self._show_if_unseen(entry)
            return False
        if entry.seq is not None and entry.seq <= self._cursor:
            return False  # came from the store already
        if not self._selection.selects(entry.kind, entry.session_ids):
            return False
        if entry.seq is not None:
            return True
        if self._joining or entry.key in self._stale:
            return False  # part of the present state that comes next
        if self._snapshots and entry.key is not None and entry.kind != "tool_output":
            self._stale[entry.key] = None
            return False
        return True

    def _show_if_unseen(self, opened: FeedEntry) -> None:
        """Who joined between a thing's event and its `hold` is given its state, before deltas."""
        key = opened.key or ""
        held = self._feed.held.get(key)
        if held is not None and held.since is not None and held.since < self._joined_at:
            self._stale[key] = None

    def _collect_states(self, batch: _Batch, now: float) -> None:
        """At the ring's end: take the present state of what needs it.

        The states and the position belong together: deltas after the position continue them.
        """
        if self._joining:
            self._joining = False
            self._stale = dict.fromkeys(self._feed.held)
            self._state_at = now
        if self._stale and (now >= self._state_at or self._feed.closed is not None):
            for key in tuple(self._stale):
                if batch.is_full():
                    return
                del self._stale[key]
                self._first.extend(self._present(key))
                if not batch.take_from(self._first):
                    return
            if self._snapshots:
                self._state_at = now + limits.SNAPSHOT_INTERVAL_S
        if not self._announced and not self._stale:
            self._announced = True
            self._first.append(control_entry(Replayed(self._cursor, self._tag)))
            batch.take_from(self._first)

    def _present(self, key: str) -> list[FeedEntry]:
        held = self._feed.held.get(key)
        if held is None:
            return []  # finished meanwhile: its last event says everything
        selects = self._selection.selects
        return [entry for entry in held.present() if selects(entry.kind, entry.session_ids)]

    def _advance(self, entry: FeedEntry) -> None:
        if entry.seq is not None:
            self._cursor = max(self._cursor, entry.seq)


class _Batch:
    """Objects that travel in one frame."""

    def __init__(self) -> None:
        self.entries: list[FeedEntry] = []
        self._size = 2  # the brackets; an object counts with its comma

    def offer(self, entry: FeedEntry) -> bool:
        """Put an object in if it fits; a first one always does."""
        size = self._size + len(entry.data)
        if size >= limits.FRAME_JOIN_BYTES and self.entries:
            return False
        self.entries.append(entry)
        self._size = size + 1
        return True

    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return self._size >= limits.FRAME_JOIN_BYTES

    def take_from(self, waiting: deque[FeedEntry]) -> bool:
        """Move objects over as long as they fit; whether all did."""
        while waiting and self.offer(waiting[0]):
            waiting.popleft()
        return not waiting
