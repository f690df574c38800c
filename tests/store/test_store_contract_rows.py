"""What is kept of sessions, messages, runs and files, alike in both stores."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Outcome, RunRecord
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import (
    ConstraintError,
    DuplicateRunError,
    Selection,
    Transaction,
    WorkspaceRow,
)
from tests.store.conftest import Bench
from tests.store.samples import S, W, ending, finished, founding, message, notice, run_row

OTHER = WorkspaceId("other")


def putting(*messages: tuple[Message, int, int]) -> Callable[[Transaction], None]:
    def commit(tx: Transaction) -> None:
        for item, accept_seq, ordinal in messages:
            tx.put_message(item, accept_seq=accept_seq, ordinal=ordinal)

    return commit


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


async def test_no_event_carries_a_runs_id_after_its_terminal_event(bench: Bench) -> None:
    """G1: the store itself refuses it, whoever asks."""

    def late(tx: Transaction) -> int:
        return tx.emit("retry", "created", {}, session_id=S, run_id=RunId("r"))

    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    await bench.commit(late)
    await bench.commit(ending(run_row("r")))
    with pytest.raises(ConstraintError):
        await bench.commit(late)
    assert [event.kind for _, event in bench.published] == ["retry", "run_complete"]


async def test_an_ended_run_cannot_go_on(bench: Bench) -> None:
    """G1."""
    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    await bench.commit(ending(run_row("r")))
    with pytest.raises(ConstraintError):
        await bench.commit(lambda tx: tx.put_run(run_row("r")))
    assert await bench.store.run(RunId("r")) == finished(run_row("r"))
    await bench.commit(lambda tx: tx.put_run(finished(run_row("r"), Outcome.FAILED)))


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


async def test_a_removed_message_is_gone_counted_out_and_back_if_the_commit_fails(
    bench: Bench,
) -> None:
    """I18: what was only begun leaves nothing."""
    await bench.commit(founding)
    await bench.commit(putting((message("a"), 1, 0), (message("b"), 1, 1), (message("c"), 1, 2)))

    def remove(tx: Transaction) -> tuple[Message | None, Message | None, int]:
        removed = tx.remove_message(MessageId("b"))
        session = tx.session(S)
        assert session is not None
        return removed, tx.remove_message(MessageId("b")), session.message_count

    def remove_and_fail(tx: Transaction) -> None:
        remove(tx)
        raise KeyError

    with pytest.raises(KeyError):
        await bench.commit(remove_and_fail)
    assert [m.id for m in await bench.store.messages(S)] == ["a", "b", "c"]

    def found_other(tx: Transaction) -> Message | None:
        tx.put_workspace(WorkspaceRow(OTHER, "/o", 1))
        return tx.remove_message(MessageId("b"))

    assert await bench.commit(found_other, OTHER) is None, "it is another workspace's"
    assert await bench.commit(remove) == (message("b"), None, 2)
    assert [m.id for m in await bench.store.messages(S)] == ["a", "c"]


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


async def test_one_message_and_one_file_version_are_found_by_their_ids(bench: Bench) -> None:
    await bench.commit(putting((message("m"), 1, 0), (message("n"), 1, 1)))
    added = await bench.commit(lambda tx: tx.add_file_change(S, "/f", "old", "new"))
    assert await bench.store.message(MessageId("n")) == message("n")
    assert [await bench.store.file_version(item.id) for item in added] == list(added)
    assert await bench.store.message(MessageId("none")) is None
    assert await bench.store.file_version("none") is None


async def test_the_last_read_of_each_file_is_known_newest_first(bench: Bench) -> None:
    for path, at_ns in (("/a", 5), ("/b", 9), ("/a", 7)):
        await bench.commit(lambda tx, path=path, at_ns=at_ns: tx.mark_read(S, path, at_ns))
    assert list((await bench.store.reads(S)).items()) == [("/b", 9), ("/a", 7)]
