"""Model subscribers: they join, stall, leave, rejoin with their cursor, and keep what they got."""

from __future__ import annotations

import attrs
import orjson
import trio

from crush_trio.journal import FeedEntry, JournalReader
from crush_trio.journal.reader import Detail
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.messages import Message, ReasoningPart, TextPart, ToolCallPart
from crush_trio.store.contract import Selection
from tests.explore.checks import events_of
from tests.explore.isolation import payload_of
from tests.explore.world import Explored


@attrs.define(eq=False)
class Follower:
    """One subscriber; `follow` is a client for `Explored.watch`.

    ``cursor`` as in `JournalReader`. After ``hops[i]`` batches it leaves and comes back with what
    it has; before each batch it does nothing for ``lag`` steps.
    """

    w: Explored
    cursor: int | None = 0
    hops: tuple[int, ...] = ()
    lag: int = 0
    session: int | None = None
    detail: Detail = "delta"
    _seen: list[int] = attrs.field(factory=list, init=False)
    _texts: dict[str, list[int]] = attrs.field(factory=dict, init=False)

    async def follow(self) -> None:
        """Read until the server stops; then everything must have come, once, in order."""
        w = self.w
        first = self.cursor
        upto = self.cursor or 0
        for hop in (*self.hops, -1, -1, -1, -1):
            try:
                workspace = await w.workspace()
            except (Refused, StoreError):
                break
            selection = Selection(None if self.session is None else w.sid(self.session))
            feed = workspace.feed
            with (
                w.host.subscribing(workspace, None),
                JournalReader(
                    w.disk, feed, cursor=self.cursor, selection=selection, detail=self.detail
                ) as reader,
            ):
                if first is None:
                    first = reader.progress
                closed = await self._read(reader, hop)
                # Once the feed is closed nothing may be missing.
                upto = feed.last_seq if closed else reader.progress
                self.cursor = reader.progress
        self._judge(first or 0, upto)

    async def _read(self, reader: JournalReader, most: int) -> bool:
        """Read that many batches, or until the feed is closed; whether it was."""
        while most:
            for _ in range(self.lag):
                await trio.lowlevel.checkpoint()
            batch = await reader.next_batch()
            if batch is None:
                return True
            for entry in batch:
                self._take(entry)
            most -= 1
        return False

    def _take(self, entry: FeedEntry) -> None:
        if entry.seq is not None:
            self._seen.append(entry.seq)
        if entry.kind == "message":
            message = payload_of(entry.data).payload
            assert isinstance(message, Message)
            self._texts[message.id] = _lengths(message)
        elif entry.kind == "message_delta" and self.session is None:
            delta = orjson.loads(entry.data)
            texts = self._texts.get(delta["message_id"])
            if texts is None:
                self.w.ledger.wrong("G8: a delta of a message that nobody has shown")
                return
            if delta["index"] == len(texts):
                texts.append(0)
            if delta["index"] > len(texts) or texts[delta["index"]] != delta["offset"]:
                self.w.ledger.wrong(f"G8: a delta does not go on: {delta}, there are {texts}")
                return
            texts[delta["index"]] += len(delta["text"])
        elif entry.kind == "resync":
            self.w.ledger.wrong("I21: a resync although nothing is too old")

    def _judge(self, first: int, upto: int) -> None:
        session = None if self.session is None else self.w.sid(self.session)
        wanted = [
            event.seq
            for event in events_of(self.w.disk.tables, self.w.workspace_id)
            if first < event.seq <= upto
            and (session is None or not event.session_ids or session in event.session_ids)
        ]
        if self._seen != wanted:
            self.w.ledger.wrong(f"I21: after {first} up to {upto} came {self._seen}, not {wanted}")


def _lengths(message: Message) -> list[int]:
    texts = []
    for part in message.parts:
        match part:
            case TextPart():
                texts.append(len(part.text))
            case ReasoningPart():
                texts.append(len(part.thinking))
            case ToolCallPart():
                texts.append(len(part.input))
            case _:
                texts.append(-1)
    return texts
