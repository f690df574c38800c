"""`view`, `write`, `edit`, `multiedit` on real files (CW 7.4)."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio.agent.ports import Decision, FileChange, Tool
from crush_trio.limits import EDIT_FILE_BYTES, VIEW_LINE_CHARS, VIEW_LINES, VIEW_SECTION_BYTES
from crush_trio.tools.files.difference import difference
from crush_trio.tools.files.edit import EditTool
from crush_trio.tools.files.multiedit import MultiEditTool
from crush_trio.tools.files.view import ViewTool
from crush_trio.tools.files.write import WriteTool
from crush_trio.tools.paths import resolve_place
from tests.tools.desk import Desk

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


# --- paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("a.txt", True),
        (".", True),
        ("new/deep/file", True),
        ("src/../a.txt", True),
        ("..", False),
        ("../ws-other/a", False),
        ("/etc/passwd", False),
        ("src/../../x", False),
        ("out/passwd", False),
        ("out/../ws/a.txt", False),
        ("loop", True),
        ("in/a.txt", True),
        ("~/x", False),
    ],
)
def test_a_path_counts_where_it_leads(text: str, inside: bool, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "src").mkdir(parents=True)
    (tmp_path / "ws-other").mkdir()
    (root / "out").symlink_to("/etc")
    (root / "in").symlink_to(root / "src")
    (root / "loop").symlink_to(root / "loop")
    assert resolve_place(text, root).inside is inside


async def test_a_workspace_reached_by_a_link_is_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_place(str(tmp_path / "real" / "x"), tmp_path / "link").inside
    assert resolve_place("x", tmp_path / "link").inside


# --- view ----------------------------------------------------------------------------------


async def test_view_numbers_lines_and_says_that_there_are_more(desk: Desk) -> None:
    path = desk.write("a.txt", "one\ntwo\r\nthree\nfour")
    result = await desk.call(ViewTool(), file_path="a.txt", offset=1, limit=2)
    assert result.content == (
        "<file>\n     2|two\n     3|three\n\n"
        "(File has more lines. Use 'offset' 3 to read beyond line 3)\n</file>\n"
    )
    assert result.metadata == {"file_path": str(path), "content": "two\nthree"}
    assert result.read_paths == (str(path),)
    last = await desk.call(ViewTool(), file_path=str(path), offset=3)
    assert last.content == "<file>\n     4|four\n</file>\n"
    assert desk.asks == []


async def test_view_is_bounded_in_lines_columns_and_bytes(desk: Desk) -> None:
    desk.write("many", "x\n" * 1000)
    assert (await desk.call(ViewTool(), file_path="many")).content.count("|x") == VIEW_LINES
    desk.write("wide", "é" * 100_000 + "\nnext\n")
    result = await desk.call(ViewTool(), file_path="wide")
    assert result.metadata is not None
    assert result.metadata["content"] == "é" * VIEW_LINE_CHARS + "...\nnext"
    desk.write("big", ("y" * 1999 + "\n") * 1000)
    result = await desk.call(ViewTool(), file_path="big", limit=100_000)
    assert result.metadata is not None
    shown = len(result.metadata["content"])
    assert VIEW_SECTION_BYTES - 2000 <= shown <= VIEW_SECTION_BYTES + 2000
    assert "more lines" in result.content


async def test_view_answers_what_it_cannot_show(desk: Desk) -> None:
    desk.write("binary", b"\x7fELF\0\0")
    desk.write("empty", "")
    (desk.root / "dir").mkdir()
    os.mkfifo(desk.root / "fifo")
    for name, sentence in {
        "binary": "is a binary file",
        "dir": "path is a directory, not a file",
        "fifo": "not a regular file",
        "missing": "File not found",
        "": "file_path is empty",
    }.items():
        with trio.fail_after(5):
            result = await desk.call(ViewTool(), file_path=name)
        assert (result.is_error, result.read_paths) == (True, ()), name
        assert sentence in result.content
    result = await desk.call(ViewTool(), file_path="/dev/zero")
    assert "not a regular file" in result.content
    result = await desk.call(ViewTool(), file_path="empty")
    assert "(the file is empty)" in result.content
    assert not result.is_error
    for arguments in ({}, {"file_path": 3}, {"file_path": "empty", "offset": -1}):
        assert (await desk.call(ViewTool(), **arguments)).is_error


async def test_an_image_becomes_a_media_result(desk: Desk) -> None:
    desk.write("a.png", PNG)
    result = await desk.call(ViewTool(), file_path="a.png")
    assert (result.mime_type, base64.b64decode(result.data)) == ("image/png", PNG)
    desk.write("c.dat", PNG)
    assert (await desk.call(ViewTool(), file_path="c.dat")).mime_type == "image/png"
    desk.write("b.png", "no image\n")
    assert "1|no image" in (await desk.call(ViewTool(), file_path="b.png")).content


async def test_reading_outside_the_workspace_asks_also_through_a_link(
    desk: Desk, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    (desk.root / "innocent").symlink_to(secret)
    desk.decision = Decision(False, "not here")
    for name in (str(secret), "../secret", "innocent"):
        result = await desk.call(ViewTool(), file_path=name)
        assert (result.content, result.is_error, result.denied) == ("not here", True, True)
    assert {(a.tool_name, a.action, a.target, a.inside) for a in desk.asks} == {
        ("view", "read", str(secret), False)
    }
    assert desk.asks[0].params == {"file_path": str(secret), "offset": 0, "limit": VIEW_LINES}
    desk.decision = Decision(True)
    assert "secret" in (await desk.call(ViewTool(), file_path="innocent")).content


# --- write ---------------------------------------------------------------------------------


async def test_write_creates_a_file_with_its_directories(desk: Desk) -> None:
    result = await desk.call(WriteTool(), file_path="new/deep/a.txt", content="one\ntwo\n")
    path = desk.root / "new/deep/a.txt"
    assert path.read_text() == "one\ntwo\n"
    assert result.changes == (FileChange(str(path), None, "one\ntwo\n"),)
    assert result.read_paths == (str(path),)
    assert result.metadata == {
        "additions": 2,
        "removals": 0,
        "diff": "--- a/new/deep/a.txt\n+++ b/new/deep/a.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n",
    }
    ask = desk.asks[0]
    assert (ask.tool_name, ask.action, ask.path) == ("write", "write", str(path.parent))
    assert ask.params == {
        "file_path": str(path),
        "old_content": "",
        "new_content": "one\ntwo\n",
    }
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


async def test_a_denied_write_touches_nothing(desk: Desk) -> None:
    desk.decision = Decision(False, "not today")
    result = await desk.call(WriteTool(), file_path="new/a.txt", content="x")
    assert (result.content, result.is_error, result.denied) == ("not today", True, True)
    assert list(desk.root.iterdir()) == []


async def test_an_existing_file_must_have_been_read_and_be_unchanged_since(desk: Desk) -> None:
    path = desk.write("a.txt", "old\n")
    calls: list[tuple[Tool, dict[str, Any]]] = [
        (WriteTool(), {"content": "new\n"}),
        (EditTool(), {"old_string": "old", "new_string": "new"}),
        (MultiEditTool(), {"edits": [{"old_string": "old", "new_string": "new"}]}),
    ]
    for tool, arguments in calls:
        result = await desk.call(tool, file_path="a.txt", **arguments)
        assert result.content == (
            "you must read the file before editing it. Use the View tool first"
        )
    await desk.call(ViewTool(), file_path="a.txt")
    path.write_text("old, changed\n")
    os.utime(path, ns=(2**62, desk.reads[str(path)] + 1))
    for tool, arguments in calls:
        result = await desk.call(tool, file_path="a.txt", **arguments)
        assert "has been modified since it was last read" in result.content
    assert path.read_text() == "old, changed\n"
    assert desk.asks == []
    await desk.call(ViewTool(), file_path="a.txt")
    result = await desk.call(WriteTool(), file_path="a.txt", content="new\n")
    assert not result.is_error
    result = await desk.call(EditTool(), file_path="a.txt", old_string="new", new_string="newer")
    assert not result.is_error, "what it wrote itself counts as read"
    assert path.read_text() == "newer\n"


async def test_a_change_while_the_permission_is_waited_for_is_not_overwritten(desk: Desk) -> None:
    path = desk.write("a.txt", "old\n")
    await desk.call(ViewTool(), file_path="a.txt")
    desk.on_ask = lambda: path.write_text("somebody else's work\n")
    result = await desk.call(WriteTool(), file_path="a.txt", content="new\n")
    assert result.is_error
    assert "has changed since it was looked at" in result.content
    assert path.read_text() == "somebody else's work\n"
    new = desk.root / "b.txt"
    desk.on_ask = lambda: new.write_text("somebody else's file\n")
    assert (await desk.call(WriteTool(), file_path="b.txt", content="mine")).is_error
    assert new.read_text() == "somebody else's file\n"
    assert sorted(p.name for p in desk.root.iterdir()) == ["a.txt", "b.txt"]


async def test_a_directory_swapped_for_a_link_leads_nowhere(desk: Desk, tmp_path: Path) -> None:
    (desk.root / "dir").mkdir()
    (tmp_path / "elsewhere").mkdir()

    def swap() -> None:
        (desk.root / "dir").rmdir()
        (desk.root / "dir").symlink_to(tmp_path / "elsewhere")

    desk.on_ask = swap
    result = await desk.call(WriteTool(), file_path="dir/a.txt", content="x")
    assert result.is_error
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_replaced_file_keeps_mode_line_ends_and_byte_order_mark(desk: Desk) -> None:
    path = desk.write("a.sh", b"\xef\xbb\xbfone\r\ntwo\r\n")
    path.chmod(0o751)
    await desk.call(ViewTool(), file_path="a.sh")
    await desk.call(WriteTool(), file_path="a.sh", content="one\nthree\n")
    assert path.read_bytes() == b"\xef\xbb\xbfone\r\nthree\r\n"
    assert path.stat().st_mode & 0o7777 == 0o751
    result = await desk.call(WriteTool(), file_path="a.sh", content="one\nthree\n")
    assert "already contains exactly this content" in result.content
    result = await desk.call(
        EditTool(), file_path="a.sh", old_string="one\nthree", new_string="1\n2\n3"
    )
    assert path.read_bytes() == b"\xef\xbb\xbf1\r\n2\r\n3\r\n"
    assert result.changes[0].before == "\ufeffone\r\nthree\r\n"


async def test_a_link_is_written_through_and_outside_is_named_as_such(
    desk: Desk, tmp_path: Path
) -> None:
    target = desk.write("real.txt", "a\n")
    (desk.root / "link.txt").symlink_to("real.txt")
    (desk.root / "out.txt").symlink_to(tmp_path / "out.txt")
    await desk.call(ViewTool(), file_path="link.txt")
    await desk.call(WriteTool(), file_path="link.txt", content="b\n")
    assert (desk.root / "link.txt").is_symlink()
    assert target.read_text() == "b\n"
    desk.decision = Decision(False, "no")
    await desk.call(WriteTool(), file_path="out.txt", content="x")
    assert (desk.asks[-1].target, desk.asks[-1].inside) == (str(tmp_path / "out.txt"), False)


async def test_files_that_cannot_be_edited_get_a_sentence(desk: Desk) -> None:
    desk.write("latin", b"caf\xe9\n")
    desk.write("binary", b"a\0b")
    with (desk.root / "huge").open("wb") as file:
        file.truncate(EDIT_FILE_BYTES + 1)
    os.mkfifo(desk.root / "fifo")
    for name, sentence in {
        "latin": "is not UTF-8 text (byte 3)",
        "binary": "is a binary file",
        "huge": "cannot be edited with this tool",
        "fifo": "not a regular file",
        ".": "path is a directory, not a file",
        "latin/x": "Not a directory",
    }.items():
        with trio.fail_after(5):
            result = await desk.call(WriteTool(), file_path=name, content="x")
        assert result.is_error
        assert sentence in result.content
    result = await desk.call(WriteTool(), file_path="new", content="\ud800")
    assert "lone surrogate" in result.content
    assert not (desk.root / "new").exists()


# --- edit ----------------------------------------------------------------------------------


async def edit(desk: Desk, before: str, old: str, new: str, **more: bool) -> tuple[str, str]:
    path = desk.write("e.py", before)
    await desk.call(ViewTool(), file_path="e.py")
    result = await desk.call(EditTool(), file_path="e.py", old_string=old, new_string=new, **more)
    return path.read_bytes().decode(), result.content


async def test_edit_replaces_the_one_place_and_says_what_it_did(desk: Desk) -> None:
    path = desk.write("e.py", "a = 1\nb = 2\n")
    await desk.call(ViewTool(), file_path="e.py")
    result = await desk.call(EditTool(), file_path="e.py", old_string="b = 2", new_string="b = 3")
    assert result.content == f"<result>\nContent replaced in file: {path}\n</result>\n"
    assert result.metadata == {
        "additions": 1,
        "removals": 1,
        "diff": "--- a/e.py\n+++ b/e.py\n@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n+b = 3\n",
        "old_content": "a = 1\nb = 2\n",
        "new_content": "a = 1\nb = 3\n",
    }
    assert result.changes == (FileChange(str(path), "a = 1\nb = 2\n", "a = 1\nb = 3\n"),)


async def test_edit_needs_a_unique_place_unless_told_otherwise(desk: Desk) -> None:
    text, said = await edit(desk, "x\nx\n", "x", "y")
    assert (text, "appears multiple times" in said) == ("x\nx\n", True)
    assert (await edit(desk, "x\nx\n", "x", "y", replace_all=True))[0] == "y\ny\n"
    text, said = await edit(desk, "x\n", "z", "y")
    assert (text, "old_string not found in file" in said) == ("x\n", True)
    assert "nothing was changed" in (await edit(desk, "x\n", "x", "x"))[1]
    assert (await edit(desk, "a\nb\nc\n", "b\n", ""))[0] == "a\nc\n"


async def test_edit_forgives_white_space_and_says_so(desk: Desk) -> None:
    text, said = await edit(desk, "if x:  \n    y()\nz()\n", "if x:\n    y()", "if x:\n    w()")
    assert text == "if x:\n    w()\nz()\n"
    assert "Note:" in said
    text, said = await edit(
        desk, "def f():\n    if x:\n        y()\n", "if x:\n    y()", "if x:\n    w()\n\nv()"
    )
    assert text == "def f():\n    if x:\n        w()\n\n    v()\n"
    text, said = await edit(desk, "  x\n    x\n", "x ", "y")
    assert (text, "multiple times" in said) == ("  x\n    x\n", True)


async def test_edit_keeps_mixed_line_ends(desk: Desk) -> None:
    before = "a\r\nb\r\nc\nd\n"
    assert (await edit(desk, before, "a\nb", "x\ny"))[0] == "x\r\ny\r\nc\nd\n"
    assert (await edit(desk, before, "c\nd", "x\ny"))[0] == "a\r\nb\r\nx\ny\n"


async def test_an_empty_old_string_creates_a_file_and_only_that(desk: Desk) -> None:
    result = await desk.call(EditTool(), file_path="n.py", old_string="", new_string="x\n")
    assert (desk.root / "n.py").read_text() == "x\n"
    assert "New file created" in result.content
    result = await desk.call(EditTool(), file_path="n.py", old_string="", new_string="y\n")
    assert result.content == f"file already exists: {desk.root}/n.py"
    result = await desk.call(EditTool(), file_path="m.py", old_string="a", new_string="y\n")
    assert result.content == f"file not found: {desk.root}/m.py"


async def test_multiedit_applies_in_order_and_reports_what_failed(desk: Desk) -> None:
    path = desk.write("e.py", "a\nb\n")
    await desk.call(ViewTool(), file_path="e.py")
    edits = [
        {"old_string": "a", "new_string": "c"},
        {"old_string": "nowhere", "new_string": "x"},
        {"old_string": "c\nb", "new_string": "d\n"},
    ]
    result = await desk.call(MultiEditTool(), file_path="e.py", edits=edits)
    assert path.read_text() == "d\n\n"
    assert result.metadata is not None
    assert result.metadata["edits_applied"] == 2
    assert [(f["index"], f["edit"]) for f in result.metadata["edits_failed"]] == [(2, edits[1])]
    assert "Applied 2 of 3 edits" in result.content
    assert len(desk.asks) == 1
    result = await desk.call(MultiEditTool(), file_path="e.py", edits=[edits[1]])
    assert result.is_error
    assert "no edit was applied" in result.content
    for bad in ([], None, [3], [{"old_string": "x"}]):
        assert (await desk.call(MultiEditTool(), file_path="e.py", edits=bad)).is_error


def test_the_difference_of_a_small_change_in_a_large_file_is_small() -> None:
    lines = [f"line {n}\n" for n in range(100_000)]
    before = "".join(lines)
    lines[50_000] = "-- other\n"
    found = difference("f", before, "".join(lines))
    assert (found.additions, found.removals) == (1, 1)
    assert found.diff.split("\n")[2] == "@@ -49998,7 +49998,7 @@"
    assert difference("f", "a", "b\n").diff.endswith("-a\n\\ No newline at end of file\n+b\n")
