"""What tools leave as it was of a file they change, and what they would rather not touch."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from crush_trio.agent.ports import Tool
from crush_trio.tools.files.edit import EditTool
from crush_trio.tools.files.edits import Edited, edit_file
from crush_trio.tools.files.multiedit import MultiEditTool
from crush_trio.tools.files.view import ViewTool
from crush_trio.tools.files.write import WriteTool
from tests.tools.desk import Desk


async def viewed(desk: Desk, name: str, content: str | bytes) -> Path:
    path = desk.write(name, content)
    assert not (await desk.call(ViewTool(), file_path=name)).is_error
    return path


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        pytest.param(b"a\r\nb\r\n", "a\nb", "x\ny", b"x\r\ny\r\n", id="CRLF"),
        pytest.param(b"a\r\nb\nc\r\n", "a\nb", "x\ny", b"x\r\ny\nc\r\n", id="mixed, not there"),
        pytest.param(b"a\r\nb\r\nc\n", "a\nb", "x\ny", b"x\r\ny\r\nc\n", id="mixed"),
        pytest.param(b"if a:\r\n\tb\r\nc\n", "if a:\n  b", "d", b"d\r\nc\n", id="mixed, tolerant"),
        pytest.param(b"a\rb\r", "b", "x", b"a\rx\r", id="carriage returns alone"),
        pytest.param(b"a\nb", "b", "x", b"a\nx", id="no newline at the end"),
        pytest.param(b"\xef\xbb\xbfa\n", "a", "x", b"\xef\xbb\xbfx\n", id="byte order mark"),
        pytest.param("é\u2028ü\x0c\x85".encode(), "ü", "o", "é\u2028o\x0c\x85".encode(), id="é"),
        pytest.param(b"a" * 9000 + b"\0b\n", "b", "c", b"a" * 9000 + b"\0c\n", id="a late NUL"),
    ],
)
async def test_an_edit_changes_nothing_but_its_place(
    before: bytes, old: str, new: str, after: bytes, desk: Desk
) -> None:
    path = await viewed(desk, "a.txt", before)
    result = await desk.call(EditTool(), file_path="a.txt", old_string=old, new_string=new)
    if result.is_error:  # or it says that the text is not there: the file is as it was
        after = before
        assert "not found" in result.content
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"caf\xe9\n", "is not UTF-8 text (byte 3)"),
        ("é\n".encode("utf-16"), "is UTF-16 or UTF-32 text"),
        ("é\n".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        (b"a\0b", "is a binary file"),
    ],
)
async def test_what_is_no_utf_8_is_refused_and_stays(
    content: bytes, sentence: str, desk: Desk
) -> None:
    path = desk.write("a", content)
    desk.reads[str(path)] = 2**62
    for tool, more in (
        (WriteTool(), {"content": "x"}),
        (EditTool(), {"old_string": "a", "new_string": "b"}),
        (MultiEditTool(), {"edits": [{"old_string": "a", "new_string": "b"}]}),
    ):
        result = await desk.call(tool, file_path="a", **more)
        assert sentence in result.content
    assert path.read_bytes() == content
    assert desk.asks == []


async def test_mode_owner_and_attributes_stay_and_other_names_are_told_of(desk: Desk) -> None:
    path = await viewed(desk, "a.sh", "old\n")
    path.chmod(0o4755)
    os.link(path, desk.root / "b.sh")
    with contextlib.suppress(OSError):  # a file system without them
        os.setxattr(path, "user.note", b"kept")
    noted = "user.note" in os.listxattr(path)
    await desk.call(ViewTool(), file_path="a.sh")
    result = await desk.call(EditTool(), file_path="a.sh", old_string="old", new_string="new")
    assert "has 1 other names (hard links), which keep the old text" in result.content
    assert (path.read_text(), (desk.root / "b.sh").read_text()) == ("new\n", "old\n")
    assert path.stat().st_mode & 0o7777 == 0o755, "as if it had been written into"
    assert not noted or os.getxattr(path, "user.note") == b"kept"
    assert sorted(os.listdir(desk.root)) == ["a.sh", "b.sh"]


async def test_an_older_file_put_in_its_place_is_not_replaced(desk: Desk) -> None:
    path = await viewed(desk, "a.txt", "old\n")
    other = desk.write("b.txt", "somebody's work\n")
    os.utime(other, ns=(0, 0))
    await trio.sleep(0.02)  # longer than a tick of the clock that stamps files
    other.rename(path)
    result = await desk.call(WriteTool(), file_path="a.txt", content="new\n")
    assert "has been modified since it was last read" in result.content
    assert path.read_text() == "somebody's work\n"
    await desk.call(ViewTool(), file_path="a.txt")
    assert not (await desk.call(WriteTool(), file_path="a.txt", content="new\n")).is_error
    assert not (await desk.call(WriteTool(), file_path="a.txt", content="newer\n")).is_error
    await trio.sleep(0.02)
    path.chmod(0o755)
    edit = await desk.call(EditTool(), file_path="a.txt", old_string="newer", new_string="x")
    assert not edit.is_error, "it can be run now; its text is the same"


async def test_a_change_of_the_same_size_and_time_is_seen_while_a_person_decides(
    desk: Desk,
) -> None:
    path = await viewed(desk, "a.txt", "old\n")
    times = path.stat()

    def swap() -> None:
        time.sleep(0.02)
        path.write_text("odd\n")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    desk.on_ask = swap
    result = await desk.call(EditTool(), file_path="a.txt", old_string="old", new_string="new")
    assert "has changed since it was looked at" in result.content
    assert path.read_text() == "odd\n"


async def test_a_new_file_needs_no_links_of_its_file_system(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("crush_trio.tools.files.landing.os.link", none_here)
    result = await desk.call(WriteTool(), file_path="d/new.txt", content="x\n")
    assert not result.is_error
    assert os.listdir(desk.root / "d") == ["new.txt"]


async def test_what_is_no_regular_file_is_neither_read_nor_written_nor_waited_for(
    desk: Desk,
) -> None:
    os.mkfifo(desk.root / "fifo")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(desk.root):
        server.bind("socket")
    with (desk.root / "sparse").open("wb") as file:
        file.truncate(2**40)
    (desk.root / "loop").symlink_to("loop")
    tools: tuple[tuple[Tool, dict[str, str]], ...] = (
        (ViewTool(), {}),
        (WriteTool(), {"content": "x"}),
        (EditTool(), {"old_string": "a", "new_string": "b"}),
    )
    began = time.monotonic()
    for name in ("fifo", "socket", "sparse", "loop", ".", "/dev/zero", "/dev/tty"):
        for tool, more in tools:
            result = await desk.call(tool, file_path=name, **more)
            assert result.is_error, (name, tool)
            assert result.changes == ()
    assert time.monotonic() - began < 2
    assert (desk.root / "sparse").stat().st_size == 2**40


async def test_every_name_is_either_told_and_stored_or_refused(desk: Desk) -> None:
    for name in ("new\nline", "tab\t", "esc\x1b[31m", "a" * 255, "é", "e\u0301", "Ａ", "-rf", " "):
        result = await desk.call(WriteTool(), file_path=name, content="x\n")
        assert not result.is_error, name
        orjson.dumps([result.content, result.metadata, result.read_paths])
        assert result.metadata is not None
        assert len(result.metadata["diff"].splitlines()) == 4
    assert len(os.listdir(desk.root)) == 9, "names that look alike are two"
    os.mkdir(os.fsencode(desk.root) + b"/caf\xe9")
    (desk.root / "link").symlink_to(os.fsdecode(b"caf\xe9/secret"))
    for name in ("link", "link/../x"):
        result = await desk.call(WriteTool(), file_path=name, content="x\n")
        assert "is not UTF-8" in result.content
    result = await desk.call(WriteTool(), file_path="a" * 256, content="x\n")
    assert "File name too long" in result.content


async def test_a_nul_is_shown_by_its_sign(desk: Desk) -> None:
    desk.write("a", "x" * 9000 + "\na\0b\n")
    result = await desk.call(ViewTool(), file_path="a")
    assert result.content.endswith("     2|a\u2400b\n</file>\n")
    assert "\0" not in str(result)


async def test_five_megabytes_are_edited_in_time_and_in_another_thread(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing but a comparison of all lines can say that the text is not there."""
    threads = set()

    def noted(*given: Any, **named: Any) -> Edited:
        threads.add(threading.get_ident())
        return edit_file(*given, **named)

    monkeypatch.setattr("crush_trio.tools.files.edit.edit_file", noted)
    line = "a line of a file as files have them\n"
    count = 5_000_000 // len(line)
    path = await viewed(desk, "big", line * count + "the end\n")
    with trio.fail_after(20):
        wrong = await desk.call(
            EditTool(), file_path="big", old_string=f"  {line}" * 2000 + "y", new_string="z"
        )
        right = await desk.call(
            EditTool(), file_path="big", old_string="the end", new_string="an end"
        )
    assert threads - {threading.get_ident()} == threads != set(), "the server goes on meanwhile"
    assert "not found" in wrong.content
    assert not right.is_error
    assert right.metadata is not None
    assert {*right.metadata} == {"additions", "removals", "diff"}, "nobody wants it twice more"
    assert path.read_text() == line * count + "an end\n"
