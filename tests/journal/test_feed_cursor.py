"""Cursors, filters, snapshots instead of deltas, and the end of a feed (contract 4, G8, G9)."""

from __future__ import annotations

import itertools

import orjson
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.journal import Feed, FeedEntry, Journal, transient_entry
from crush_trio.protocol.events import MessageDelta, Replayed, Resync, ToolOutput
from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Selection
from crush_trio.store.memory import MemoryStore
from tests.journal.conftest import Desk, notes
from tests.journal.subscriber import SESSIONS, W, settle

A, B = SESSIONS


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


async def test_who_joins_between_a_messages_event_and_its_hold_is_shown_it_before_its_deltas(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """G8: the event came too early for this subscriber, the deltas alone would hang in the air."""
    before = desk.feed.last_seq
    early = desk.join(before)
    await desk.author.begin("m", A, hold=False)
    await early.drain()
    late = desk.join(None)
    await late.drain()
    desk.author.hold("m", since=before)
    desk.author.write("m", "one")
    await early.drain()
    await late.drain()
    assert early.texts == late.texts == {"m": "one"}
    assert (early.states, early.deltas) == (0, 1)
    assert (late.states, late.deltas) == (1, 0)
