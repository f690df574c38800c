"""The body of Crush's event stream in virtual time, and what carries it on real sockets."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from quart_trio.wrappers import TrioResponse
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.journal import FeedEntry, Journal, JournalReader
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.events import CRUSH_KINDS
from crush_trio.protocol.messages import FinishPart, Message, TextPart, UnknownPart
from crush_trio.server.edge.app_base import create_quart_app
from crush_trio.server.edge.call import current_call
from crush_trio.server.edge.gate import Gate
from crush_trio.server.edge.sockets import TcpBind
from crush_trio.server.routes.events import EventBody, crush_envelope, parse_events_request
from crush_trio.store.contract import Selection
from crush_trio.store.encoding import encode_transient
from crush_trio.store.memory import MemoryStore, open_memory_store
from tests.e2e.sse_kit import Block, parse_block
from tests.journal.subscriber import SESSIONS, Author, W, settle
from tests.server.edge_kit import serving

A = SESSIONS[0]
SELECTION = Selection(kinds=frozenset(CRUSH_KINDS))


@attrs.define
class Stand:
    """A workspace with an author of events, and event streams of it."""

    store: MemoryStore
    author: Author
    stopping: trio.Event = attrs.field(factory=trio.Event)

    def body(self, cursor: int | None = None, *, resumable: bool = False) -> EventBody:
        """A stream that has not begun; its reader is left open, as one that is lost."""
        reader = JournalReader(
            self.store, self.author.feed, cursor=cursor, selection=SELECTION, detail="snapshot"
        )
        return EventBody(self.author.feed, reader, resumable, self.stopping)

    async def begun(self, cursor: int | None = None, *, resumable: bool = False) -> EventBody:
        """A stream whose head may go out."""
        body = self.body(cursor, resumable=resumable)
        await body.begin()
        return body


@pytest.fixture
async def stand(autojump_clock: MockClock) -> AsyncIterator[Stand]:
    """A stand over a store in memory."""
    journal = Journal()
    async with open_memory_store(publish=journal.publish) as store:
        yield Stand(store, await Author.start(store, journal))


async def piece(body: EventBody, within_s: float = 1.0) -> list[Block]:
    """The blocks of the next piece; none if none comes in time."""
    with trio.move_on_after(within_s):
        text = (await anext(body)).decode()
        assert text.endswith("\n\n")
        return [parse_block(block) for block in text[:-2].split("\n\n")]
    return []


async def ended(body: EventBody, within_s: float = 1.0) -> bool:
    """Whether iterating ends, which is what sends the last chunk."""
    with trio.move_on_after(within_s):
        async for _ in body:
            pass
        return True
    return False


async def test_a_resumable_stream_shows_a_sign_of_life_every_20_s_and_a_plain_one_never(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """CW 3.1: a plain one has no keep-alive of any kind."""
    plain, resumable = await stand.begun(), await stand.begun(resumable=True)
    assert await piece(plain, 1_000) == []
    began = trio.current_time()
    resumable = await stand.begun(resumable=True)
    for count in (1, 2, 3):
        (sign,) = await piece(resumable, 100)
        assert (sign.comment, sign.event) == (True, None)
        assert trio.current_time() - began == pytest.approx(count * limits.PING_INTERVAL_S)


async def test_a_sign_of_life_carries_how_far_everything_selected_was_sent(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """G8: so that a client of rare events does not come back with a cursor that is too old."""
    body = await stand.begun(resumable=True)
    stand.author.note(A)
    assert [block.id for block in await piece(body)] == [1]
    for _ in range(3):
        stand.author.note(A, kind="run")
    signs = [(await piece(body, 100))[0].id for _ in range(2)]
    assert signs == [4, None]


async def test_what_is_open_is_shown_at_the_start_to_who_resumes_only(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """R1: and to the other as soon as it changes, even before its head is sent."""
    await stand.author.begin("m", A)
    stand.author.write("m", "half ")
    await settle()
    plain, resumable = await stand.begun(), await stand.begun(resumable=True)
    (state,) = await piece(resumable)
    assert (state.id, state.payload["parts"][0]["data"]["text"]) == (None, "half ")
    assert await piece(plain) == []
    other = await stand.begun()
    stand.author.write("m", "done")
    for body in (plain, resumable, other):
        (state,) = await piece(body)
        assert state.payload["parts"][0]["data"]["text"] == "half done"


async def test_much_that_is_open_is_not_shown_to_a_plain_stream_either(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """CW 3.1: also if the present state does not fit into one frame."""
    for name in "xyz":
        await stand.author.begin(name, A)
        stand.author.write(name, "a" * (limits.FRAME_JOIN_BYTES - 1_000))
    body = await stand.begun()
    assert await piece(body) == []
    stand.author.write("y", "b")
    (state,) = await piece(body)
    assert state.payload["id"] == "y"


async def test_what_is_published_between_subscribing_and_the_head_is_in_the_body(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """R1."""
    body = stand.body()
    stand.author.note(A)
    await settle()
    await body.begin()
    assert [block.type for block in await piece(body)] == ["agent_event"]


async def test_a_cursor_beyond_retention_is_refused_and_one_within_is_served(
    autojump_clock: MockClock, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, G14: the sentence names the cursor to go on with."""
    monkeypatch.setattr(limits, "EVENT_RETENTION_COUNT", 5)
    for _ in range(20):
        stand.author.note(A)
    await settle()
    with pytest.raises(Refused, match=r"too_old.*after=20\.") as refused:
        await stand.begun(14, resumable=True)
    assert refused.value.code == "resync_required"
    body = await stand.begun(15, resumable=True)
    assert [block.id for block in await piece(body)] == [16, 17, 18, 19, 20]


@pytest.mark.parametrize("resumable", [False, True])
async def test_who_falls_behind_what_is_kept_gets_the_end_and_not_a_gap(
    autojump_clock: MockClock, stand: Stand, monkeypatch: pytest.MonkeyPatch, resumable: bool
) -> None:
    """R2, R17, G8: a client whose stream ended loads again; one with a gap would never know."""
    monkeypatch.setattr(limits, "EVENT_RETENTION_COUNT", 5)
    body = await stand.begun(resumable=resumable)
    for _ in range(limits.FEED_ENTRIES + 50):
        stand.author.note(A)
    await settle()
    assert await ended(body)


async def test_an_error_behind_the_head_ends_the_body_and_is_logged(
    autojump_clock: MockClock,
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R2: with the last chunk, although the answer cannot become an error any more."""
    body = await stand.begun()

    async def fails(self: JournalReader, deadline_s: float = 0) -> None:
        raise StoreError("store_failed", "The disk is gone.")

    monkeypatch.setattr(JournalReader, "next_batch", fails)
    assert await ended(body)
    assert "The disk is gone." in caplog.text


async def test_a_long_replay_does_not_hold_up_a_stop(
    autojump_clock: MockClock, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G11: the body ends in time to be ended properly; its client comes back with its last id."""
    for _ in range(300):
        stand.author.note(A)
    await settle()
    real: Any = stand.store.events

    async def slow(*args: Any, **named: Any) -> Any:
        await trio.sleep(limits.SHUTDOWN_SUBSCRIBERS_S / 10)
        return await real(*args, **{**named, "limit": 5})

    monkeypatch.setattr(stand.store, "events", slow)
    body = await stand.begun(0, resumable=True)
    stand.stopping.set()
    stand.author.feed.close("shutdown")
    began = trio.current_time()
    assert await ended(body, 100)
    assert trio.current_time() - began < limits.SHUTDOWN_SUBSCRIBERS_S


async def test_the_end_of_the_feed_comes_after_its_last_event(
    autojump_clock: MockClock, stand: Stand
) -> None:
    """R2."""
    body = await stand.begun()
    stand.author.note(A)
    await settle()
    stand.author.feed.close("closed")
    assert [block.type for block in await piece(body)] == ["agent_event"]
    assert await ended(body)
    assert await ended(await stand.begun())


# --- the envelope -------------------------------------------------------------------------


def written(message: Message) -> dict[str, Any]:
    """A message as Crush gets it."""
    entry = FeedEntry(None, "message", (A,), encode_transient("message", "updated", message, W))
    value: dict[str, Any] = json.loads(crush_envelope(entry))
    assert list(value) == ["type", "payload"]
    message_json: dict[str, Any] = value["payload"]["payload"]
    return message_json


def test_parts_that_crush_does_not_know_are_left_out() -> None:
    """CW 3.5: one of them would fail its decoder for the whole message."""
    parts = (TextPart("a"), UnknownPart("hologram", {"x": 1}), FinishPart("end_turn", 1))
    message = Message("m", "assistant", A, parts)  # type: ignore[arg-type]
    assert [part["type"] for part in written(message)["parts"]] == ["text", "finish"]


def test_a_message_cut_to_its_ids_still_has_parts() -> None:
    """CW 3.5: without the key Crush's decoder fails."""
    parts = tuple(TextPart("x" * 200) for _ in range(5_000))
    message = Message("m", "assistant", A, parts)  # type: ignore[arg-type]
    assert written(message) == {"id": "m", "session_id": A, "parts": []}


@pytest.mark.parametrize("text", ["", '"type":"', '{"truncated":{}}', "a\nb\r\n\n\u2028", "🦫"])
def test_no_text_breaks_the_line_or_the_envelope(text: str) -> None:
    """CW 3.1: one line, whatever is in it."""
    for kind, payload in (("config_changed", {"x": text}), ("lsp_event", {"truncated": text})):
        data = encode_transient(kind, "updated", payload, W)
        line = crush_envelope(FeedEntry(7, kind, (), b'{"seq":7,"ts_ms":1,' + data[1:]))
        assert b"\n" not in line
        assert b"\r" not in line
        expected = {"type": kind, "payload": {"type": "updated", "payload": payload}}
        assert json.loads(line) == expected


def test_the_header_is_newer_than_the_query() -> None:
    """A browser's EventSource comes back with both."""
    wanted = parse_events_request({"after": "5", "epoch": "e"}, "9")
    assert (wanted.cursor, wanted.epoch, wanted.resumable) == (9, "e", True)
    assert parse_events_request({"after": "now"}, "").resumable
    assert not parse_events_request({}, None).resumable


# --- what carries it ----------------------------------------------------------------------


async def test_a_stream_outlives_the_response_timeout_and_is_let_go_after_its_last_chunk(
    tmp_path: Path,
) -> None:
    """R2: and also when its client leaves in the middle, or before the head."""
    app = create_quart_app(Gate(uid=os.getuid()))
    app.config["RESPONSE_TIMEOUT"] = 0.05
    begun, left = defaultdict[str, trio.Event](trio.Event), defaultdict[str, trio.Event](trio.Event)
    go = trio.Event()

    @app.get("/stream/<name>")
    async def stream(name: str) -> TrioResponse:
        current_call().at_end.callback(left[name].set)
        begun[name].set()
        if name == "never":
            await trio.sleep_forever()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"first "
            await go.wait()
            yield b"last"

        response = TrioResponse(pieces())
        response.timeout = None
        return response

    async with serving(app, tmp_path) as server:
        for name in ("never", "gone"):
            wire = await server.connect()
            await wire.send(f"GET /stream/{name} HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun[name].wait()
            if name == "gone":
                assert await wire.stream.receive_some(1)
            wire.close()
            with trio.fail_after(5):
                await left[name].wait()
        wire = await server.connect()
        await wire.send("GET /stream/whole HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.2)
        assert begun["whole"].is_set()
        assert not left["whole"].is_set()
        go.set()
        assert (await wire.answer()).body == b"first last"
        assert (await wire.request("GET", "/stream/again")).body == b"first last"
        assert left["whole"].is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc/net/tcp")
async def test_the_kernel_looks_after_tcp_peers_that_say_nothing() -> None:
    """G9: a machine that was switched off does not stay subscribed for ever."""
    app = create_quart_app(Gate(uid=os.getuid()))
    async with serving(app, TcpBind("127.0.0.1", 0)) as server:
        wire = await server.connect()
        await wire.request("GET", "/", host=f"127.0.0.1:{server.port}")
        table = await trio.Path("/proc/net/tcp").read_text()
        rows = [row.split() for row in table.splitlines()[1:]]
        ours = [row for row in rows if row[1].endswith(f":{server.port:04X}") and row[3] == "01"]
        timers = [(row[5][:2], int(row[5][3:], 16) / os.sysconf("SC_CLK_TCK")) for row in ours]
        assert [kind for kind, _ in timers] == ["02"], "a keep-alive timer"
        assert limits.TCP_ALIVE_AFTER_S - 5 < timers[0][1] <= limits.TCP_ALIVE_AFTER_S
