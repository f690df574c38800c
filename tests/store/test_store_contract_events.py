"""How events are kept, cut, selected, paged and removed, alike in both stores (G8)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from crush_trio import limits
from crush_trio.protocol.codec import decode_frames
from crush_trio.protocol.events import Event
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import (
    Selection,
    StoredEvent,
    Transaction,
)
from tests.store.conftest import Bench
from tests.store.samples import S, W, ending, message, notice, run_row


def seqs(events: Any) -> list[int]:
    return [event.seq for event in events]


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
    assert value["truncated"] == {"payload.payload": ""}  # nothing to fetch


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
