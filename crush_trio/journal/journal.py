"""The feeds of all open workspaces, and the door through which the store publishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crush_trio.journal.feed import Feed
from crush_trio.protocol.ids import RunId, WorkspaceId
from crush_trio.store.contract import Store, StoredEvent


class Journal:
    """Gives committed events to the feed of their workspace; without a feed they stay stored.

    ``on_end`` is told of each run whose terminal event was committed; it must not wait or raise.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[RunId], None] | None = None
        self._feeds: dict[WorkspaceId, Feed] = {}
        self._published: dict[WorkspaceId, int] = {}

    def publish(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        """A `crush_trio.store.contract.Publish`."""
        self._published[workspace_id] = events[-1].seq
        feed = self._feeds.get(workspace_id)
        if feed is not None:
            feed.publish(events)
        if self.on_end is not None:
            for event in events:
                if event.kind == "run_complete" and event.run_id is not None:
                    self.on_end(event.run_id)

    def feed(self, workspace_id: WorkspaceId) -> Feed | None:
        """The feed of a workspace, if one is open."""
        return self._feeds.get(workspace_id)

    async def open(self, store: Store, workspace_id: WorkspaceId) -> Feed:
        """The feed of a workspace, made if there is none."""
        stored = 0
        if workspace_id not in self._feeds:
            stored = await store.last_seq(workspace_id)
        feed = self._feeds.get(workspace_id)
        if feed is None:
            # What was published while we waited may be newer than the answer; what the answer
            # names and is not published yet will come, and readers pass over it.
            newest = max(stored, self._published.get(workspace_id, 0))
            feed = self._feeds[workspace_id] = Feed(workspace_id, last_seq=newest)
        return feed

    def close(self, workspace_id: WorkspaceId, reason: str) -> None:
        """Close and forget a feed; harmless if there is none."""
        feed = self._feeds.pop(workspace_id, None)
        if feed is not None:
            feed.close(reason)
