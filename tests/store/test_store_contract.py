"""How commits are applied (G2, G8): one suite, run against the disk and against memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest
import trio

from crush_trio import limits
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import (
    Selection,
    Transaction,
)
from tests.store.conftest import Bench
from tests.store.samples import S, W, finished, message, notice, run_row

OTHER = WorkspaceId("other")


def seqs(events: Any) -> list[int]:
    return [event.seq for event in events]


def putting(*messages: tuple[Message, int, int]) -> Callable[[Transaction], None]:
    def commit(tx: Transaction) -> None:
        for item, accept_seq, ordinal in messages:
            tx.put_message(item, accept_seq=accept_seq, ordinal=ordinal)

    return commit


async def test_commits_are_applied_in_the_order_in_which_they_were_queued(bench: Bench) -> None:
    order: list[int] = []

    def numbered(n: int) -> Callable[[Transaction], int]:
        def commit(tx: Transaction) -> int:
            order.append(n)
            return tx.emit("agent_event", "updated", {})

        return commit

    tickets = [bench.store.commit_nowait(W, numbered(n)) for n in range(500)]
    values = [(await ticket.wait()).value for ticket in tickets]
    assert order == list(range(500))
    assert values == list(range(1, 501))


async def test_a_commit_is_queued_in_one_step_and_applied_in_a_later_one(bench: Bench) -> None:
    with trio.testing.assert_no_checkpoints():
        ticket = bench.store.commit_nowait(W, notice("a"))
    assert not bench.published
    await ticket.wait()
    assert seqs(event for _, event in bench.published) == [1]


async def test_events_are_published_after_their_commit_and_before_its_ticket(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []

    async def wait(ticket: Any, seq: int) -> None:
        await ticket.wait()
        seen.append((seq, len(bench.published)))
        page = await bench.store.events(W, after=0, upto=99, selection=Selection(), limit=99)
        assert seq in seqs(page.events)

    async with trio.open_nursery() as nursery:
        for seq in range(1, 21):
            nursery.start_soon(wait, bench.store.commit_nowait(W, notice("x")), seq)
    assert sorted(seq for seq, _ in seen) == list(range(1, 21))
    assert all(published >= seq for seq, published in seen)
    assert seqs(event for _, event in bench.published) == list(range(1, 21))


async def test_a_failing_commit_undoes_only_itself_and_leaves_no_gap(bench: Bench) -> None:
    def fails(tx: Transaction) -> None:
        tx.put_session(Session(S, title="never"))
        tx.put_message(message("m"), accept_seq=1, ordinal=0)
        tx.insert_run(run_row("r", accept=9))
        tx.add_file_change(S, "/f", None, "x")
        tx.mark_read(S, "/f", 1)
        tx.emit("agent_event", "updated", {"type": "never"}, session_id=S)
        tx.remove_session(S)
        raise KeyError("my own")

    first, broken, second = (
        bench.store.commit_nowait(W, commit) for commit in (notice("a"), fails, notice("b"))
    )
    assert (await first.wait()).value == 1
    with pytest.raises(KeyError, match="my own"):
        await broken.wait()
    done = await second.wait()
    assert (done.value, done.first_seq, done.last_seq) == (2, 2, 2)
    assert await bench.store.session(S) == (W, Session(S, title="first"))
    assert await bench.store.run(RunId("r")) is None
    assert await bench.store.file_versions(S) == ()
    assert await bench.store.reads(S) == {}
    assert (await bench.store.workspaces())[0].last_accept == 0
    assert [orjson.loads(e.data)["payload"]["payload"]["type"] for _, e in bench.published] == [
        "a",
        "b",
    ]


async def test_any_mix_of_failing_and_holding_commits_numbers_events_without_a_gap(
    bench: Bench,
) -> None:
    choice = random.Random(7)
    tickets = []
    for _ in range(300):
        workspace_id, emits, fails = (
            choice.choice([W, OTHER]),
            choice.randrange(4),
            choice.random() < 0.3,
        )

        def commit(tx: Transaction, emits: int = emits, fails: bool = fails) -> int:
            for _ in range(emits):
                assert tx.emit("agent_event", "updated", {}) == tx.next_seq() - 1
            if fails:
                raise ValueError("on purpose")
            return emits

        tickets.append((bench.store.commit_nowait(workspace_id, commit), fails, emits))
        if choice.random() < 0.1:
            await trio.lowlevel.checkpoint()
    for ticket, fails, emits in tickets:
        if fails:
            with pytest.raises(ValueError, match="on purpose"):
                await ticket.wait()
        else:
            done = await ticket.wait()
            assert done.last_seq - done.first_seq + 1 == emits
    for workspace_id in (W, OTHER):
        mine = [event.seq for owner, event in bench.published if owner == workspace_id]
        assert mine == list(range(1, len(mine) + 1))
        assert await bench.store.last_seq(workspace_id) == len(mine)
        page = await bench.store.events(
            workspace_id, after=0, upto=len(mine), selection=Selection(), limit=len(mine)
        )
        assert seqs(page.events) == mine, "what was published is what is stored"


async def test_a_waiter_that_is_cancelled_withdraws_nothing(bench: Bench) -> None:
    ticket = bench.store.commit_nowait(W, notice("a"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await ticket.wait()
    assert scope.cancelled_caught
    assert (await ticket.wait()).value == 1
    assert (await ticket.wait()).value == 1  # any number of times


async def test_what_a_commit_does_it_sees(bench: Bench) -> None:
    def commit(tx: Transaction) -> None:
        tx.put_session(Session(SessionId("child"), parent_session_id=S))
        tx.put_message(message("m1"), accept_seq=2, ordinal=0)
        tx.put_message(message("m0"), accept_seq=1, ordinal=0)
        tx.insert_run(run_row("r"))
        assert tx.sub_sessions(S) == ("child",)
        assert [row.message.id for row in tx.messages(S)] == ["m0", "m1"]
        assert tx.messages(S)[1].accept_seq == 2
        assert tx.message(MessageId("m1")) == message("m1")
        assert tx.run(RunId("r")) == run_row("r")
        session = tx.session(S)
        assert session is not None
        assert session.message_count == 2
        assert tx.session(SessionId("unknown")) is None
        assert tx.next_seq() == 1
        assert tx.emit("agent_event", "updated", {}) == 1
        assert tx.next_seq() == 2
        assert (tx.workspace_id, tx.now_ms) == (W, bench.now_ms)

    await bench.commit(commit)


async def test_too_many_waiting_commits_are_refused_before_anything_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WRITER_QUEUE_MAX", 3)
    bench.store.check_room()
    tickets = [bench.store.commit_nowait(W, notice("x")) for _ in range(3)]
    with pytest.raises(StoreError) as caught:
        bench.store.commit_nowait(W, notice("one too many"))
    with pytest.raises(StoreError):
        bench.store.check_room()
    assert caught.value.code == "overloaded"
    assert [(await ticket.wait()).value for ticket in tickets] == [1, 2, 3]
    assert await bench.commit(notice("again")) == 4


async def test_a_snapshot_is_of_one_event_however_many_commits_go_on(bench: Bench) -> None:
    """Each commit writes one message, one run and one event: a snapshot has as many of each."""
    total = 150

    def step(n: int) -> Callable[[Transaction], None]:
        def commit(tx: Transaction) -> None:
            tx.put_message(message(f"m{n}"), accept_seq=n, ordinal=0)
            tx.insert_run(run_row(f"r{n}", accept=n))
            tx.emit("message", "created", message(f"m{n}"), session_id=S)

        return commit

    async def write() -> None:
        for n in range(1, total + 1):
            await bench.store.commit_nowait(W, step(n)).wait()

    seen = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while True:
            shot = await bench.store.snapshot(W, S, messages=total, before=None)
            assert len(shot.messages) == len(shot.runs) == shot.seq
            assert shot.sessions[0].message_count == shot.seq
            seen.add(shot.seq)
            if shot.seq == total:
                break
    assert len(seen) > 2  # some were taken in the middle


async def test_a_snapshot_holds_the_session_and_what_is_open_below_it(bench: Bench) -> None:
    child = SessionId("child")

    def commit(tx: Transaction) -> None:
        tx.put_session(Session(child, parent_session_id=S))
        tx.put_session(Session(SessionId("t")))
        for n, session in enumerate((S, child, "t"), start=1):
            tx.insert_run(run_row(f"r{n}", accept=n, session=session))
        tx.insert_run(run_row("done", accept=9))
        tx.put_run(finished(run_row("done", accept=9)))

    await bench.commit(commit)
    await bench.commit(putting(*((message(f"m{n}"), n, 0) for n in range(4))))
    shot = await bench.store.snapshot(W, S, messages=2, before=MessageId("m3"))
    assert [s.id for s in shot.sessions] == [S]
    assert [m.id for m in shot.messages] == ["m1", "m2"]
    assert [r.id for r in shot.runs] == ["r1", "r2"]
    whole = await bench.store.snapshot(W, None, messages=5, before=None)
    assert {s.id for s in whole.sessions} == {S, child, "t"}
    assert whole.messages == ()
    assert [r.id for r in whole.runs] == ["r1", "r2", "r3"]
    nothing = await bench.store.snapshot(W, SessionId("unknown"), messages=5, before=None)
    assert (nothing.sessions, nothing.messages, nothing.runs) == ((), (), ())


async def test_a_changed_run_is_stored_whole(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    changed = attrs.evolve(
        finished(run_row("r")),
        request=attrs.evolve(run_row("r").request, prompt="edited"),
        digest="new",
        principal="me",
    )
    await bench.commit(lambda tx: tx.put_run(changed))
    assert await bench.store.run(RunId("r")) == changed


async def test_a_relaxed_commit_keeps_its_place_among_the_others(bench: Bench) -> None:
    tickets = [bench.store.commit_nowait(W, notice(str(n)), relaxed=n % 3 > 0) for n in range(60)]
    assert [(await ticket.wait()).value for ticket in tickets] == list(range(1, 61))
