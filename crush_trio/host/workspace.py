"""One open workspace: its nursery's children are the drain tasks of its busy sessions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import Model
from crush_trio.dispatch.run import Phase
from crush_trio.host import commits
from crush_trio.host.home import Home, ancestors_of
from crush_trio.host.kit import Kit
from crush_trio.host.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.journal import Feed
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.events import ConfigChanged
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId, new_id
from crush_trio.protocol.messages import Message
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelledBy, Receipt, RunRecord
from crush_trio.protocol.sessions import Session as SessionRecord
from crush_trio.store.contract import RunRow, Store, Transaction, WorkspaceRow

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Workspace:
    """A directory with its sessions, while it is open.

    ``uses`` counts what keeps it open besides its runs: subscribers and pending requests.
    ``last_used`` is Trio time.
    """

    row: WorkspaceRow
    home: Home
    open_runs: dict[RunId, OpenRun]
    closed: trio.Event = attrs.field(factory=trio.Event)
    default_mode: str = attrs.field(default="deny", init=False)
    closing: bool = attrs.field(default=False, init=False)
    close_requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    uses: int = attrs.field(default=0, init=False)
    subscribers: int = attrs.field(default=0, init=False)
    _holds: dict[str, float] = attrs.field(factory=dict, init=False)
    last_used: float = attrs.field(factory=trio.current_time, init=False)
    last_accept: int = attrs.field(default=0, init=False)
    _streams: Counter[str] = attrs.field(factory=Counter, init=False)
    _fresh: set[SessionId] = attrs.field(factory=set, init=False)
    _sessions: dict[SessionId, Session] = attrs.field(factory=dict, init=False)

    @property
    def id(self) -> WorkspaceId:
        """The workspace's id, stable across restarts."""
        return self.row.id

    @property
    def path(self) -> Path:
        """Its directory, absolute and symlink-resolved."""
        return Path(self.row.path)

    @property
    def feed(self) -> Feed:
        """Its journal's live end."""
        return self.home.feed

    # --- sessions -------------------------------------------------------------------------

    async def session(self, session_id: SessionId) -> Session:
        """A session of this workspace.

        Raises:
            Refused: ``session_not_found``.
        """
        known = self._sessions.get(session_id)
        if known is not None:
            return known
        if session_id in self._fresh:  # just made here, at the top: nothing to look up
            self._fresh.discard(session_id)
            ancestors: tuple[SessionId, ...] = ()
        else:
            ancestors = await ancestors_of(self.home, session_id)
        # Another task may have made it while this one read the store.
        return self._sessions.setdefault(session_id, Session(self.home, session_id, ancestors))

    def open_sessions(self) -> tuple[Session, ...]:
        """The sessions that were used since the workspace was opened."""
        return tuple(self._sessions.values())

    def is_busy(self, session_id: SessionId) -> bool:
        """Whether a run of this session is being driven (CW 5.10).

        Not any more while its ending is being written: who hears of the ending finds the session
        not busy (R59).
        """
        session = self._sessions.get(session_id)
        now = session.queue.current if session is not None else None
        return now is not None and now.phase is Phase.RUNNING

    def is_any_busy(self) -> bool:
        """Whether a run of any session is being driven."""
        return any(self.is_busy(session_id) for session_id in self._sessions)

    async def set_default_mode(self, mode: str, principal: str) -> None:
        """The permission mode of runs that name none, until the workspace closes (contract 7).

        It never loosens a run with a mode of its own. Logged with who asked, and published.
        """
        if mode == self.default_mode:
            return
        self.default_mode = mode
        logger.warning("%s set the permission mode of %s to %s", principal, self.path, mode)
        changed = ConfigChanged(self.id)

        def commit(tx: Transaction) -> None:
            tx.emit("config_changed", "updated", changed)

        await self.home.store.commit_nowait(self.id, commit).wait()

    def live_messages(self) -> dict[MessageId, Message]:
        """The messages that are being written now, by id."""
        live = (session.live_message() for session in self._sessions.values())
        return {message.id: message for message in live if message is not None}

    def has_open_runs(self) -> bool:
        """Whether a run goes on or waits here."""
        return any(session.unfinished() for session in self._sessions.values())

    async def create_session(self, title: str) -> SessionRecord:
        """A new session, durable when this returns; publishes ``session/created``."""
        session_id = SessionId(new_id())

        def commit(tx: Transaction) -> SessionRecord:
            now_s = tx.now_ms // 1000
            record = SessionRecord(session_id, title=title, created_at=now_s, updated_at=now_s)
            tx.put_session(record)
            tx.emit("session", "created", record, session_id=session_id)
            return record

        record = (await self.home.store.commit_nowait(self.id, commit).wait()).value
        self._fresh.add(session_id)
        return record

    async def rename_session(self, session_id: SessionId, title: str) -> SessionRecord:
        """A session with a new title, durable when this returns.

        Raises:
            Refused: ``session_not_found``.
        """
        await self.session(session_id)

        def commit(tx: Transaction) -> SessionRecord | None:
            commits.touch_session(tx, session_id, title=title)
            return tx.session(session_id)

        renamed = (await self.home.store.commit_nowait(self.id, commit).wait()).value
        if renamed is None:
            raise Refused("session_not_found", f"There is no session {session_id!r} here.")
        return renamed

    async def delete_session(self, session_id: SessionId, by: CancelledBy) -> None:
        """Delete a session and those below it; its runs are cancelled and awaited. Twice is fine.

        The work belongs to the workspace: a caller that goes away only stops waiting for it.

        Raises:
            StoreError: It could not be made durable.
        """
        done = trio.Event()
        failure: StoreError | None = StoreError("store_failed", "The server stopped meanwhile.")

        async def work() -> None:
            nonlocal failure
            try:
                await self._delete_session(session_id, by)
                failure = None
            except StoreError as exc:
                failure = exc
            finally:
                done.set()

        self.home.nursery.start_soon(work)
        await done.wait()
        if failure is not None:
            raise failure

    async def _delete_session(self, session_id: SessionId, by: CancelledBy) -> None:
        below: tuple[SessionId, ...] = await self._below(session_id)
        doomed = []
        for each in (session_id, *below):
            with suppress(Refused):  # deleted meanwhile
                doomed.append(await self.session(each))
        try:
            for session in doomed:
                session.close(by)
            for open_run in [each for session in doomed for each in session.unfinished()]:
                await open_run.ended.wait()
            await self._remove(tuple(session.id for session in doomed))
        except StoreError:
            for session in doomed:
                session.reopen()
            raise
        for session in doomed:
            self._sessions.pop(session.id, None)

    async def _below(self, session_id: SessionId) -> tuple[SessionId, ...]:
        def commit(tx: Transaction) -> tuple[SessionId, ...]:
            return tx.sub_sessions(session_id)

        return (await self.home.store.commit_nowait(self.id, commit).wait()).value

    async def _remove(self, session_ids: tuple[SessionId, ...]) -> None:
        """Delete sessions in one transaction; what lies below comes before what it lies below."""

        def commit(tx: Transaction) -> None:
            for session_id in reversed(session_ids):
                record = tx.session(session_id)
                if record is not None:
                    tx.remove_session(session_id)
                    tx.emit("session", "deleted", record, session_id=session_id)

        for session_id in session_ids:  # first: a crash in between must leave nothing of it
            folder = f"{self.id}/{session_id}"
            await trio.to_thread.run_sync(self.home.kit.forget_outputs, folder)
        await self.home.store.commit_nowait(self.id, commit).wait()

    # --- prompts --------------------------------------------------------------------------

    def submit(
        self,
        session: Session,
        request: PromptRequest,
        *,
        run_id: RunId,
        digest: str,
        principal: str,
        model: Model,
    ) -> OpenRun:
        """Accept a prompt; synchronous, see `Session.accept`.

        Raises:
            Refused: ``workspace_closing``, or as `Session.accept`.
            StoreError: Nothing changed.
        """
        if self.closing:
            raise Refused("workspace_closing", "The workspace is being closed; try again.")
        if_busy = request.if_busy or ("enqueue" if request.run_id else "steer")
        accept_seq = self.last_accept + 1
        record = RunRecord(
            id=run_id,
            workspace_id=self.id,
            session_id=session.id,
            prompt=request.prompt,
            accept_seq=accept_seq,
            created_at_ms=0,
            model=model.info.model,
            provider=model.info.provider,
        )
        receipt = Receipt(run_id, session.id, 0, "", 0)
        row = RunRow(record, request, digest, receipt, principal)
        open_run = session.accept(row, if_busy)
        self.last_accept = accept_seq
        self.open_runs[run_id] = open_run
        return open_run

    # --- clients --------------------------------------------------------------------------

    def hold(self, client_id: str) -> None:
        """A client keeps the workspace open until it lets go, or for `limits.HOLD_S` (CW 4.2)."""
        self._holds[client_id] = trio.current_time() + limits.HOLD_S

    def release(self, client_id: str) -> None:
        """A client lets go. Harmless if it did not hold."""
        self._holds.pop(client_id, None)
        self.last_used = trio.current_time()

    def client_joined(self, client_id: str | None) -> None:
        """A subscriber has come; ``client_id`` is what it calls itself."""
        if client_id is not None:
            self._streams[client_id] += 1

    def client_left(self, client_id: str | None) -> None:
        """A subscriber has gone; runs that asked for it end if it does not come back (G6)."""
        if client_id is None:
            return
        self._streams[client_id] -= 1
        if self._streams[client_id]:
            return
        del self._streams[client_id]
        if not self.closing and self._depending_on(client_id):
            self.home.nursery.start_soon(self._cancel_if_still_gone, client_id)

    async def _cancel_if_still_gone(self, client_id: str) -> None:
        with trio.move_on_after(limits.DISCONNECT_GRACE_S):
            await self.home.stopping.wait()
        if self._streams[client_id] or self.closing:
            return
        for open_run in self._depending_on(client_id):
            session = self._sessions[open_run.session_id]
            by = CancelledBy(open_run.row.principal, client_id, "disconnect")
            try:
                session.cancel(by, open_run.id)
            except StoreError as exc:
                logger.warning("run %s could not be cancelled: %s", open_run.id, exc)

    def _depending_on(self, client_id: str) -> list[OpenRun]:
        """Open runs that were to end when this client goes."""
        return [
            open_run
            for session in self._sessions.values()
            for open_run in session.open_runs()
            if open_run.row.request.on_disconnect == "cancel"
            and open_run.row.request.client_id == client_id
        ]

    # --- closing --------------------------------------------------------------------------

    async def end_runs(self, by: CancelledBy) -> None:
        """Refuse new prompts, cancel every open run, and wait until their endings are durable.

        Raises:
            StoreError: It could not be made durable; prompts are taken again.
        """
        self.closing = True
        try:
            for session in self.open_sessions():
                session.cancel(by)
        except StoreError:
            self.closing = False
            raise
        for open_run in [each for session in self.open_sessions() for each in session.unfinished()]:
            await open_run.ended.wait()

    def stop(self, by: CancelledBy) -> None:
        """Begin no more runs and interrupt the running ones. Idempotent, never waits."""
        self.closing = True
        self.home.stopping.set()
        for session in self._sessions.values():
            session.stop(by)

    def is_idle(self) -> bool:
        """Nothing runs or waits, nobody subscribes, holds it or has a request pending."""
        held = any(until > trio.current_time() for until in self._holds.values())
        return not (self.uses or self.subscribers or held or self.has_open_runs())


@asynccontextmanager
async def open_workspace(
    row: WorkspaceRow,
    store: Store,
    feed: Feed,
    kit: Kit,
    open_runs: dict[RunId, OpenRun],
    on_stop: Callable[[], CancelledBy],
    on_end: Callable[[RunId], None],
) -> AsyncIterator[Workspace]:
    """An open workspace; leaving the block ends its runs and waits for their terminal commits.

    However the block is left, `Workspace.stop` runs first, so that no drain task is waited for
    that nobody has told to stop.
    """
    closed = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            workspace: Workspace

            home = Home(
                row.id,
                Path(row.path),
                nursery,
                store,
                feed,
                kit,
                last_accept=lambda: workspace.last_accept,
                forget=on_end,
                default_mode=lambda: workspace.default_mode,
            )
            workspace = Workspace(row, home, open_runs, closed)
            workspace.last_accept = row.last_accept
            try:
                yield workspace
            finally:
                workspace.stop(on_stop())
    finally:
        closed.set()
