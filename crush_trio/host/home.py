"""What a session uses of the workspace it lives in, and the commits it may not give up on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from crush_trio import limits
from crush_trio.host.asks.asking import Waiting
from crush_trio.host.kit import Kit
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.journal import Feed
from crush_trio.protocol.errors import InvalidTransition, Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.store.contract import Commit, Store

if TYPE_CHECKING:
    from crush_trio.host.jobs.jobs import Jobs  # which stands on this file
    from crush_trio.host.sub_sessions import SubSessions  # which stands on a workspace

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Home:
    """What a session uses of the workspace it lives in.

    ``nursery`` outlives every drain task. ``last_accept`` gives the newest accept sequence.
    ``forget`` takes a run off the server's list of open ones, if no event will do so. ``waiting``
    are the requests to a person, ``jobs`` what outlives the runs, ``sub_sessions`` where sub-agents
    are accepted; whoever makes a home sets the last two.
    """

    id: WorkspaceId
    path: Path
    nursery: trio.Nursery
    store: Store
    feed: Feed
    kit: Kit
    last_accept: Callable[[], int]
    forget: Callable[[RunId], None]
    default_mode: Callable[[], str] = lambda: "ask"
    stopping: trio.Event = attrs.field(factory=trio.Event)
    waiting: Waiting = attrs.field(init=False)
    jobs: Jobs = attrs.field(init=False)
    sub_sessions: SubSessions = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.waiting = Waiting(self.store, self.id)

    def start(self, task: Callable[..., Awaitable[object]], *args: object) -> bool:
        """Start a task of the workspace; ``False`` if the workspace has ended meanwhile.

        Only a caller that looked something up while it ended can meet that.
        """
        try:
            self.nursery.start_soon(task, *args)
        except RuntimeError:  # the nursery is closed: there is no other way to ask it
            return False
        return True


async def ancestors_of(home: Home, session_id: SessionId) -> tuple[SessionId, ...]:
    """The sessions above one of this workspace, the nearest first.

    Raises:
        Refused: ``session_not_found``.
    """
    ancestors: list[SessionId] = []
    wanted = session_id
    while True:
        found = await home.store.session(wanted)
        if found is None or found[0] != home.id:
            if not ancestors:
                raise Refused("session_not_found", f"There is no session {session_id!r} here.")
            return tuple(ancestors)
        parent = SessionId(found[1].parent_session_id)
        if not parent:
            return tuple(ancestors)
        ancestors.append(parent)
        wanted = parent


async def commit_ending(
    home: Home, commit: Commit[None], spare: Commit[None] | None = None
) -> bool:
    """Commit until it is durable; ``False`` if the store is dead or the server stops first.

    A full disk is waited out: it is tried again every `limits.DISK_FULL_RETRY_S`. What the store
    cannot write at all gives way to ``spare``, so that nothing a tool or a model wrote can keep a
    run from ending (G1).
    """
    while True:
        try:
            await home.store.commit_nowait(home.id, commit).wait()
        except StoreError as exc:
            stopping = home.stopping.is_set()
            if exc.code == "store_failed" or (exc.code == "disk_full" and stopping):
                logger.error("a terminal commit failed: %s", exc)
                return False
            await _wait_for_room(home, stopping=stopping)
        except InvalidTransition:
            raise
        except Exception:
            if spare is None:
                raise
            logger.exception("a terminal commit cannot be written; a shorter one is")
            commit, spare = spare, None
        else:
            return True


async def _wait_for_room(home: Home, *, stopping: bool) -> None:
    with trio.move_on_after(limits.DISK_FULL_RETRY_S):
        if stopping:
            await trio.sleep_forever()
        await home.stopping.wait()


async def is_accepted(open_run: OpenRun) -> bool:
    """Wait until the acceptance is durable, or has failed."""
    try:
        await open_run.accepted.wait()
    except Exception as exc:
        logger.warning("run %s was not accepted: %s", open_run.id, exc)
        return False
    return True
