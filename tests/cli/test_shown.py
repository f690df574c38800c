"""Permission requests as people read them: whole, and nothing in them acts or hides (T20)."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crush_trio.cli import shown
from crush_trio.cli.escaped import escaped, folded, lines_of, lookalikes, shortened
from crush_trio.limits import DIFF_LINES

BASH: dict[str, Any] = {
    "id": "p",
    "tool_name": "bash",
    "action": "execute",
    "path": "/w",
    "description": "Execute command: make",
    "params": {"command": "make\nls", "run_in_background": False, "auto_background_after": 0},
}
_ESCAPE = re.compile(r"<U\+([0-9A-F]{4,6})>")
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
HOSTILE = "make \x1b[2K\x1b]0;x\x07\u202e tset\u200b\r\x85\u2028\u3164<U+0041>\ud800"


def unescaped(line: str) -> str:
    """What a line was before it was escaped."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), line)


def written(tool: str = "write", **params: Any) -> dict[str, Any]:
    """A request of a file tool."""
    about = {"tool_name": tool, "action": "write", "description": "Write file /w/a"}
    return BASH | about | {"params": {"file_path": "/w/a", **params}}


@given(st.text(alphabet=st.characters(), max_size=60))
@example(HOSTILE)
@example("<U+<U+003C>U+<<U+")
def test_what_is_shown_stands_for_one_text_alone_and_has_nothing_unseen(text: str) -> None:
    """T20: controls, direction, no width, newlines, and the escapes themselves."""
    line = escaped(text)
    assert not {unicodedata.category(char) for char in line} & _UNSHOWN
    assert line.isprintable()
    assert unescaped(line) == text
    assert "\n".join(unescaped(each) for each in lines_of(text)) == text


@given(st.text(alphabet=st.characters(), max_size=80), st.text(max_size=20))
@example(HOSTILE, "")
def test_no_part_of_a_request_reaches_the_terminal_as_it_is(text: str, other: str) -> None:
    """T20: whichever field it stands in."""
    for request in (
        BASH | {"tool_name": text, "action": other, "path": text, "params": {"command": text}},
        BASH | {"description": text, "params": {other: text, text: [text]}, "covers": text},
        written(old_content=other, new_content=text),
    ):
        lines = [*shown.permission_lines(request), shown.brief(request, 50)]
        for line in (*lines, shown.for_session(request)):
            seen = line.replace("\t", "")  # in a command or a file, where it does no harm
            assert not {unicodedata.category(char) for char in seen} & _UNSHOWN


@given(st.text(alphabet="ab \t京e\u0301", max_size=200), st.integers(20, 40))
def test_a_long_line_is_folded_and_not_cut(line: str, columns: int) -> None:
    rows = folded([line], columns)
    assert "".join(row.removeprefix("    ↳ ") for row in rows) == line


def test_a_command_is_shown_whole() -> None:
    assert shown.permission_lines(BASH) == ["bash (execute) in /w", "    make", "    ls"]
    long = "make" + " " * 6000 + "; rm -rf ." + "\n" * 500 + "rm -rf /"
    lines = shown.permission_lines(BASH | {"params": {"command": long}})
    assert lines[1].endswith("; rm -rf .")
    assert lines[-1] == "    rm -rf /"


def test_what_else_a_call_says_is_shown_too() -> None:
    params: dict[str, Any] = {"command": "ls", "description": 'a" look', "working_dir": "x"}
    params["run_in_background"] = True
    assert shown.permission_lines(BASH | {"params": params})[1:] == [
        "    ls",
        "  in the background: it goes on after this turn",
        '  the model calls it "a" look"',
        "  working_dir: x",
    ]
    said = {"a": {"b": 1}, "t": "1\n2"}
    tool = BASH | {"tool_name": "mcp_x_y", "description": "Call y", "params": said}
    lines = shown.permission_lines(tool)[1:]
    assert lines == ["  Call y", '  a: {"b": 1}', "  t:", "    1", "    2"]


def test_a_change_is_shown_as_a_diff_however_long_it_is() -> None:
    assert shown.permission_lines(written(old_content="a\nb\n", new_content="a\nc"))[1:] == [
        "  Write file /w/a",
        "  1 line added, 1 removed:",
        "    @@ -1,2 +1,2 @@",
        "     a",
        "    -b",
        "    +c",
        "  (no newline at the end after)",
    ]
    many = DIFF_LINES + 10
    old = "".join(f"{n}\n" for n in range(many))
    new = "".join(f"{n}!\n" for n in range(many))
    lines = shown.permission_lines(written(old_content=f"=\n{old}", new_content=f"=\n{new}"))
    counts = f"  {many} lines added, {many} removed:"
    assert lines[2:5] == [counts, "    @@ from line 2 @@", "    -0"]
    assert lines[-1] == f"    +{many - 1}!"


def test_line_ends_are_part_of_a_change() -> None:
    """T20: CR LF in place of LF is a change of every line, and one CR among LF is shown."""
    lines = shown.permission_lines(written(old_content="a\r\n", new_content="b\r\n"))
    assert lines[2:] == [
        "  (its lines end with CR LF)",
        "  1 line added, 1 removed:",
        "    @@ -1 +1 @@",
        "    -a",
        "    +b",
    ]
    lines = shown.permission_lines(written(old_content="a\n", new_content="a\r\n"))
    assert lines[-2:] == ["    -a", "    +a<U+000D>"]


def test_letters_that_look_like_others_are_named() -> None:
    assert "а (U+0430 CYRILLIC SMALL LETTER A)" in lookalikes("cаt /etc/passwd")
    assert lookalikes("echo Größe 東京 привет") == ""
    noted = shown.permission_lines(BASH | {"params": {"command": "cаt x"}})[-1]
    assert noted.startswith("  NOTE: these letters")


@pytest.mark.parametrize(
    ("text", "line"), [("make", "make"), ("a" * 20, "aaaaaaaa…!"), ("\n\n\n", "<U+000A>…!")]
)
def test_a_line_that_is_cut_says_so(text: str, line: str) -> None:
    assert shortened(text, 10, "…!") == line


def test_what_a_session_would_be_allowed_is_in_the_servers_words() -> None:
    assert shown.for_session(BASH | {"covers": "exactly this\u202e"}) == "exactly this<U+202E>"
    assert shown.for_session(BASH) == "bash in /w"
