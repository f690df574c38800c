"""The store in memory with a disk of its own pace: each commit is written, then told, at any time.

As with the real store, a commit is durable before anybody hears of it, reads may be late, and the
process may die after each commit: `Disk.states` keeps what would be found then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import trio

from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import (
    Commit,
    Committed,
    EventPage,
    Publish,
    RunRow,
    Selection,
    StoredEvent,
    Ticket,
    WorkspaceRow,
)
from crush_trio.store.memory import MemoryStore
from crush_trio.store.memory_rows import Tables
from crush_trio.store.ticket import PendingCommit
from tests.explore.isolation import wall_ms

T = TypeVar("T")


def copied(tables: Tables) -> Tables:
    """The committed state, apart from the original from now on; rows never change."""
    made = Tables()
    for name, table in vars(tables).items():
        if name != "undo":
            getattr(made, name).rows = dict(table.rows)
    return made


@attrs.frozen
class State:
    """What a kill would leave: the tables after a commit, and how much had been told before the
    next one."""

    tables: Tables
    told: int


class Disk(MemoryStore):
    """A `MemoryStore` whose commits are applied by a task, one by one.

    Args:
        draw: Decides what the disk is free to do (see `Choices.draw`).
        told: How many facts were told to somebody outside by now.
        keep: Whether a state is kept after each commit.
    """

    def __init__(
        self,
        *,
        publish: Publish,
        draw: Callable[[int], int] = lambda n: 0,
        told: Callable[[], int] = lambda: 0,
        tables: Tables | None = None,
        keep: bool = False,
    ) -> None:
        self._fresh: list[tuple[WorkspaceId, Sequence[StoredEvent]]] = []
        super().__init__(publish=self._note, now_ms=wall_ms)
        if tables is not None:
            self._tables = copied(tables)
        self.show = publish
        self.failing: dict[int, StoreError] = {}
        """Which commit fails, by its number from 0, and with what."""
        self.applied = 0
        """Commits tried so far."""
        self.states: list[State] = []
        self.on_commit: Callable[[Tables], None] = lambda tables: None
        self.sealed = False
        """Set when the host is gone: from now on a commit is a violation."""
        self.late: list[str] = []
        self._draw = draw
        self._told = told
        self._keep = keep
        self._wake = trio.lowlevel.ParkingLot()
        self._rest = trio.lowlevel.ParkingLot()
        self._held = False
        self._writing = False

    @property
    def tables(self) -> Tables:
        """What is durable now."""
        return self._tables

    def _note(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        self._fresh.append((workspace_id, events))

    # --- writing --------------------------------------------------------------------------

    def commit_nowait(
        self, workspace_id: WorkspaceId, commit: Commit[T], *, relaxed: bool = False
    ) -> Ticket[T]:
        """See `crush_trio.store.contract.Store.commit_nowait`."""
        if self.sealed:
            self.late.append("a commit was queued after the host had gone")
        self.check_room()
        pending = PendingCommit(workspace_id, commit, relaxed)
        self._queue.append(pending)
        self._wake.unpark()
        return pending

    def pause(self) -> None:
        """Hold the disk: what is queued stays queued."""
        self._held = True

    def resume(self) -> None:
        """Let the disk go on."""
        self._held = False
        self._wake.unpark()

    async def write(self) -> None:
        """The disk: applies what is queued until it is cancelled."""
        while True:
            while self._held or not self._queue:
                await self._wake.park()
            self._writing = True
            await trio.lowlevel.checkpoint()
            group: list[tuple[PendingCommit[Any], Committed[Any] | Exception]] = []
            size = 1 + self._draw(2) * len(self._queue)  # one, or all that wait
            while self._queue and len(group) < size:
                group.append(self._apply_next())
            events, self._fresh = self._fresh, []
            await trio.lowlevel.checkpoint()  # durable, and nobody knows
            for workspace_id, published in events:
                self.show(workspace_id, published)
            for commit, result in group:
                if isinstance(result, Committed):
                    commit.resolve(result)
                else:
                    commit.fail(result)
            self._writing = False
            self._rest.unpark_all()

    async def written(self) -> None:
        """Wait until nothing is queued, as a store does before it closes."""
        self.resume()
        while self._queue or self._writing:
            await self._rest.park()

    def _apply_next(self) -> tuple[PendingCommit[Any], Committed[Any] | Exception]:
        commit = self._queue.popleft()
        if self.states:  # what was told since then was told on the ground of that state
            self.states[-1] = attrs.evolve(self.states[-1], told=self._told())
        error = self.failing.get(self.applied)
        self.applied += 1
        if error is not None:
            self.fail_next(error)
        result = self._apply(commit)
        if isinstance(result, Committed):
            self.on_commit(self._tables)
            if self._keep:
                self.states.append(State(copied(self._tables), self._told()))
        return commit, result

    def last_told(self) -> None:
        """The schedule is over: everything told counts for the last state."""
        if self.states:
            self.states[-1] = attrs.evolve(self.states[-1], told=self._told())

    # --- reading: asked, read, answered at three moments ----------------------------------

    async def workspaces(self) -> tuple[WorkspaceRow, ...]:
        """See `crush_trio.store.contract.Store.workspaces`."""
        return await _late(await super().workspaces())

    async def session(self, session_id: SessionId) -> tuple[WorkspaceId, Session] | None:
        """See `crush_trio.store.contract.Store.session`."""
        return await _late(await super().session(session_id))

    async def messages(
        self, session_id: SessionId, *, limit: int | None = None, before: MessageId | None = None
    ) -> tuple[Message, ...]:
        """See `crush_trio.store.contract.Store.messages`."""
        return await _late(await super().messages(session_id, limit=limit, before=before))

    async def run(self, run_id: RunId) -> RunRow | None:
        """See `crush_trio.store.contract.Store.run`."""
        return await _late(await super().run(run_id))

    async def open_runs(self) -> tuple[RunRow, ...]:
        """See `crush_trio.store.contract.Store.open_runs`."""
        return await _late(await super().open_runs())

    async def reads(self, session_id: SessionId) -> dict[str, int]:
        """See `crush_trio.store.contract.Store.reads`."""
        return await _late(await super().reads(session_id))

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """See `crush_trio.store.contract.Store.last_seq`."""
        return await _late(await super().last_seq(workspace_id))

    async def events(
        self, workspace_id: WorkspaceId, *, after: int, upto: int, selection: Selection, limit: int
    ) -> EventPage:
        """See `crush_trio.store.contract.Store.events`."""
        page = await super().events(
            workspace_id, after=after, upto=upto, selection=selection, limit=limit
        )
        return await _late(page)


async def _late(value: T) -> T:
    await trio.lowlevel.checkpoint()
    return value
