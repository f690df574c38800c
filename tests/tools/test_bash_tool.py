"""`bash` as a model sees it (CW 7.3), and the small things it stands on."""

# ruff: noqa: ASYNC110, ASYNC240
# A test may block for a moment, and other processes have no event to wait for.

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from crush_trio.agent.ports import Decision
from crush_trio.limits import BASH_COMMAND_BYTES, TOOL_OUTPUT_COLUMNS
from crush_trio.tools.catalogue import builtin_tools
from crush_trio.tools.processes.capture import HeadTail
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.processes.spill import CallSpill, SpillArea
from crush_trio.tools.shell.bash import BashTool
from crush_trio.tools.truncate import truncate
from tests.tools.desk import Desk


async def test_a_command_is_asked_for_and_its_result_has_the_agreed_form(desk: Desk) -> None:
    command = "echo out; echo err >&2; exit 3"
    result = await desk.call(BashTool(), description="say", command=command)
    assert result.content == f"out\nerr\nExit code 3\n\n<cwd>{desk.root}</cwd>"
    assert not result.is_error
    assert result.metadata is not None
    assert {**result.metadata, "start_time": 0, "end_time": 0} == {
        "start_time": 0,
        "end_time": 0,
        "output": "out\nerr\nExit code 3",
        "description": "say",
        "working_directory": str(desk.root),
    }
    ask = desk.asks[0]
    assert (ask.tool_name, ask.action, ask.target, ask.path) == (
        "bash",
        "execute",
        command,
        str(desk.root),
    )
    assert ask.description == f"Execute command: {command}"
    assert ask.params == {
        "description": "say",
        "command": command,
        "working_dir": "",
        "run_in_background": False,
        "auto_background_after": 0,
    }
    assert sorted(desk.shown) == [("stderr", "err\n"), ("stdout", "out\n")]


async def test_a_silent_command_says_that_there_was_no_output(desk: Desk) -> None:
    assert (await desk.call(BashTool(), description="", command="true")).content == "no output"


async def test_a_denied_command_does_not_run(desk: Desk) -> None:
    desk.decision = Decision(False, "do something else")
    result = await desk.call(BashTool(), description="", command="touch x")
    assert (result.content, result.is_error, result.denied) == ("do something else", True, True)
    assert list(desk.root.iterdir()) == []
    assert (await desk.processes.aclose()).started == 0


async def test_what_is_not_available_is_said_before_anybody_is_asked(desk: Desk) -> None:
    background = {"command": "x", "run_in_background": True}
    answer = await desk.call(BashTool(), description="", **background)
    assert "not available" in answer.content, "here nobody owns a job"
    for arguments in (
        {"command": "  "},
        {"command": 3},
        {},
        {"command": "x" * (BASH_COMMAND_BYTES + 1)},
        {"command": "true", "working_dir": "missing"},
        {"command": "true", "run_in_background": "yes"},
        {"command": "a\0b"},
    ):
        result = await desk.call(BashTool(), description="", **arguments)
        assert result.is_error, arguments
    assert desk.asks == []


async def test_the_working_directory_is_used_and_outside_is_named_as_such(
    desk: Desk, tmp_path: Path
) -> None:
    (desk.root / "sub").mkdir()
    result = await desk.call(BashTool(), description="", command="pwd; touch x", working_dir="sub")
    assert result.content == f"{desk.root}/sub\n\n<cwd>{desk.root}/sub</cwd>"
    assert desk.asks[-1].inside
    await desk.call(BashTool(), description="", command="pwd", working_dir=str(tmp_path))
    assert not desk.asks[-1].inside


async def test_long_output_is_cut_to_its_columns_and_kept_in_a_file(desk: Desk) -> None:
    command = "for i in $(seq 100000); do echo line $i; done"
    result = await desk.call(BashTool(), description="", command=command)
    assert len(result.content) < TOOL_OUTPUT_COLUMNS + 500
    assert result.content.startswith("line 1\n")
    assert "line 100000\n(" in result.content
    assert "lines truncated] ..." in result.content
    assert "(1088895 bytes in all; the whole output is output call-1, in " in result.content
    assert result.metadata is not None
    kept = {key: result.metadata[key] for key in ("output_id", "output_bytes", "output_dropped")}
    assert kept == {"output_id": "call-1", "output_bytes": 1_088_895, "output_dropped": 0}
    path = result.content.partition("output call-1, in ")[2].partition(")")[0]
    text = Path(path).read_text()
    assert text.startswith("line 1\nline 2\n")
    assert text.count("\n") == 100_000
    truncated = int(result.content.partition("... [")[2].partition(" ")[0])
    shown = result.content.count("line ") - 0
    assert abs(truncated + shown - 100_000) <= 3


async def test_the_time_limit_and_leftovers_are_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await desk.call(BashTool(), description="", command="sleep 600 & echo x")
    assert "1 of its processes are still running" in result.content
    # Long enough for a launcher on a loaded machine: what was said before the limit is told.
    monkeypatch.setattr("crush_trio.tools.shell.bash.BASH_TIMEOUT_S", 4.0)
    result = await desk.call(BashTool(), description="", command="echo y; sleep 600")
    assert result.content.startswith("y\nCommand was aborted before completion")


async def test_a_cancelled_call_ends_the_command(desk: Desk) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            arguments = {"description": "", "command": "touch ready; sleep 600"}
            nursery.start_soon(lambda: desk.call(BashTool(), **arguments))
            while not (desk.root / "ready").exists():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert desk.processes.live() == ()
    assert (await desk.processes.aclose()).left == ()


async def test_tools_see_the_fixed_list_and_no_secret(desk: Desk) -> None:
    server = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/ana",
        "LC_ALL": "C.UTF-8",
        "GIT_AUTHOR_NAME": "Ana",
        "OPENAI_API_KEY": "secret-1",
        "CRUSH_TRIO_TOKEN": "secret-2",
        "LD_PRELOAD": "/evil.so",
        "BASH_ENV": "/evil.sh",
        "GIT_EXTERNAL_DIFF": "evil",
        "PYTHONSTARTUP": "evil",
        "PAGER": "less",
        "MY_FLAG": "1",
    }
    desk.env = tool_environment(server, {"EXTRA": "2", "CRUSH_TRIO": "no"}, allow=("MY_FLAG",))
    result = await desk.call(BashTool(), description="", command="env")
    seen = dict(line.split("=", 1) for line in result.content.split("\n") if "=" in line)
    expected = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/ana",
        "LC_ALL": "C.UTF-8",
        "GIT_AUTHOR_NAME": "Ana",
        "MY_FLAG": "1",
        "EXTRA": "2",
        "CRUSH_TRIO": "1",
        "AGENT": "crush-trio",
        "AI_AGENT": "crush-trio",
        "TERM": "xterm-256color",
        "EDITOR": "false",
        "GIT_EDITOR": "false",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
    }
    shells_own = {"PWD", "SHLVL", "_", "OLDPWD", "CRUSH_TRIO_LAUNCHER"}
    assert {name: value for name, value in seen.items() if name not in shells_own} == expected


def test_the_catalogue_is_sorted_and_honours_disabled_tools() -> None:
    names = [tool.spec.name for tool in builtin_tools({})]
    assert names == [
        *("agent", "agentic_fetch", "bash", "download", "edit", "fetch", "glob", "grep"),
        *("job_kill", "job_output", "ls", "multiedit", "question", "todos", "view", "web_fetch"),
        "write",
    ]
    config = {"options": {"disabled_tools": ["agent", "unknown"]}}
    assert [tool.spec.name for tool in builtin_tools(config)] == names[1:]
    for tool in builtin_tools({}):
        schema = tool.spec.parameters
        assert set(schema["required"]) <= set(schema["properties"])


def test_head_and_tail_are_kept_and_the_rest_is_counted() -> None:
    kept = HeadTail(10)
    for piece in (b"abc", b"defgh\n\nijkl", b"m", b"no\n"):
        kept.feed(piece)
    assert kept.text() == "abcde\n... [8 bytes dropped] ...\nmno\n".replace("\nmno", "\nlmno")
    assert (kept.dropped, kept.dropped_lines) == (8, 2)
    whole = HeadTail(10)
    whole.feed("äöü".encode())
    assert whole.text() == "äöü"
    cut = HeadTail(4)
    cut.feed("aäöüb".encode())
    assert cut.text() == "a\n... [4 bytes dropped] ...\nb"


def test_text_is_cut_by_display_columns() -> None:
    assert truncate("short", 10) == "short"
    wide = "漢" * 20
    assert truncate(wide, 40) == wide
    assert truncate(wide, 8) == "漢漢\n\n... [0 lines truncated] ...\n\n漢漢"
    assert (
        truncate("a\n" * 20, 8, more_lines=5) == "a\na\n\n\n... [21 lines truncated] ...\n\na\na\n"
    )


def test_a_full_area_spills_nothing_more_and_a_removed_file_makes_room(tmp_path: Path) -> None:
    area = SpillArea(tmp_path / "s", total_bytes=600_000, call_bytes=2_000_000)
    first = CallSpill(area, "a/../b")
    for _ in range(4):
        first.feed(b"x" * 200_000)
    path = first.finish()
    assert path is not None
    assert Path(path).parent == tmp_path / "s"
    assert Path(path).stat().st_size == 600_000
    second = CallSpill(area, "second")
    second.feed(b"y" * 300_000)
    assert second.finish() is None
    area.remove(Path(path))
    third = CallSpill(area, "third")
    third.feed(b"z" * 300_000)
    third_path = third.finish()
    assert third_path is not None
    assert Path(third_path).stat().st_size == 300_000
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_the_middle_of_a_large_output_is_dropped_and_counted(tmp_path: Path) -> None:
    area = SpillArea(tmp_path / "s", call_bytes=600_000)
    spill = CallSpill(area, "x")
    data = b"".join(b"%07d\n" % number for number in range(200_000))
    for start in range(0, len(data), 65_536):
        spill.feed(data[start : start + 65_536])
    path = spill.finish()
    assert path is not None
    text = Path(path).read_bytes()
    gap = b"\n... [1000000 bytes dropped] ...\n"
    assert text == data[:300_000] + gap + data[-300_000:]
