"""One open workspace: its nursery's children are the drain tasks of its busy sessions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from crush_trio.agent.ports import Model
from crush_trio.dispatch.run import Phase
from crush_trio.host.home import Home, ancestors_of
from crush_trio.host.jobs.jobs import Jobs
from crush_trio.host.kit import Kit
from crush_trio.host.presence import Presence
from crush_trio.host.runs.open_run import OpenRun, SubAgent
from crush_trio.host.session import Session
from crush_trio.host.sub_sessions import SubSessions
from crush_trio.journal import Feed
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.events import ConfigChanged
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelledBy, Receipt, RunRecord
from crush_trio.store.contract import Commit, RunRow, Store, Transaction, WorkspaceRow

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Workspace:
    """A directory with its sessions, while it is open.

    ``presence`` counts what keeps it open besides its runs.
    """

    row: WorkspaceRow
    home: Home
    open_runs: dict[RunId, OpenRun]
    closed: trio.Event = attrs.field(factory=trio.Event)
    default_mode: str = attrs.field(default="ask", init=False)
    closing: bool = attrs.field(default=False, init=False)
    last_word: str = attrs.field(default="closed", init=False)
    close_requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    last_accept: int = attrs.field(default=0, init=False)
    _fresh: set[SessionId] = attrs.field(factory=set, init=False)
    _sessions: dict[SessionId, Session] = attrs.field(factory=dict, init=False)
    presence: Presence = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.presence = Presence(self.home, self)

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

    def find_session(self, session_id: SessionId) -> Session | None:
        """A session that was used since the workspace was opened."""
        return self._sessions.get(session_id)

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

    def note_created(self, session_id: SessionId) -> None:
        """A session was just made at the top: `session` need not look it up."""
        self._fresh.add(session_id)

    def add_session(self, session: Session) -> None:
        """A session is being made, and its first run accepted, in one step."""
        self._sessions[session.id] = session

    def forget_session(self, session_id: SessionId) -> None:
        """A session was deleted, or could not be made."""
        self._sessions.pop(session_id, None)

    # --- prompts --------------------------------------------------------------------------

    def submit(
        self,
        session: Session,
        request: PromptRequest,
        *,
        run_id: RunId,
        digest: str,
        principal: str,
        model: Model | None,
        kind: str = "prompt",
        env: Mapping[str, str] | None = None,
        sub_agent: SubAgent | None = None,
        first: Commit[None] | None = None,
    ) -> OpenRun:
        """Accept a run; synchronous, see `Session.accept`. A command has no model.

        ``env`` is its client's environment, kept with the run as long as the server lives.
        ``sub_agent`` makes it one's, and ``first`` makes its session in the same commit.

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
            kind=kind,
            parent_run=sub_agent.parent if sub_agent is not None else None,
            model=model.info.model if model is not None else "",
            provider=model.info.provider if model is not None else "",
        )
        receipt = Receipt(run_id, session.id, 0, "", 0)
        row = RunRow(record, request, digest, receipt, principal)
        open_run = session.accept(row, if_busy, first)
        open_run.env = env or {}
        open_run.sub_agent = sub_agent
        self.last_accept = accept_seq
        self.open_runs[run_id] = open_run
        return open_run

    # --- clients --------------------------------------------------------------------------

    def depend_on(self, client_id: str) -> bool:
        """Whether an open run was to end when this client goes (G6)."""
        return bool(self._depending_on(client_id))

    def cancel_depending(self, client_id: str) -> None:
        """Cancel the open runs that were to end when this client goes; never waits."""
        for open_run in self._depending_on(client_id):
            session = self._sessions[open_run.session_id]
            by = CancelledBy(open_run.row.principal, client_id, "disconnect")
            try:
                session.cancel(by, open_run.id)
            except StoreError as exc:
                logger.warning("run %s could not be cancelled: %s", open_run.id, exc)

    def _depending_on(self, client_id: str) -> list[OpenRun]:
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
        self.home.jobs.stop()
        for session in self._sessions.values():
            session.stop(by)

    def is_idle(self) -> bool:
        """Nothing runs or waits, nobody subscribes, holds it or has a request pending."""
        busy = self.has_open_runs() or self.home.jobs.is_running()
        return not (self.presence.in_use() or busy)


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
            home.jobs = Jobs(home)
            workspace = Workspace(row, home, open_runs, closed)
            home.sub_sessions = SubSessions(workspace)
            workspace.last_accept = row.last_accept
            try:
                yield workspace
            finally:
                workspace.stop(on_stop())
    finally:
        closed.set()
