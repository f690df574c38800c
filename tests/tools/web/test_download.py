"""The tool `download`: a file appears complete, where it was asked for, or not at all."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from crush_trio.agent.ports import Decision, ToolResult
from crush_trio.tools.files.write import WriteTool
from crush_trio.tools.web.download import DownloadTool
from tests.models.network.provider import (
    Answering,
    Exchange,
    FakeProvider,
    fake_provider,
    head,
    sending,
    silent,
    whole,
)
from tests.tools.desk import Desk
from tests.tools.web.kit import reach_of

BYTES = random.Random(1).randbytes(2_000_000)


@attrs.frozen
class Source:
    """A server with one file, and a tool that may reach it."""

    server: FakeProvider
    desk: Desk

    async def download(self, to: str = "sub/file.bin", **more: object) -> ToolResult:
        tool = DownloadTool(reach_of(f"127.0.0.1:{self.server.port}"))
        return await self.desk.call(tool, url=f"{self.server.url}/f", file_path=to, **more)


@asynccontextmanager
async def source(desk: Desk, answer: Answering | None = None) -> AsyncIterator[Source]:
    plain = sending(whole(200, BYTES, content_type="application/x-thing"))
    async with fake_provider(answer or plain) as server:
        yield Source(server, desk)


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def test_a_file_is_downloaded_and_counts_as_read(desk: Desk) -> None:
    async with source(desk) as here:
        result = await here.download()
        path = desk.root / "sub" / "file.bin"
        assert path.read_bytes() == BYTES
        assert everything(desk.root) == ["sub", "sub/file.bin"]
        assert f"Downloaded {len(BYTES)} bytes to {path}" in result.content
        assert result.changes == ()  # no version of a file that may be no text
        (ask,) = desk.asks
        assert (ask.tool_name, ask.action, ask.target) == ("download", "download", str(path))
        assert (ask.path, ask.inside) == (str(path.parent), True)
        assert ask.params == {"url": f"{here.server.url}/f", "file_path": str(path)}
        again = await here.download()  # it was written by this session, and not changed since
        assert not again.is_error, again.content


async def test_what_comes_packed_is_written_unpacked(desk: Desk) -> None:
    packed = whole(200, gzip.compress(BYTES), content_encoding="gzip")
    async with source(desk, sending(packed)) as here:
        await here.download("f")
        assert (desk.root / "f").read_bytes() == BYTES


async def test_what_was_not_read_or_was_changed_since_is_not_replaced(desk: Desk) -> None:
    path = desk.write("f", "mine")
    async with source(desk) as here:
        assert "must read the file" in (await here.download("f")).content
        desk.reads[str(path)] = path.stat().st_mtime_ns - 1
        assert "modified since it was last read" in (await here.download("f")).content
        assert here.server.connections == 0
        desk.reads[str(path)] = path.stat().st_mtime_ns
        desk.on_ask = lambda: path.write_text("theirs")  # while a person is asked
        assert "has changed since it was looked at" in (await here.download("f")).content
    assert path.read_text() == "theirs"
    assert everything(desk.root) == ["f"]


async def test_a_replaced_file_keeps_its_mode(desk: Desk) -> None:
    path = desk.write("f", "old")
    path.chmod(0o640)
    desk.reads[str(path)] = path.stat().st_mtime_ns
    async with source(desk) as here:
        await here.download("f")
    assert path.read_bytes() == BYTES
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_link_and_a_path_that_lead_outside_are_shown_to_who_is_asked(
    desk: Desk, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (desk.root / "link").symlink_to(outside)
    desk.decision = Decision(False, "No.")
    async with source(desk) as here:
        for to in ("link/f", "../outside/f", str(outside / "f")):
            assert (await here.download(to)).denied
            assert (desk.asks[-1].inside, desk.asks[-1].target) == (False, str(outside / "f"))
            assert "outside the workspace" in desk.asks[-1].description
        assert here.server.connections == 0
    assert everything(outside) == []


async def test_a_directory_swapped_for_a_link_while_a_person_decides_leads_nowhere(
    desk: Desk, tmp_path: Path
) -> None:
    inside, outside = desk.root / "sub", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()

    def swap() -> None:
        inside.rmdir()
        inside.symlink_to(outside)

    desk.on_ask = swap
    async with source(desk) as here:
        assert (await here.download("sub/f")).is_error
    assert everything(outside) == []


@pytest.mark.parametrize("made", ["directory", "fifo"])
async def test_what_is_no_file_is_not_replaced(desk: Desk, made: str) -> None:
    path = desk.root / "f"
    path.mkdir() if made == "directory" else os.mkfifo(path)
    async with source(desk) as here:
        result = await here.download("f")
        assert result.is_error
        assert desk.asks == []


CUT = head(200, content_length="99999") + b"x" * 999
BOMB = whole(200, gzip.compress(b"\0" * 4_000_000), content_encoding="gzip")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (sending(whole(404, b"no")), "status code: 404"),
        (sending(CUT, then_close=True), "broke off in the middle"),
        (sending(BOMB), "unpacks to more than 100 times its size"),
        (sending(whole(200, b"x" * 2_000)), "has more than 1000 bytes"),
        (sending(head(200, content_length="2000")), "has more than 1000 bytes"),
        (sending(head(200) + b"x" * 2_000, then_close=True), "has more than 1000 bytes"),
        (silent, "did not answer completely within 1 s"),
    ],
    ids=["404", "cut", "bomb", "long", "long by its word", "long without a word", "silent"],
)
async def test_a_download_that_fails_leaves_nothing(
    desk: Desk, answer: Answering, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "1000 bytes" in words:
        monkeypatch.setattr("crush_trio.limits.DOWNLOAD_BYTES", 1_000)
    old = desk.write("f", "old")
    desk.reads[str(old)] = old.stat().st_mtime_ns
    async with source(desk, answer) as here:
        result = await here.download("f", timeout=1)
    assert words in result.content
    assert old.read_text() == "old"
    assert everything(desk.root) == ["f"]


async def test_a_cancelled_download_leaves_nothing(desk: Desk) -> None:
    """Cancelled while it is written, beside its target."""
    async with source(desk, half := Half()) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.download, "f")
            await half.sent.wait()
            with trio.fail_after(20):
                while not everything(desk.root):  # noqa: ASYNC110  # a file tells nobody
                    await trio.sleep(0.005)
            assert not (desk.root / "f").exists()
            nursery.cancel_scope.cancel()
        with trio.fail_after(0.25):
            await half.gone.wait()
    assert everything(desk.root) == []


async def test_a_cancelled_download_does_not_wait_for_the_disk(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To bring a gigabyte to a slow disk takes longer than a cancel may (G4)."""
    begun, go_on = threading.Event(), threading.Event()
    told: list[bool] = []

    def slowly(fd: int) -> None:
        begun.set()
        told.append(go_on.wait(5))

    monkeypatch.setattr(os, "fsync", slowly)
    async with source(desk) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.download, "f")
            assert await trio.to_thread.run_sync(begun.wait, 20)
            nursery.cancel_scope.cancel()
        assert not told
        assert everything(desk.root) == []
        go_on.set()


@attrs.define(eq=False)
class Half:
    """Sends half of a file and waits until the other side hangs up."""

    sent: trio.Event = attrs.field(factory=trio.Event)
    gone: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(head(200, content_length=str(len(BYTES) * 2)), BYTES)
        self.sent.set()
        await silent(exchange)
        self.gone.set()


KILLED = """
import sys, trio
from pathlib import Path
from tests.tools.desk import Desk
from tests.tools.web.kit import reach_of
from crush_trio.tools.web.download import DownloadTool
async def main():
    path = Path(sys.argv[1]) / "f"
    desk = Desk(Path(sys.argv[1]), None, reads={str(path): path.stat().st_mtime_ns})
    tool = DownloadTool(reach_of("127.0.0.1"))
    await desk.call(tool, url=sys.argv[2], file_path="f")
trio.run(main)
"""


async def test_a_server_killed_in_a_download_leaves_the_old_file_whole(desk: Desk) -> None:
    """What was being written has a name of its own, and never the target's."""
    old = desk.write("f", "old")
    async with fake_provider(half := Half()) as server:
        command = [sys.executable, "-c", KILLED, str(desk.root), server.url]
        process = await trio.to_thread.run_sync(subprocess.Popen, command)
        with trio.fail_after(20):
            await half.sent.wait()
            while len(everything(desk.root)) < 2:  # noqa: ASYNC110  # as above
                await trio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(process.wait)
    assert old.read_text() == "old"
    (left,) = set(everything(desk.root)) - {"f"}
    assert left.startswith(".f.")
    desk.reads[str(old)] = old.stat().st_mtime_ns
    assert not (await desk.call(WriteTool(), file_path="f", content="new")).is_error
