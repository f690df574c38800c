"""How a subscriber is served: history, present state, live, falling behind (G8, G9)."""

from __future__ import annotations

import orjson
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.protocol.events import Replayed
from tests.journal.conftest import Desk, notes
from tests.journal.subscriber import SESSIONS, settle

A, B = SESSIONS


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
