"""Random histories of a feed against what every subscriber must end up with (G8)."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.journal import Feed, Journal, JournalReader
from crush_trio.protocol.events import Replayed
from crush_trio.protocol.ids import SessionId
from crush_trio.store.contract import Selection
from crush_trio.store.memory import open_memory_store
from tests.journal.subscriber import SESSIONS, Author, Subscriber, W, settle

_sessions = st.sampled_from([*SESSIONS, None])
_step = st.one_of(
    st.tuples(st.just("note"), _sessions),
    st.tuples(st.just("begin"), st.sampled_from(SESSIONS)),
    st.tuples(st.just("write"), st.integers(0, 9), st.text(max_size=40)),
    st.tuples(st.just("write"), st.integers(0, 9), st.text(max_size=40)),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("settle")),
    st.tuples(
        st.just("join"),
        st.sampled_from(["now", "start", "middle"]),
        st.sampled_from(["delta", "snapshot"]),
        _sessions,
    ),
    st.tuples(st.just("read"), st.integers(0, 9)),
    st.tuples(st.just("read"), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
)


class History:
    """One random history: an author and subscribers, on a ring of a few entries."""

    def __init__(self, author: Author, feed: Feed) -> None:
        self.author = author
        self.feed = feed
        self.joined: list[tuple[Subscriber, int, SessionId | None]] = []

    async def play(self, step: Any) -> None:
        author, kind = self.author, step[0]
        if kind == "note":
            author.note(step[1])
        elif kind == "begin":
            await author.begin(f"m{len(author.written)}", step[1])
        elif kind in ("write", "finish") and author.open:
            name = sorted(author.open)[step[1] % len(author.open)]
            if kind == "write":
                author.write(name, step[2])
            else:
                author.finish(name)
        elif kind == "settle":
            await settle()
        elif kind == "join":
            self.join(*step[1:])
        elif kind == "read" and self.joined:
            await self.joined[step[1] % len(self.joined)][0].step()
        elif kind == "leave" and len(self.joined) > 1:
            subscriber, _, _ = self.joined.pop(step[1] % len(self.joined))
            subscriber.reader.close()

    def join(self, where: str, detail: Any, session: SessionId | None) -> None:
        newest = self.feed.last_seq
        cursor = {"now": None, "start": 0, "middle": newest // 2}[where]
        reader = JournalReader(
            self.author.store,
            self.feed,
            cursor=cursor,
            detail=detail,
            selection=Selection(session_id=session),
        )
        after = newest if cursor is None else cursor
        self.joined.append((Subscriber(reader), after, session))

    async def check(self) -> None:
        author = self.author
        await settle()
        page = await author.store.events(W, after=0, upto=9_999, selection=Selection(), limit=9_999)
        for subscriber, after, session in self.joined:
            await subscriber.drain()
            wanted = Selection(session_id=session)
            assert subscriber.seqs == [
                event.seq
                for event in page.events
                if event.seq > after and wanted.selects(event.kind, event.session_ids)
            ]
            assert [type(frame) for frame in subscriber.controls] == [Replayed]
            assert subscriber.reader.progress == self.feed.last_seq
            seen = {name for name in author.written if session in (None, author.sessions[name])} - {
                name for name in author.written if name not in subscriber.texts
            }
            must = {name for name in author.open if session in (None, author.sessions[name])}
            assert must <= seen
            for name in seen:
                assert subscriber.texts[name] == author.written[name]
            assert set(subscriber.texts) == seen


async def _history(steps: list[Any]) -> None:
    journal = Journal()
    async with open_memory_store(publish=journal.publish) as store:
        feed = Feed(W, last_seq=0, max_entries=6, max_bytes=1_500)
        journal._feeds[W] = feed
        author = await Author.start(store, journal, feed)
        history = History(author, feed)
        history.join("start", "delta", None)
        for step in steps:
            await history.play(step)
        await history.check()
        for subscriber, _, _ in history.joined:
            subscriber.reader.close()
        assert (feed.readers, feed.start) == (0, feed.end)


@given(st.lists(_step, max_size=60))
@settings(max_examples=150)
def test_every_subscriber_gets_every_event_once_and_every_text_whole(steps: list[Any]) -> None:
    trio.run(_history, steps, clock=trio.testing.MockClock(autojump_threshold=0))
