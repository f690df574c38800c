"""How a subscriber is served: history, present state, live, falling behind, the end (G8, G9)."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.journal import Feed, FeedEntry, Journal, JournalReader, transient_entry
from crush_trio.protocol.events import MessageDelta, Replayed, Resync, ToolOutput
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Selection
from crush_trio.store.memory import MemoryStore, open_memory_store
from tests.journal.subscriber import SESSIONS, Author, Subscriber, W, settle

A, B = SESSIONS


@attrs.define
class Desk:
    """A workspace with an author, and the way to subscribe to it."""

    store: MemoryStore
    journal: Journal
    author: Author

    @property
    def feed(self) -> Feed:
        return self.author.feed

    def join(self, cursor: int | None = None, **more: Any) -> Subscriber:
        return Subscriber(JournalReader(self.store, self.feed, cursor=cursor, **more))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    journal = Journal()
    async with open_memory_store(publish=journal.publish) as store:
        yield Desk(store, journal, await Author.start(store, journal))


async def notes(desk: Desk, count: int, session: Any = A) -> None:
    for _ in range(count):
        desk.author.note(session)
    await settle()


async def test_history_comes_before_what_is_live(autojump_clock: MockClock, desk: Desk) -> None:
    await notes(desk, 3)
    subscriber = desk.join(1)
    await subscriber.drain()
    assert (subscriber.seqs, subscriber.controls) == ([2, 3], [Replayed(3)])
    await notes(desk, 2)
    await subscriber.drain()
    assert (subscriber.seqs, subscriber.controls) == ([2, 3, 4, 5], [Replayed(3)])


async def test_from_now_on_there_is_no_history(autojump_clock: MockClock, desk: Desk) -> None:
    await notes(desk, 3)
    subscriber = desk.join(None)
    await notes(desk, 1)
    await subscriber.drain()
    assert subscriber.seqs == [4]


async def test_what_is_ready_travels_as_one_frame_without_waiting(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None)
    await notes(desk, 50)
    started = trio.current_time()
    assert await subscriber.step()
    assert (len(subscriber.seqs), subscriber.frames) == (50, 1)
    assert trio.current_time() == started


async def test_frames_are_bounded_and_a_large_object_travels_alone(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None)
    await desk.author.begin("m", A)
    await subscriber.drain()
    for size in (10, limits.FRAME_JOIN_BYTES - 100, 10, limits.FRAME_JOIN_BYTES * 3, 10):
        desk.author.write("m", "x" * size)
    sizes = []
    while raw := await subscriber.reader.next_frame(0):
        sizes.append(len(raw))
        assert len(orjson.loads(raw)) == 1 or len(raw) <= limits.FRAME_JOIN_BYTES
    assert len(sizes) == 5


async def test_a_waiting_reader_is_woken_by_an_event(autojump_clock: MockClock, desk: Desk) -> None:
    subscriber = desk.join(None)
    await subscriber.drain()
    woken = trio.Event()

    async def wait() -> None:
        assert await subscriber.step(60.0)
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await settle()
        assert not woken.is_set()
        started = trio.current_time()
        await notes(desk, 1)
        await woken.wait()
        assert trio.current_time() == started


async def test_nothing_to_send_is_an_empty_frame_at_the_deadline(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None)
    await subscriber.drain()
    started = trio.current_time()
    assert await subscriber.reader.next_frame(20.0) == b""
    assert trio.current_time() == started + 20.0


async def test_who_joins_gets_the_present_state_of_what_is_open(
    autojump_clock: MockClock, desk: Desk
) -> None:
    early = desk.join(None)
    await early.drain()
    await desk.author.begin("m", A)
    desk.author.write("m", "Once upon")
    late = desk.join(None)
    await late.step()
    assert (late.texts, late.states) == ({"m": "Once upon"}, 1)
    assert late.controls == [Replayed(1)]
    desk.author.write("m", " a time")
    await early.drain()
    await late.drain()
    assert early.texts == late.texts == {"m": "Once upon a time"}
    assert (early.states, early.deltas, late.deltas) == (0, 2, 1)


async def test_who_joins_while_the_end_is_being_written_gets_no_older_state_after_it(
    autojump_clock: MockClock,
    desk: Desk,
) -> None:
    await desk.author.begin("m", A)
    desk.author.write("m", "all of it")
    desk.store.pause()
    desk.author.finish("m")
    between = desk.join(0)
    await between.drain()
    assert between.texts == {"m": ""}
    desk.store.resume()
    await settle()
    after = desk.join(0)
    for subscriber in (between, after):
        await subscriber.drain()
        assert subscriber.texts == {"m": "all of it"}
        assert subscriber.finished == {"m"}


async def test_who_falls_behind_goes_on_from_the_table_and_takes_the_present(
    autojump_clock: MockClock, desk: Desk
) -> None:
    slow = desk.join(None)
    await slow.drain()
    await desk.author.begin("m", A)
    for _ in range(limits.FEED_ENTRIES * 2):
        desk.author.write("m", "x")
    await notes(desk, 10)
    assert slow.reader._position < desk.feed.start  # it took place
    await slow.drain()
    assert slow.seqs == list(range(1, 12))
    assert slow.texts == {"m": "x" * limits.FEED_ENTRIES * 2}
    assert (slow.states, slow.deltas) == (1, 0)
    assert slow.controls == [Replayed(0)]  # said once


async def test_the_ring_is_bounded_by_number_and_by_size(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None)
    await desk.author.begin("m", A)
    for _ in range(limits.FEED_ENTRIES * 2):
        desk.author.write("m", "x")
    assert desk.feed.end - desk.feed.start == limits.FEED_ENTRIES
    for _ in range(40):
        desk.author.write("m", "x" * 500_000)
    feed = desk.feed
    held = sum(len(feed.at(position).data) for position in range(feed.start, feed.end))
    assert held <= limits.FEED_BYTES
    subscriber.reader.close()


async def test_without_readers_nothing_is_kept(autojump_clock: MockClock, desk: Desk) -> None:
    await desk.author.begin("m", A)
    desk.author.write("m", "x")
    await notes(desk, 3)
    assert (desk.feed.start, desk.feed.end, desk.feed.last_seq) == (0, 0, 4)
    with desk.join(None).reader:
        desk.author.write("m", "x")
        assert desk.feed.end == 1
    assert desk.feed.start == desk.feed.end == 1


@pytest.mark.parametrize(
    ("cursor", "epoch", "reason"), [(9, None, "cursor_ahead"), (1, "another", "epoch")]
)
async def test_a_cursor_of_another_numbering_gives_one_resync(
    autojump_clock: MockClock, desk: Desk, cursor: int, epoch: str | None, reason: str
) -> None:
    await notes(desk, 3)
    await desk.author.begin("m", A)
    desk.author.write("m", "open")
    subscriber = desk.join(cursor, epoch=epoch)
    await notes(desk, 2)
    await subscriber.drain()
    assert subscriber.controls[0] == Resync(reason, 4, desk.store.epoch)
    assert [type(frame) for frame in subscriber.controls] == [Resync, Replayed]
    assert subscriber.seqs == [5, 6]
    assert subscriber.texts == {"m": "open"}


async def test_a_known_epoch_is_no_reason_for_a_resync(
    autojump_clock: MockClock, desk: Desk
) -> None:
    await notes(desk, 3)
    subscriber = desk.join(1, epoch=desk.store.epoch)
    await subscriber.drain()
    assert (subscriber.seqs, subscriber.controls) == ([2, 3], [Replayed(3)])


async def test_a_cursor_beyond_retention_gives_one_resync(
    autojump_clock: MockClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EVENT_RETENTION_COUNT", 5)
    await notes(desk, 20)
    too_old, just_kept = desk.join(14), desk.join(15)
    await too_old.drain()
    await just_kept.drain()
    assert too_old.controls[0] == Resync("too_old", 20, desk.store.epoch)
    assert [type(frame) for frame in too_old.controls] == [Resync, Replayed]
    assert too_old.seqs == []
    assert just_kept.seqs == [16, 17, 18, 19, 20]
    await notes(desk, 1)
    await too_old.drain()
    assert too_old.seqs == [21]


async def test_a_filter_applies_to_history_ring_and_present_state_alike(
    autojump_clock: MockClock, desk: Desk
) -> None:
    await notes(desk, 2, A)
    await notes(desk, 2, B)
    await desk.author.begin("ma", A)
    await desk.author.begin("mb", B)
    mine = desk.join(0, selection=Selection(session_id=A))
    kinds = desk.join(0, selection=Selection(kinds=frozenset({"agent_event"})))
    messages = desk.join(0, selection=Selection(kinds=frozenset({"message"})))
    desk.author.note(B)
    desk.author.note(None)
    await settle()
    for subscriber in (mine, kinds, messages):
        await subscriber.step()
        await subscriber.step()
    desk.author.write("ma", "x")
    desk.author.write("mb", "y")
    for subscriber in (mine, kinds, messages):
        await subscriber.drain()
        assert subscriber.reader.progress == 8
    assert (mine.seqs, mine.texts) == ([1, 2, 5, 8], {"ma": "x"})
    assert (kinds.seqs, kinds.texts) == ([1, 2, 3, 4, 7, 8], {})
    assert (messages.seqs, messages.texts) == ([5, 6], {"ma": "x", "mb": "y"})


async def test_progress_passes_what_was_not_selected(autojump_clock: MockClock, desk: Desk) -> None:
    """Contract 4: a ping's seq says that everything selected up to it has been sent."""
    subscriber = desk.join(0, selection=Selection(session_id=B))
    await notes(desk, 9, A)
    await subscriber.drain()
    assert (subscriber.seqs, subscriber.reader.progress) == ([], 9)


async def test_progress_does_not_pass_what_was_not_sent(
    autojump_clock: MockClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FRAME_JOIN_BYTES", 400)
    await notes(desk, 9)
    subscriber = desk.join(0)
    while await subscriber.step():
        assert subscriber.reader.progress == (subscriber.seqs or [0])[-1]
    assert subscriber.frames > 4


async def test_snapshots_replace_deltas_at_most_every_33_ms(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None, detail="snapshot")
    await desk.author.begin("m", A)
    times: list[float] = []

    async def read() -> None:
        while await subscriber.step(1.0):
            if subscriber.states > len(times):
                times.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for _ in range(200):
            desk.author.write("m", "x")
            await trio.sleep(0.001)
        await trio.sleep(0.1)
        assert subscriber.texts == {"m": "x" * 200}
    assert subscriber.deltas == 0
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= limits.SNAPSHOT_INTERVAL_S - 1e-9
    assert 5 <= len(times) <= 8


async def test_tool_output_passes_a_snapshot_reader_as_it_is(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None, detail="snapshot")
    await subscriber.drain()
    desk.feed.transient(
        transient_entry(ToolOutput("t", A, "stdout", 0, "x"), session_ids=(A,), key="t")
    )
    batch = await subscriber.reader.next_batch(0)
    assert batch is not None
    assert [entry.kind for entry in batch] == ["tool_output"]


async def test_the_end_comes_after_everything_and_stays(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber, waiting = desk.join(0), desk.join(None, detail="snapshot")
    await waiting.drain()
    await notes(desk, 3)
    await desk.author.begin("m", A)
    await waiting.step()
    desk.author.write("m", "last words")
    desk.journal.close(W, "server_stopping")
    await subscriber.drain()
    await waiting.drain()
    assert subscriber.seqs == [1, 2, 3, 4]
    assert subscriber.texts == waiting.texts == {"m": "last words"}
    assert subscriber.ended
    assert waiting.ended
    assert await subscriber.reader.next_frame() is None
    assert desk.feed.closed == "server_stopping"


async def test_a_reader_that_waits_is_told_of_the_end(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None)
    await subscriber.drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriber.drain, 60.0)
        await settle()
        started = trio.current_time()
        desk.feed.close("closing")
    assert subscriber.ended
    assert trio.current_time() == started


async def test_a_cancelled_reader_has_lost_nothing(autojump_clock: MockClock, desk: Desk) -> None:
    subscriber = desk.join(0)
    await notes(desk, 3)
    with trio.CancelScope() as scope:
        scope.cancel()
        await subscriber.step()
    assert scope.cancelled_caught
    await subscriber.drain()
    assert subscriber.seqs == [1, 2, 3]


async def test_a_reader_that_reads_nothing_delays_nobody(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """G9."""
    desk.join(0)
    brisk = desk.join(0)
    await brisk.drain()
    await desk.author.begin("m", A)
    for n in range(limits.FEED_ENTRIES * 2):
        desk.author.write("m", "x")
        if n % 1_000 == 0:
            await brisk.drain(0)
    await brisk.drain()
    assert brisk.texts == {"m": "x" * limits.FEED_ENTRIES * 2}
    assert brisk.states == 0  # it never fell behind


async def test_control_objects_name_the_workspace_where_asked(
    autojump_clock: MockClock, desk: Desk
) -> None:
    raw = await desk.join(None, tag=True).reader.next_frame(0)
    assert raw is not None
    assert orjson.loads(raw) == [{"type": "replayed", "seq": 0, "workspace_id": W}]


async def test_a_feed_opened_while_commits_are_made_knows_every_event(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.journal.close(W, "again")
    async with trio.open_nursery() as nursery:
        feeds: list[Feed] = []

        async def open_feed() -> None:
            feeds.append(await desk.journal.open(desk.store, W))

        for _ in range(3):
            nursery.start_soon(open_feed)
            desk.author.note(A)
        await settle()
        desk.author.note(A)
    assert feeds[0] is feeds[1] is feeds[2] is desk.journal.feed(W)
    await settle()
    assert feeds[0].last_seq == await desk.store.last_seq(W) == 4


async def test_a_workspace_without_a_feed_only_stores(
    autojump_clock: MockClock, desk: Desk
) -> None:
    other = WorkspaceId("other")
    await desk.store.commit_nowait(other, lambda tx: tx.emit("run", "created", {})).wait()
    assert desk.journal.feed(other) is None
    assert (await desk.journal.open(desk.store, other)).last_seq == 1


async def test_one_key_is_held_once(autojump_clock: MockClock, desk: Desk) -> None:
    desk.feed.hold("k", (A,), list)
    with pytest.raises(ValueError, match="held already"):
        desk.feed.hold("k", (A,), list)
    desk.feed.release("k")
    desk.feed.release("k")
    desk.feed.hold("k", (A,), list)


def test_the_fixed_part_of_a_delta_is_small() -> None:
    """Contract 4: at most 160 bytes, with ids of their usual length left out."""
    empty = transient_entry(
        MessageDelta("", "", "", 0, "reasoning", 0, ""), session_ids=(A,), key="m"
    )
    assert isinstance(empty, FeedEntry)
    assert len(empty.data) <= 160


async def test_what_is_written_between_joining_and_reading_is_in_the_present_state_alone(
    autojump_clock: MockClock, desk: Desk
) -> None:
    await desk.author.begin("m", A)
    desk.author.write("m", "one ")
    late = desk.join(None)
    desk.author.write("m", "two ")
    desk.author.write("m", "three")
    await late.drain()
    assert late.texts == {"m": "one two three"}
    assert (late.states, late.deltas) == (1, 0)


async def test_present_states_that_fill_several_frames_are_each_of_their_own_moment(
    autojump_clock: MockClock, desk: Desk
) -> None:
    names = [f"m{n}" for n in range(6)]
    for name in names:
        await desk.author.begin(name, A)
        desk.author.write(name, "x" * (limits.FRAME_JOIN_BYTES // 2))
    late = desk.join(None)
    while await late.step():
        for name in names:
            if name in desk.author.open and len(desk.author.written[name]) < 40_000:
                desk.author.write(name, "and more")
        if late.frames == 2:
            desk.author.finish("m5")  # before its turn came
        await settle()
    assert late.frames >= 6
    assert late.texts == desk.author.written
    assert late.states == 5
    assert "m5" in late.finished
    assert [type(frame) for frame in late.controls] == [Replayed]


async def test_an_event_that_the_store_and_the_ring_both_have_comes_once(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """A feed may be opened between an event's commit and its publication."""
    await notes(desk, 3)
    page = await desk.store.events(W, after=0, upto=3, selection=Selection(), limit=9)
    subscriber, now = desk.join(0), desk.join(None)
    desk.feed.publish(page.events[1:])
    await notes(desk, 1)
    await subscriber.drain()
    await now.drain()
    assert (subscriber.seqs, now.seqs) == ([1, 2, 3, 4], [4])


async def test_a_feed_that_closes_waits_for_no_interval(
    autojump_clock: MockClock, desk: Desk
) -> None:
    subscriber = desk.join(None, detail="snapshot")
    await desk.author.begin("m", A)
    await subscriber.drain()
    desk.author.write("m", "some words")
    assert await subscriber.step()
    desk.author.write("m", ", and the last")
    desk.feed.close("bye")
    await subscriber.drain(0)
    assert subscriber.texts == {"m": "some words, and the last"}
    assert subscriber.ended


class LateStore(MemoryStore):
    """Its answer is old by the time it is given."""

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        seq = await super().last_seq(workspace_id)
        await self.commit_nowait(workspace_id, lambda tx: tx.emit("run", "created", {})).wait()
        return seq


async def test_an_event_published_while_a_feed_is_opened_is_counted() -> None:
    journal = Journal()
    store = LateStore(publish=journal.publish)
    feed = await journal.open(store, W)
    assert feed.last_seq == 1
