"""What every store promises (G2, G8): one suite, run against the disk and against memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest
import trio

from crush_trio import limits
from crush_trio.protocol.codec import decode_frames
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.events import Event
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import RunRecord
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import (
    ConstraintError,
    DuplicateRunError,
    Selection,
    StoredEvent,
    Transaction,
    WorkspaceRow,
)
from tests.store.conftest import Bench
from tests.store.samples import S, W, ending, finished, founding, message, notice, run_row

OTHER = WorkspaceId("other")


def seqs(events: Any) -> list[int]:
    return [event.seq for event in events]


def putting(*messages: tuple[Message, int, int]) -> Callable[[Transaction], None]:
    def commit(tx: Transaction) -> None:
        for item, accept_seq, ordinal in messages:
            tx.put_message(item, accept_seq=accept_seq, ordinal=ordinal)

    return commit


# --- commits --------------------------------------------------------------------------------


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


# --- rows -----------------------------------------------------------------------------------


async def test_a_run_id_is_taken_once_in_all_workspaces(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    for workspace_id in (W, OTHER):

        def again(tx: Transaction, workspace_id: WorkspaceId = workspace_id) -> None:
            if workspace_id == OTHER:
                tx.put_workspace(WorkspaceRow(OTHER, "/o", 1))
            tx.emit("agent_event", "updated", {})
            tx.insert_run(run_row("r", workspace=workspace_id, digest="another"))

        with pytest.raises(DuplicateRunError):
            await bench.commit(again, workspace_id)
    stored = await bench.store.run(RunId("r"))
    assert stored == run_row("r")
    assert not bench.published


async def test_a_second_terminal_event_of_a_run_is_refused(bench: Bench) -> None:
    """G1."""
    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    await bench.commit(ending(run_row("r")))
    with pytest.raises(ConstraintError):
        await bench.commit(ending(run_row("r")))
    assert [event.kind for _, event in bench.published] == ["run_complete"]


@pytest.mark.parametrize(
    "commit",
    [
        lambda tx: tx.put_message(message("m", session="unknown"), accept_seq=1, ordinal=0),
        lambda tx: tx.put_run(run_row("unknown")),
        lambda tx: tx.insert_run(run_row("r", workspace=OTHER)),
        lambda tx: tx.put_workspace(WorkspaceRow(OTHER, "/w", 1)),
        lambda tx: tx.add_file_change(SessionId("unknown"), "/f", None, "x"),
        lambda tx: tx.mark_read(SessionId("unknown"), "/f", 1),
    ],
)
async def test_a_row_without_its_owner_is_refused(bench: Bench, commit: Any) -> None:
    with pytest.raises(ConstraintError):
        await bench.commit(commit)
    assert await bench.commit(notice("goes on")) == 1


async def test_a_session_of_another_workspace_is_neither_seen_nor_taken(bench: Bench) -> None:
    def other(tx: Transaction) -> None:
        tx.put_workspace(WorkspaceRow(OTHER, "/o", 1))
        assert tx.session(S) is None
        tx.put_session(Session(S, title="taken"))

    with pytest.raises(ConstraintError):
        await bench.commit(other, OTHER)
    assert await bench.store.session(S) == (W, Session(S, title="first"))


async def test_messages_are_ordered_by_run_and_ordinal_and_keep_their_place(bench: Bench) -> None:
    """G7: never by time, never by the order of writing."""
    places = list(itertools.product([1, 2, 3], [0, 1]))
    shuffled = places[:]
    random.Random(3).shuffle(shuffled)
    await bench.commit(putting(*((message(f"m{a}{o}"), a, o) for a, o in shuffled)))
    wanted = [f"m{a}{o}" for a, o in places]
    assert [m.id for m in await bench.store.messages(S)] == wanted
    await bench.commit(putting((message("m10", "new text"), 9, 9)))
    after = await bench.store.messages(S)
    assert [m.id for m in after] == wanted
    assert after[0].text() == "new text"
    found = await bench.store.session(S)
    assert found is not None
    assert found[1].message_count == 6


async def test_messages_are_read_in_pages_from_the_newest_on(bench: Bench) -> None:
    await bench.commit(putting(*((message(f"m{n}"), n, 0) for n in range(7))))

    async def page(limit: int, before: str | None) -> list[str]:
        last = None if before is None else MessageId(before)
        return [m.id for m in await bench.store.messages(S, limit=limit, before=last)]

    assert await page(3, None) == ["m4", "m5", "m6"]
    assert await page(3, "m4") == ["m1", "m2", "m3"]
    assert await page(3, "m1") == ["m0"]
    assert await page(3, "m0") == []
    assert await page(3, "unknown") == []
    assert await page(0, None) == []


async def test_user_messages_come_newest_first_of_one_session_or_all(bench: Bench) -> None:
    child = SessionId("child")
    await bench.commit(lambda tx: tx.put_session(Session(child, parent_session_id=S)))
    await bench.commit(
        putting(
            (message("a"), 1, 0),
            (message("answer", role="assistant"), 1, 1),
            (message("b", session=child), 2, 0),
            (message("c"), 3, 0),
        )
    )
    assert [m.id for m in await bench.store.user_messages(W)] == ["c", "b", "a"]
    assert [m.id for m in await bench.store.user_messages(W, S)] == ["c", "a"]
    assert await bench.store.user_messages(OTHER) == ()


async def test_sessions_are_listed_top_level_only_and_newest_first(bench: Bench) -> None:
    def commit(tx: Transaction) -> None:
        for name, updated, parent in (("a", 5, ""), ("b", 9, ""), ("c", 5, ""), ("d", 99, "a")):
            tx.put_session(Session(SessionId(name), parent_session_id=parent, updated_at=updated))

    await bench.commit(commit)
    assert [s.id for s in await bench.store.sessions(W)] == ["b", "c", "a", S]
    assert await bench.store.session(SessionId("unknown")) is None


async def test_runs_are_listed_newest_first_by_filter_and_page(bench: Bench) -> None:
    def commit(tx: Transaction) -> None:
        for n in range(5):
            tx.insert_run(run_row(f"r{n}", accept=n + 1, session=S if n % 2 else "t"))
        tx.put_run(finished(run_row("r1", accept=2)))

    await bench.commit(commit)

    async def ids(**wanted: Any) -> list[str]:
        found: tuple[RunRecord, ...] = await bench.store.runs(**{"limit": 10, **wanted})
        return [record.id for record in found]

    assert await ids() == ["r4", "r3", "r2", "r1", "r0"]
    assert await ids(limit=2, before=RunId("r3")) == ["r2", "r1"]
    assert await ids(before=RunId("unknown")) == []
    assert await ids(session_id=S) == ["r3", "r1"]
    assert await ids(session_id=S, state="queued") == ["r3"]
    assert await ids(workspace_id=OTHER) == []
    assert [row.record.id for row in await bench.store.open_runs()] == ["r0", "r2", "r3", "r4"]
    assert (await bench.store.workspaces())[0].last_accept == 5


async def test_open_runs_are_given_whole_by_workspace_and_accept_sequence(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.put_workspace(WorkspaceRow(OTHER, "/o", 1)), OTHER)
    wanted = []
    for workspace_id in (W, OTHER):
        for accept in (3, 1, 2):
            row = run_row(f"{workspace_id}{accept}", accept=accept, workspace=workspace_id)
            await bench.commit(lambda tx, row=row: tx.insert_run(row), workspace_id)
            wanted.append(row)
    wanted.sort(key=lambda row: (row.record.workspace_id, row.record.accept_seq))
    assert list(await bench.store.open_runs()) == wanted


async def test_a_removed_session_leaves_tombstones_and_nothing_else(bench: Bench) -> None:
    """G3: the same run id still gets its receipt, and its texts are gone."""

    def fill(tx: Transaction) -> None:
        tx.put_session(Session(SessionId("stays")))
        tx.put_message(message("m"), accept_seq=1, ordinal=0)
        tx.add_file_change(S, "/f", "old", "new")
        tx.mark_read(S, "/f", 7)
        tx.insert_run(run_row("r"))
        tx.emit("agent_event", "updated", {"type": "gone"}, session_id=S)
        tx.emit("agent_event", "updated", {"type": "kept"}, session_id=SessionId("stays"))

    await bench.commit(fill)
    await bench.commit(ending(run_row("r")))

    def remove(tx: Transaction) -> None:
        session = tx.session(S)
        assert session is not None
        tx.emit("session", "deleted", session, session_id=S)
        tx.remove_session(S)
        assert tx.session(S) is None
        tx.emit("agent_event", "updated", {"type": "after"}, session_id=S)

    await bench.commit(remove)
    assert await bench.store.session(S) is None
    assert await bench.store.messages(S) == ()
    assert await bench.store.file_versions(S) == ()
    assert await bench.store.reads(S) == {}
    stored = await bench.store.run(RunId("r"))
    assert stored is not None
    assert (stored.digest, stored.receipt) == ("d", run_row("r").receipt)
    assert stored.record.deleted
    assert (stored.record.prompt, stored.record.text, stored.request.prompt) == ("", "", "")
    page = await bench.store.events(W, after=0, upto=99, selection=Selection(), limit=99)
    assert [(event.seq, event.kind) for event in page.events] == [
        (2, "agent_event"),
        (4, "session"),
        (5, "agent_event"),
    ]
    assert page.oldest == 1  # nothing that a subscriber could still want is missing
    await bench.commit(lambda tx: tx.remove_session(S))  # twice is harmless


async def test_a_removed_workspace_is_gone_but_its_numbers_are_never_given_again(
    bench: Bench,
) -> None:
    await bench.commit(lambda tx: tx.insert_run(run_row("r", accept=4)))
    await bench.commit(notice("a"))
    await bench.commit(putting((message("m"), 1, 0)))
    await bench.commit(lambda tx: tx.remove_workspace())
    assert await bench.store.workspaces() == ()
    assert await bench.store.session(S) is None
    assert await bench.store.run(RunId("r")) is None
    page = await bench.store.events(W, after=0, upto=99, selection=Selection(), limit=99)
    assert (page.events, page.oldest) == ((), 2)
    await bench.commit(founding)
    assert await bench.commit(notice("b")) == 2
    assert (await bench.store.workspaces())[0].last_accept == 4


async def test_a_changed_file_has_every_content_it_had(bench: Bench) -> None:
    """CW 7.4: version 0 before the first change; an outside change is stored in between."""

    async def change(before: str | None, after: str) -> list[tuple[int, str]]:
        added = await bench.commit(lambda tx: tx.add_file_change(S, "/f", before, after))
        return [(item.version, item.content) for item in added]

    assert await change("old", "a") == [(0, "old"), (1, "a")]
    assert await change("a", "b") == [(2, "b")]
    assert await change("edited by hand", "c") == [(3, "edited by hand"), (4, "c")]
    assert await change(None, "d") == [(5, ""), (6, "d")]
    await bench.commit(lambda tx: tx.add_file_change(S, "/a", None, "made"))
    stored = await bench.store.file_versions(S)
    assert [(item.path, item.version) for item in stored] == [
        ("/a", 0),
        ("/a", 1),
        *(("/f", n) for n in range(7)),
    ]
    assert stored[0].content == ""
    assert stored[0].created_at == bench.now_ms // 1000


async def test_the_last_read_of_each_file_is_known_newest_first(bench: Bench) -> None:
    for path, at_ns in (("/a", 5), ("/b", 9), ("/a", 7)):
        await bench.commit(lambda tx, path=path, at_ns=at_ns: tx.mark_read(S, path, at_ns))
    assert list((await bench.store.reads(S)).items()) == [("/b", 9), ("/a", 7)]


# --- events ---------------------------------------------------------------------------------


async def test_an_event_is_the_object_that_travels(bench: Bench) -> None:
    await bench.commit(lambda tx: tx.emit("message", "created", message("m"), session_id=S))
    (_, event) = bench.published[0]
    (frame,) = decode_frames(b"[" + event.data + b"]")
    assert frame == Event("message", "created", message("m"), W, seq=1, ts_ms=bench.now_ms)
    assert event == StoredEvent(1, bench.now_ms, "message", (S,), None, event.data)
    page = await bench.store.events(W, after=0, upto=1, selection=Selection(), limit=1)
    assert page.events == (event,)


async def test_an_event_too_large_for_a_frame_names_the_strings_it_cut(bench: Bench) -> None:
    """Contract 4."""
    long = "é" * limits.FRAME_OUT_BYTES
    await bench.commit(lambda tx: tx.emit("message", "created", message("m", long), session_id=S))
    data = bench.published[0][1].data
    assert len(data) <= limits.FRAME_OUT_BYTES
    value = orjson.loads(data)
    assert value["truncated"] == {"payload.payload.parts.0.data.text": "messages/m"}
    text = value["payload"]["payload"]["parts"][0]["data"]["text"]
    assert long.startswith(text)
    assert len(text) > 100_000


async def test_an_event_of_countless_strings_keeps_what_identifies_it(bench: Bench) -> None:
    payload = {"id": "x", "session_id": S, "lines": ["0123456789"] * 100_000}
    await bench.commit(lambda tx: tx.emit("skills_event", "updated", payload))
    value = orjson.loads(bench.published[0][1].data)
    assert value["payload"] == {"type": "updated", "payload": {"id": "x", "session_id": S}}
    assert value["truncated"] == {"payload.payload": "skills_event/x"}


async def test_a_filter_on_a_session_includes_its_sub_sessions(bench: Bench) -> None:
    def commit(tx: Transaction) -> None:
        tx.put_session(Session(SessionId("child"), parent_session_id=S))
        tx.put_session(Session(SessionId("grandchild"), parent_session_id="child"))
        tx.put_session(Session(SessionId('odd"id'), parent_session_id=S))
        for session in (S, "child", "grandchild", 'odd"id', "other", None):
            owner = None if session is None else SessionId(session)
            tx.emit("agent_event", "updated", {}, session_id=owner)

    await bench.commit(commit)

    async def of(session: str | None, kinds: frozenset[str] | None = None) -> list[int]:
        wanted = Selection(None if session is None else SessionId(session), kinds)
        page = await bench.store.events(W, after=0, upto=9, selection=wanted, limit=9)
        assert page.scanned == 6
        return seqs(page.events)

    assert await of(None) == [1, 2, 3, 4, 5, 6]
    assert await of(S) == [1, 2, 3, 4, 6]
    assert await of("child") == [2, 3, 6]
    assert await of('odd"id') == [4, 6]
    assert await of("id") == [6]
    assert await of(None, frozenset({"run", "message"})) == []
    assert await of("other", frozenset({"run", "agent_event"})) == [5, 6]
    assert await of("other", frozenset()) == []


async def test_the_sessions_of_an_event_are_those_of_its_time(bench: Bench) -> None:
    child = SessionId("child")
    await bench.commit(lambda tx: tx.put_session(Session(child, parent_session_id=S)))

    def remove(tx: Transaction) -> None:
        tx.remove_session(child)
        tx.emit("session", "deleted", Session(child), session_id=child)

    await bench.commit(remove)
    assert bench.published[-1][1].session_ids == (child, S)


async def test_events_are_read_in_pages_that_say_how_far_they_looked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        await bench.commit(notice(str(n), kind="retry" if n % 5 == 0 else "agent_event"))
    monkeypatch.setattr(limits, "EVENT_SCAN", 7)
    wanted = Selection(kinds=frozenset({"retry"}))

    async def page(after: int, upto: int, limit: int, selection: Selection) -> Any:
        found = await bench.store.events(
            W, after=after, upto=upto, selection=selection, limit=limit
        )
        return seqs(found.events), found.scanned, found.oldest

    assert await page(0, 20, 3, Selection()) == ([1, 2, 3], 3, 1)
    assert await page(3, 5, 99, Selection()) == ([4, 5], 5, 1)
    assert await page(0, 20, 99, wanted) == ([1, 6], 7, 1)
    assert await page(1, 5, 99, wanted) == ([], 5, 1)
    assert await page(18, 99, 99, Selection()) == ([19, 20], 20, 1)
    assert await page(20, 99, 99, Selection()) == ([], 20, 1)


async def test_a_page_of_large_events_ends_early(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EVENT_PAGE_BYTES", 2_500)
    for _ in range(5):
        await bench.commit(notice("x" * 1_000))
    page = await bench.store.events(W, after=0, upto=5, selection=Selection(), limit=99)
    assert (seqs(page.events), page.scanned) == ([1, 2, 3], 3)


async def test_old_events_go_by_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_RETENTION_COUNT", 10)
    monkeypatch.setattr(limits, "RETENTION_EVERY", 1)
    for n in range(40):
        await bench.commit(notice(str(n)))
    await bench.commit(lambda tx: None)  # the writer removes after it has answered
    page = await bench.store.events(W, after=0, upto=40, selection=Selection(), limit=99)
    assert page.oldest == 31
    assert seqs(page.events) == list(range(31, 41))
    assert page.scanned == 40


async def test_old_events_go_by_age(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETENTION_EVERY", 1)
    for n in range(5):
        await bench.commit(notice(str(n)))
    bench.now_ms += int(limits.EVENT_RETENTION_S * 1000) + 1
    await bench.commit(notice("new"))
    await bench.commit(lambda tx: None)
    page = await bench.store.events(W, after=0, upto=6, selection=Selection(), limit=99)
    assert (seqs(page.events), page.oldest) == ([6], 6)


async def test_an_open_runs_events_are_never_old(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8."""
    monkeypatch.setattr(limits, "EVENT_RETENTION_COUNT", 2)
    monkeypatch.setattr(limits, "RETENTION_EVERY", 1)
    for n in range(5):
        await bench.commit(notice(str(n)))

    def accept(tx: Transaction) -> None:
        tx.insert_run(run_row("r"))
        tx.emit("run", "created", run_row("r").record, session_id=S, run_id=RunId("r"))

    await bench.commit(accept)
    bench.now_ms += int(limits.EVENT_RETENTION_S * 2000)
    for n in range(10):
        await bench.commit(notice(str(n)))
    await bench.commit(lambda tx: None)
    page = await bench.store.events(W, after=5, upto=99, selection=Selection(), limit=99)
    assert (seqs(page.events), page.oldest) == (list(range(6, 17)), 6)
    await bench.commit(ending(run_row("r")))
    await bench.commit(lambda tx: None)
    page = await bench.store.events(W, after=0, upto=99, selection=Selection(), limit=99)
    assert page.oldest == 16


# --- consistency ----------------------------------------------------------------------------


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
