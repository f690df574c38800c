"""What subscribers are shown of a run besides its events: open text, retries, tool output."""

from __future__ import annotations

import orjson
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    FileChange,
    ModelRequest,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolContext,
    ToolResult,
)
from crush_trio.host.runs.live_output import LiveOutput
from crush_trio.journal import Feed, FeedEntry
from crush_trio.journal.reader import JournalReader
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.runs import LeftProcess, Outcome
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import ME, World, payload, quiet


async def frames(reader: JournalReader) -> list[dict[str, object]]:
    """Everything that is ready, decoded."""
    found: list[dict[str, object]] = []
    while batch := await reader.next_batch(0.001):
        found += [orjson.loads(entry.data) for entry in batch]
    return found


async def test_what_was_shown_of_earlier_calls_is_not_kept_for_the_whole_run(
    clock: MockClock, world: World
) -> None:
    outputs: list[LiveOutput] = []

    async def speak(context: ToolContext) -> ToolResult:
        context.output("stdout", "x" * limits.TOOL_OUTPUT_LIVE_BYTES)
        outputs.append(context.output.__self__)  # type: ignore[attr-defined]
        return ToolResult("said")

    world.kit.tools = (FakeTool("speak", speak),)
    world.kit.fake.acts["go"] = ask_for("speak", "speak", "speak")
    await world.ended(world.submit("go"))
    assert len(outputs) == 3
    assert not any(output._shown for output in outputs)


async def test_a_retry_is_told_while_it_is_waited_for(clock: MockClock, world: World) -> None:
    """R51, G8: the event, and the emptied message; deltas then start from nothing."""

    async def again(request: ModelRequest, emit: Emit) -> StepEnd:
        emit(TextDelta("wrong"))
        emit(StreamReset(1, 3, 5.0, "429"))
        await trio.sleep(5)
        emit(TextDelta("right"))
        return StepEnd("end_turn")

    world.kit.fake.acts["go"] = again
    with JournalReader(world.store, world.workspace.feed, cursor=0) as reader:
        run = world.submit("go")
        await trio.sleep(1)
        (retry,) = [e for e in await world.events() if e.kind == "retry"]
        assert payload(retry)["cause"] == "429"
        seen = await frames(reader)
        emptied = [f for f in seen if f["type"] == "message" and "seq" not in f]
        assert emptied
        (record,) = await world.ended(run)
        deltas = [f for f in await frames(reader) if f["type"] == "message_delta"]
    assert [(d["offset"], d["text"]) for d in deltas] == [(0, "right")]
    assert record.text == "right"


async def test_files_and_reads_go_with_the_result_that_made_them(
    clock: MockClock, world: World
) -> None:
    """G8: one commit; the next call knows what this one read."""
    asked = []

    async def write(context: ToolContext) -> ToolResult:
        asked.append(context.last_read("/w/a"))
        return ToolResult(
            "ok", changes=(FileChange("/w/a", "old", "new"),), read_paths=("/w/a",), read_at_ns=7
        )

    world.kit.tools = (FakeTool("write", write),)
    world.kit.fake.acts["go"] = ask_for("write", "write")
    await world.ended(world.submit("go"))
    versions = await world.store.file_versions(world.session.id)
    assert [version.content for version in versions][:2] == ["old", "new"]
    assert asked == [None, 7]
    assert await world.store.reads(world.session.id) == {"/w/a": 7}
    events = await world.events()
    files = [e for e in events if e.kind == "file"]
    assert len(files) == len(versions)
    assert events[files[0].seq - 2].kind in ("run", "message")


async def test_two_sessions_may_show_calls_of_one_name(clock: MockClock, world: World) -> None:
    """G8: models number their calls; a call's output is shown until the run goes on."""
    go = trio.Event()

    async def talk(context: ToolContext) -> ToolResult:
        context.output("stdout", "hello")
        context.output("stdout", " there")
        await go.wait()
        return ToolResult("ok")

    world.kit.tools = (FakeTool("talk", talk),)
    world.kit.fake.acts["go"] = ask_for("talk")
    runs = [world.submit("go"), world.submit("go", session=await world.new_session())]
    await quiet()
    with JournalReader(world.store, world.workspace.feed, cursor=None) as reader:
        shown = [f for f in await frames(reader) if f["type"] == "tool_output"]
    assert sorted((f["run_id"], f["offset"], f["text"]) for f in shown) == [
        ("r1", 0, "hello there"),
        ("r2", 0, "hello there"),
    ]
    go.set()
    assert [r.outcome for r in await world.ended(*runs)] == [Outcome.COMPLETED] * 2
    assert not world.workspace.feed.held


class TestLiveOutput:
    """What one call writes while it runs."""

    def made(self, limit: int) -> tuple[LiveOutput, Feed, list[FeedEntry]]:
        feed = Feed(WorkspaceId("w"), last_seq=0)
        feed.attach()
        shown: list[FeedEntry] = []
        output = LiveOutput(feed, (SessionId("s"),), RunId("r"), "c", limit)
        return output, feed, shown

    def texts(self, feed: Feed) -> list[tuple[str, int, str]]:
        found = [orjson.loads(feed.at(i).data) for i in range(feed.start, feed.end)]
        return [(f["stream"], f["offset"], f["text"]) for f in found]

    async def test_it_is_bounded_in_bytes_and_counts_code_points(self) -> None:
        """G9."""
        output, feed, _ = self.made(7)
        output.show("stdout", "é")
        output.show("stderr", "e")
        output.show("stdout", "éé")
        output.show("stdout", "more")
        assert self.texts(feed) == [("stdout", 0, "é"), ("stderr", 0, "e"), ("stdout", 1, "éé")]
        output, feed, _ = self.made(2)
        output.show("stdout", "a😀")
        output.show("stdout", "b")
        assert self.texts(feed) == [("stdout", 0, "a")]

    async def test_what_comes_after_its_end_is_not_shown(self) -> None:
        """G8: nothing stays held."""
        output, feed, _ = self.made(100)
        output.close()
        output.show("stdout", "late")
        assert not feed.held
        assert self.texts(feed) == []

    async def test_text_that_is_no_text_is_replaced(self) -> None:
        output, feed, _ = self.made(100)
        output.show("stdout", "caf\udce9")
        assert self.texts(feed) == [("stdout", 0, "caf?")]


async def test_live_processes_stand_in_the_row_until_the_run_ends(
    clock: MockClock, world: World
) -> None:
    """G10: so that the next start can find them; never after the terminal event."""
    world.kit.close_s = 1
    run = world.submit("hello")
    await world.kit.closing.wait()
    process = LeftProcess(5, "then", "sleep")
    world.kit.on_live[0]((process,))
    await quiet()
    row = await world.store.run(run.id)
    assert row is not None
    assert row.processes == (process,)
    await world.ended(run)
    world.kit.on_live[0]((process,))
    await quiet()
    row = await world.store.run(run.id)
    assert row is not None
    assert row.processes == ()


async def test_a_session_is_not_busy_when_its_ending_is_heard(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R59."""
    monkeypatch.setattr(limits, "DISK_FULL_RETRY_S", 0.5)
    run = world.submit("hello")
    assert not world.workspace.is_busy(world.session.id)
    await world.kit.fake.asked.wait()
    assert world.workspace.is_busy(world.session.id)
    await run.ended.wait()
    assert not world.workspace.is_busy(world.session.id)
    assert not world.workspace.is_busy(SessionId("unknown"))
    world.session.cancel(ME)
