"""A writer of messages and a subscriber that believes only what it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio
import trio.testing

from crush_trio.journal import (
    Feed,
    FeedEntry,
    Journal,
    JournalReader,
    present_message,
    transient_entry,
)
from crush_trio.protocol.codec import decode_frames
from crush_trio.protocol.events import AgentEvent, Event, Frame, MessageDelta, Replayed, Resync
from crush_trio.protocol.ids import MessageId, SessionId, WorkspaceId
from crush_trio.protocol.messages import FinishPart, Message, TextPart
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Store, Transaction, WorkspaceRow

W = WorkspaceId("w")
SESSIONS = (SessionId("a"), SessionId("b"))


@attrs.define
class Author:
    """Writes messages the way a run does: created, deltas, finished."""

    store: Store
    journal: Journal
    feed: Feed
    open: dict[str, Message] = attrs.field(factory=dict)
    written: dict[str, str] = attrs.field(factory=dict)
    sessions: dict[str, SessionId] = attrs.field(factory=dict)

    @classmethod
    async def start(cls, store: Store, journal: Journal, feed: Feed | None = None) -> Author:
        """An author in a workspace with two sessions."""

        def found(tx: Transaction) -> None:
            tx.put_workspace(WorkspaceRow(W, "/w", 1))
            for session in SESSIONS:
                tx.put_session(Session(session))

        await store.commit_nowait(W, found).wait()
        return cls(store, journal, feed or await journal.open(store, W))

    def note(self, session: SessionId | None, kind: str = "agent_event") -> None:
        """One event of no further meaning, without waiting for its commit."""
        event = AgentEvent("agent_finished")
        self.store.commit_nowait(W, lambda tx: tx.emit(kind, "updated", event, session_id=session))

    async def begin(self, name: str, session: SessionId, *, hold: bool = True) -> None:
        """Create a message, and hold it open unless that is to come later."""
        message = Message(MessageId(name), "assistant", session, (TextPart(""),))
        await self._put(message, "created")
        self.open[name] = message
        self.written[name] = ""
        self.sessions[name] = session
        if hold:
            self.hold(name)

    def hold(self, name: str, since: int | None = None) -> None:
        """Hold a message open."""
        self.feed.hold(name, (self.sessions[name],), lambda: self._present(name), since=since)

    def write(self, name: str, text: str) -> None:
        """Append to an open message."""
        message, offset = self.open[name], len(self.written[name])
        self.written[name] += text
        self.open[name] = attrs.evolve(message, parts=(TextPart(self.written[name]),))
        delta = MessageDelta(name, message.session_id, "r", 0, "text", offset, text)
        self.feed.transient(transient_entry(delta, session_ids=(message.session_id,), key=name))

    def finish(self, name: str) -> None:
        """Queue the finishing commit, and let go in the same step."""
        message = self.open.pop(name)
        done = attrs.evolve(message, parts=(*message.parts, FinishPart("end_turn", 1)))
        self.feed.release(name)
        self.store.commit_nowait(W, _putting(done, "updated"))

    async def _put(self, message: Message, change: str) -> None:
        await self.store.commit_nowait(W, _putting(message, change)).wait()

    def _present(self, name: str) -> Sequence[FeedEntry]:
        message = self.open[name]
        return [present_message(W, message, session_ids=(message.session_id,), key=name)]


def _putting(message: Message, change: str) -> Callable[[Transaction], None]:
    def commit(tx: Transaction) -> None:
        tx.put_message(message, accept_seq=1, ordinal=0)
        tx.emit("message", change, message, session_id=message.session_id)

    return commit


@attrs.define
class Subscriber:
    """What one reader's frames say."""

    reader: JournalReader
    seqs: list[int] = attrs.field(factory=list)
    texts: dict[str, str] = attrs.field(factory=dict)
    finished: set[str] = attrs.field(factory=set)
    controls: list[Frame] = attrs.field(factory=list)
    states: int = 0
    deltas: int = 0
    frames: int = 0
    ended: bool = False

    async def step(self, deadline_s: float = 0.0) -> bool:
        """Take one frame; whether there was one."""
        raw = await self.reader.next_frame(deadline_s)
        if raw is None:
            self.ended = True
        if not raw:
            return False
        self.frames += 1
        for frame in decode_frames(raw):
            self._take(frame)
        return True

    async def drain(self, deadline_s: float = 1.0) -> None:
        """Take frames until nothing comes for a (virtual) while."""
        while await self.step(deadline_s):
            pass

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Event):
            if frame.seq is not None:
                self.seqs.append(frame.seq)
            elif frame.type == "message":
                self.states += 1
            if isinstance(frame.payload, Message):
                message = frame.payload
                assert message.id not in self.finished, "an older state after the last one"
                self.texts[message.id] = message.text()
                if message.finish() is not None:
                    self.finished.add(message.id)
        elif isinstance(frame, MessageDelta):
            self.deltas += 1
            assert frame.message_id not in self.finished
            assert frame.offset == len(self.texts[frame.message_id])
            self.texts[frame.message_id] += frame.text
        else:
            assert isinstance(frame, Replayed | Resync)
            self.controls.append(frame)


async def settle() -> None:
    """Let everything that can run now run."""
    await trio.testing.wait_all_tasks_blocked()
