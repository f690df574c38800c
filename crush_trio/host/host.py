"""All workspaces of a server: known ones, open ones, and the runs that are open in them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.host import recovery
from crush_trio.host.kit import Kit
from crush_trio.host.presence import Clients
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.workspace import Workspace, open_workspace
from crush_trio.journal import Feed, Journal
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId, WorkspaceId, new_id
from crush_trio.protocol.runs import CancelledBy
from crush_trio.store.contract import Store, Transaction, WorkspaceRow

logger = logging.getLogger(__name__)

SHUTDOWN = CancelledBy("server", reason="shutdown")


@attrs.frozen
class HostOptions:
    """How workspaces live: idle ones close after ``idle_timeout_s``; see G2 for requeueing.

    At the end they are waited for ``closing_s``.
    """

    idle_timeout_s: float = limits.IDLE_TIMEOUT_S
    requeue_within_s: float = limits.REQUEUE_WITHIN_S
    closing_s: float = limits.SHUTDOWN_RUNS_S


@attrs.define(eq=False)
class Opening:
    """A workspace that is being opened or ended; ``failure`` says why that did not work."""

    done: trio.Event = attrs.field(factory=trio.Event)
    failure: StoreError | None = None


@attrs.define(eq=False)
class Host:
    """Owns one task per open workspace. Opening and closing are decided in single steps."""

    store: Store
    journal: Journal
    kit: Kit
    options: HostOptions
    nursery: trio.Nursery
    known: dict[WorkspaceId, WorkspaceRow]
    open_runs: dict[RunId, OpenRun] = attrs.field(factory=dict, init=False)
    clients: Clients = attrs.field(factory=Clients, init=False)
    stopping: bool = attrs.field(default=False, init=False)
    endings: int = attrs.field(default=0, init=False)
    """How often a run has left `open_runs`."""
    last_used: float = attrs.field(factory=trio.current_time, init=False)
    _open: dict[WorkspaceId, Workspace] = attrs.field(factory=dict, init=False)
    _closing: dict[WorkspaceId, trio.Event] = attrs.field(factory=dict, init=False)
    _opening: dict[WorkspaceId, Opening] = attrs.field(factory=dict, init=False)
    _ending: dict[WorkspaceId, Opening] = attrs.field(factory=dict, init=False)
    _subscribed: int = attrs.field(default=0, init=False)
    _subscribed_changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _naming: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    # --- finding --------------------------------------------------------------------------

    def workspaces(self) -> tuple[Workspace, ...]:
        """The open ones."""
        return tuple(self._open.values())

    def row(self, workspace_id: str) -> WorkspaceRow:
        """A known workspace.

        Raises:
            Refused: ``workspace_not_found``.
        """
        row = self.known.get(WorkspaceId(workspace_id))
        if row is None:
            raise Refused("workspace_not_found", f"There is no workspace {workspace_id!r}.")
        return row

    def find_open(self, workspace_id: WorkspaceId) -> Workspace | None:
        """A workspace if it is open now."""
        return self._open.get(workspace_id)

    def open_run(self, run_id: str) -> OpenRun | None:
        """An open run of any workspace."""
        return self.open_runs.get(RunId(run_id))

    def note_end(self, run_id: RunId) -> None:
        """A run's terminal event is durable and published, or it was never accepted."""
        self.endings += 1
        open_run = self.open_runs.pop(run_id, None)
        if open_run is not None:
            open_run.ended.set()
            workspace = self._open.get(open_run.row.record.workspace_id)
            self.last_used = trio.current_time()
            if workspace is not None:
                workspace.presence.last_used = self.last_used

    # --- opening --------------------------------------------------------------------------

    async def by_path(self, path: Path) -> Workspace:
        """The workspace of a directory (absolute, resolved), known from now on, and open."""
        async with self._naming:  # held across one commit: two clients must get one id
            row = next((row for row in self.known.values() if row.path == str(path)), None)
            if row is None:
                row = await self._remember(path)
        return await self.open(row.id)

    async def _remember(self, path: Path) -> WorkspaceRow:
        def commit(tx: Transaction) -> WorkspaceRow:
            row = WorkspaceRow(tx.workspace_id, str(path), tx.now_ms)
            tx.put_workspace(row)
            return row

        ticket = self.store.commit_nowait(WorkspaceId(new_id()), commit)
        with trio.CancelScope(shield=True):
            # Bounded by the store's own bounds: a commit ends or fails, and a lost client must
            # not leave a stored workspace that this server does not know.
            row = (await ticket.wait()).value
        self.known[row.id] = row
        return row

    async def open(self, workspace_id: str) -> Workspace:
        """A known workspace, opened if it is not; one that is closing is waited for.

        Raises:
            Refused: ``workspace_not_found``, ``server_stopping``.
            StoreError: Its journal could not be read.
        """
        while True:
            row = self.row(workspace_id)
            if self.stopping:
                raise Refused("server_stopping", "The server is stopping; try again later.")
            found = self._open.get(row.id)
            if found is not None:
                found.presence.last_used = trio.current_time()
                return found
            closing = self._closing.get(row.id)
            if closing is not None:
                await closing.wait()
                continue
            opening = self._opening.get(row.id)
            if opening is None:
                # No await since the check: this task alone opens it. The owner task is started
                # before anything can be cancelled, so a lost client leaves an open workspace,
                # not half of one.
                opening = self._opening[row.id] = Opening()
                self.nursery.start_soon(self._own, row, opening)
            await opening.done.wait()
            if opening.failure is not None:
                raise StoreError(opening.failure.code, opening.failure.message)

    async def _own(self, row: WorkspaceRow, opening: Opening) -> None:
        """The owner task of one open workspace: everything of it lives and ends in here."""
        try:
            feed = await self.journal.open(self.store, row.id)
        except StoreError as exc:
            del self._opening[row.id]
            opening.failure = exc
            opening.done.set()
            return
        last_word = "closed"
        try:
            last_word = await self._own_open(row, opening, feed)
        finally:
            self.journal.close(row.id, "shutdown" if self.stopping else last_word)
            closing = self._closing.pop(row.id, None)
            if closing is not None:
                closing.set()

    async def _own_open(self, row: WorkspaceRow, opening: Opening, feed: Feed) -> str:
        """An open workspace's life; why it closed, as its subscribers are told."""
        async with open_workspace(
            row, self.store, feed, self.kit, self.open_runs, lambda: SHUTDOWN, self.note_end
        ) as workspace:
            self._open[row.id] = workspace
            del self._opening[row.id]
            opening.done.set()
            if self.stopping:
                self.close(workspace)
            await workspace.close_requested.wait()
        self.known[row.id] = attrs.evolve(row, last_accept=workspace.last_accept)
        return workspace.last_word

    # --- closing --------------------------------------------------------------------------

    def close(self, workspace: Workspace, last_word: str = "closed") -> None:
        """Begin to close: the decision and leaving the index are this one step.

        ``last_word`` is the reason that its subscribers are told.
        """
        if self._open.get(workspace.id) is workspace:
            workspace.last_word = last_word
            del self._open[workspace.id]
            self._closing[workspace.id] = trio.Event()
            workspace.stop(SHUTDOWN)
            workspace.close_requested.set()

    async def end(self, workspace_id: str, by: CancelledBy) -> None:
        """Close a workspace for good: its runs, waiting ones too, end cancelled (G1).

        The work belongs to the host: a caller that goes away only stops waiting for it.
        Meanwhile new prompts are refused with ``workspace_closing``.

        Raises:
            Refused: ``workspace_not_found``.
            StoreError: The endings could not be made durable; it stays open.
        """
        row = self.row(workspace_id)
        workspace = self._open.get(row.id)
        if workspace is None:
            if row.id in self._closing:
                await self._closing[row.id].wait()
            return
        ending = self._ending.get(row.id)
        if ending is None:
            ending = self._ending[row.id] = Opening()
            self.nursery.start_soon(self._end, workspace, ending, by)
        await ending.done.wait()
        if ending.failure is not None:
            raise StoreError(ending.failure.code, ending.failure.message)

    async def _end(self, workspace: Workspace, ending: Opening, by: CancelledBy) -> None:
        try:
            await workspace.end_runs(by)
            self.close(workspace)
            await workspace.closed.wait()
        except StoreError as exc:
            ending.failure = exc
        finally:
            del self._ending[workspace.id]
            ending.done.set()

    async def purge(self, workspace_id: str) -> None:
        """Close a workspace and delete everything of it, its events too.

        Raises:
            Refused: ``workspace_not_found``, ``open_runs``.
            StoreError: It could not be made durable.
        """
        async with self._naming:  # held until it is durable: the path may be named again then
            row = self.row(workspace_id)
            await self._wait_not_open(row)
            # No await since the last look: nobody can have opened it again.
            ticket = self.store.commit_nowait(row.id, lambda tx: tx.remove_workspace())
            del self.known[row.id]
            try:
                await ticket.wait()
            except Exception:
                self.known[row.id] = row
                raise
            await recovery.remove_outputs(self.kit, [row.id])

    async def _wait_not_open(self, row: WorkspaceRow) -> None:
        while True:
            workspace = self._open.get(row.id)
            opening = self._opening.get(row.id)
            if workspace is not None:
                if workspace.has_open_runs():
                    raise Refused(
                        "open_runs", "Runs are open in this workspace; cancel them first."
                    )
                self.close(workspace, "purged")
            closing = self._closing.get(row.id)
            if closing is not None:
                await closing.wait()
            elif opening is not None:
                await opening.done.wait()
            else:
                return

    @contextmanager
    def using(self, workspace: Workspace) -> Iterator[None]:
        """Keeps a workspace open while a request is pending in it."""
        workspace.presence.uses += 1
        try:
            yield
        finally:
            workspace.presence.uses -= 1
            workspace.presence.last_used = self.last_used = trio.current_time()

    def stop(self) -> None:
        """Begin to close everything: no new prompts, runs are interrupted. Never waits."""
        self.stopping = True
        for workspace in self.workspaces():
            self.close(workspace)

    async def wait_closed(self) -> None:
        """Wait until every closing workspace has closed."""
        for closing in tuple(self._closing.values()):
            await closing.wait()

    def end_feeds(self) -> None:
        """Let the subscribers of workspaces that do not end go, as at their end."""
        for workspace_id in tuple(self._closing):
            self.journal.close(workspace_id, "shutdown")

    async def wait_no_subscribers(self) -> None:
        """Wait until no subscriber is left; meant for the end, when every feed is closed."""
        while self._subscribed:
            await self._subscribed_changed.wait()

    @contextmanager
    def subscribing(self, workspace: Workspace, client_id: str | None) -> Iterator[None]:
        """Keeps a workspace open while somebody follows it."""
        retired = self.clients.is_retired(client_id)
        workspace.presence.client_joined(client_id, retired=retired)
        try:
            with self.using(workspace), self.attending():
                yield
        finally:
            workspace.presence.client_left(client_id)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Counts a subscriber that is owed a last word (`wait_no_subscribers`)."""
        self._subscribed += 1
        try:
            yield
        finally:
            self._subscribed -= 1
            self._subscribed_changed.set()
            self._subscribed_changed = trio.Event()

    def is_idle(self) -> bool:
        """Nothing open is in use."""
        busy = self.open_runs or self.clients.creating
        return not busy and all(ws.is_idle() for ws in self.workspaces())

    async def close_idle(self) -> None:
        """Close workspaces that nobody has used for the idle timeout; runs until cancelled."""
        while True:
            now = trio.current_time()
            due = [now + self.options.idle_timeout_s]
            for workspace in self.workspaces():
                if workspace.is_idle():
                    expires = workspace.presence.idle_since() + self.options.idle_timeout_s
                    if expires <= now:
                        self.close(workspace)
                    else:
                        due.append(expires)
            await trio.sleep_until(min(due))

    # --- recovery -------------------------------------------------------------------------

    async def recover(self) -> int:
        """End what the last server owes and take its waiting runs up again; how many go on."""
        going_on = await recovery.end_what_is_owed(
            self.store,
            self.known,
            requeue_within_s=self.options.requeue_within_s,
            kill_recorded=self.kit.kill_recorded,
        )
        sessions = []
        for row in going_on:
            workspace = await self.open(row.record.workspace_id)
            sessions.append(await workspace.session(row.record.session_id))
        # All in one step: the first to begin must see those that were moved behind it.
        for row, session in zip(going_on, sessions, strict=True):
            open_run = session.restore(row, recovery.already_accepted(row))
            self.open_runs[open_run.id] = open_run
        return len(going_on)


@asynccontextmanager
async def open_host(
    store: Store, journal: Journal, kit: Kit, options: HostOptions
) -> AsyncIterator[Host]:
    """A host, recovered and ready; leaving the block closes every workspace and waits for it."""
    known = {row.id: row for row in await store.workspaces()}
    async with trio.open_nursery() as nursery:
        host = Host(store, journal, kit, options, nursery, known)
        journal.on_end = host.note_end
        try:
            await host.recover()
            nursery.start_soon(host.close_idle)
            nursery.start_soon(recovery.remove_orphaned_outputs, store, known, kit)
            yield host
        finally:
            host.stop()
            with trio.move_on_after(options.closing_s, shield=True):
                await host.wait_closed()
            nursery.cancel_scope.cancel()
