"""A tool that is cancelled does not wait for a look at the disk, and always for a change (G4)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from crush_trio.agent.ports import Sandbox, Tool, ToolResult
from crush_trio.tools.files.edit import EditTool
from crush_trio.tools.files.multiedit import MultiEditTool
from crush_trio.tools.files.view import ViewTool
from crush_trio.tools.files.write import WriteTool
from crush_trio.tools.paths import file_work
from crush_trio.tools.sandbox.confinement import Confinement
from crush_trio.tools.sandbox.mechanism import Mechanisms
from crush_trio.tools.sandbox.plan import Mechanism
from crush_trio.tools.search.ls import LsTool
from crush_trio.tools.shell.bash import BashTool
from crush_trio.tools.web.download import DownloadTool
from tests.tools.desk import Desk
from tests.tools.web.kit import reach_of


@attrs.define(eq=False)
class Stuck:
    """Stands for work in a thread: does not come to it before it is told to."""

    work: Callable[..., Any]
    begun: threading.Event = attrs.field(factory=threading.Event)
    go_on: threading.Event = attrs.field(factory=threading.Event)
    was_told: bool | None = None

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.begun.set()
        self.was_told = self.go_on.wait(5)
        return self.work(*args, **more)

    async def wait_begun(self) -> None:
        with trio.fail_after(20):
            assert await trio.to_thread.run_sync(self.begun.wait, 20)


@pytest.fixture
def stick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Stuck]]:
    made: list[Stuck] = []

    def make(what: str) -> Stuck:
        module, _, name = what.rpartition(".")
        owner = import_module(f"crush_trio.tools.{module}")
        made.append(stuck := Stuck(getattr(owner, name)))
        monkeypatch.setattr(owner, name, stuck)
        return stuck

    yield make
    for each in made:
        each.go_on.set()


async def no_thread_works() -> None:
    """Return when what was left behind has ended, too."""
    while file_work().borrowed_tokens:  # noqa: ASYNC110  # a thread that was left tells nobody
        await trio.sleep(0.005)


EDIT = {"old_string": "a", "new_string": "b"}


@pytest.mark.parametrize(
    ("what", "tool", "more"),
    [
        pytest.param("paths.resolve_place", LsTool(), {"path": "."}, id="path"),
        pytest.param("files.change._read", WriteTool(), {"content": "x"}, id="write"),
        pytest.param("files.change.difference", WriteTool(), {"content": "x"}, id="diff"),
        pytest.param("files.edit.edit_file", EditTool(), EDIT, id="edit"),
        pytest.param("files.multiedit._apply", MultiEditTool(), {"edits": [EDIT]}, id="multiedit"),
        pytest.param("files.view._look", ViewTool(), {}, id="view"),
        pytest.param("shell.bash.judge", BashTool(), {"command": "ls"}, id="bash"),
        pytest.param(
            "web.download._version_at",
            DownloadTool(reach_of()),
            {"url": "http://a.example"},
            id="download",
        ),
    ],
)
async def test_a_cancelled_call_leaves_a_look_behind_and_changes_nothing(
    desk: Desk, stick: Callable[[str], Stuck], what: str, tool: Tool, more: dict[str, Any]
) -> None:
    stuck = stick(what)
    file = desk.write("f", "a")
    desk.reads[str(file)] = file.stat().st_ctime_ns
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: desk.call(tool, file_path="f", **more))
        await stuck.wait_begun()
        nursery.cancel_scope.cancel()
    assert stuck.was_told is None  # the call has ended without it
    stuck.go_on.set()
    await no_thread_works()
    assert file.read_text() == "a"


@attrs.define(eq=False)
class Bubblewrap(Mechanisms):
    """As if bubblewrap worked here."""

    def demand(self, sandbox: Sandbox) -> Mechanism:
        return Mechanism("bubblewrap", "/bwrap")


async def test_a_cancelled_command_leaves_behind_what_looks_at_its_sandbox(
    tmp_path: Path, stick: Callable[[str], Stuck]
) -> None:
    confinement = Confinement(Sandbox("read-only", tmp_path, ()), Bubblewrap(), "test-")
    stuck = stick("sandbox.confinement.plan_for")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(confinement.prepare, tmp_path, {})
        await stuck.wait_begun()
        nursery.cancel_scope.cancel()
    assert stuck.was_told is None
    await confinement.aclose()


async def test_a_cancelled_call_of_many_edits_does_not_go_on_for_minutes(desk: Desk) -> None:
    file = desk.write("f", " x\n" * 300_000)
    desk.reads[str(file)] = file.stat().st_ctime_ns
    edits = [{"old_string": f"not\nthere {n}", "new_string": "x"} for n in range(1_000)]
    with trio.move_on_after(0.1) as patience:
        await desk.call(MultiEditTool(), file_path="f", edits=edits)
    assert patience.cancelled_caught
    with trio.fail_after(10):
        await no_thread_works()


async def test_a_write_that_was_cancelled_says_what_it_has_done(
    desk: Desk, stick: Callable[[str], Stuck]
) -> None:
    stuck = stick("files.change.replace_file")
    result: ToolResult | None = None
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            nonlocal result
            result = await desk.call(WriteTool(), file_path="f", content="new")

        nursery.start_soon(write)
        await stuck.wait_begun()
        nursery.cancel_scope.cancel()
        stuck.go_on.set()
    assert (desk.root / "f").read_text() == "new"
    assert result is not None
    assert [change.path for change in result.changes] == [os.path.join(desk.root, "f")]
