"""`ls`, `glob`, `grep`: what git would show, bounded, never hanging the server (CW 7.4)."""

# ruff: noqa: ASYNC240
# A test may block for a moment, and other processes have no event to wait for.

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio.agent.ports import Decision, Tool
from crush_trio.limits import GLOB_RESULTS, GREP_COLUMNS, GREP_MATCHES, LS_ENTRIES
from crush_trio.tools.search.glob import GlobTool
from crush_trio.tools.search.globs import Glob
from crush_trio.tools.search.grep import GrepTool
from crush_trio.tools.search.ls import LsTool
from crush_trio.tools.search.ripgrep import ripgrep_argv, ripgrep_program, same_meaning
from tests.tools.desk import Desk


@pytest.fixture
def tree(desk: Desk) -> Desk:
    for name in ("a.py", "src/b.py", "src/deep/c.py", "src/d.txt", ".github/w.yml"):
        desk.write(name, f"needle in {name}\n")
    for name in ("build/x.py", "src/deep/keep.log", "src/e.log", ".git/config", "src/gen/y.py"):
        desk.write(name, "needle ignored\n")
    desk.write(".gitignore", "build/\n*.log\n")
    desk.write("src/.gitignore", "/gen\n")
    desk.write("src/deep/.gitignore", "!keep.log\n")
    return desk


async def names(desk: Desk, pattern: str, **more: Any) -> set[str]:
    result = await desk.call(GlobTool(), pattern=pattern, **more)
    if result.content == "No files found":
        return set()
    return {os.path.relpath(line, desk.root) for line in result.content.split("\n")}


async def test_glob_finds_what_git_would_not_ignore(tree: Desk) -> None:
    assert await names(tree, "**/*.py") == {"a.py", "src/b.py", "src/deep/c.py"}
    assert await names(tree, "*.py") == {"a.py"}
    assert await names(tree, "**/*.log") == {"src/deep/keep.log"}
    assert await names(tree, "src/**/*.{py,txt}") == {"src/b.py", "src/d.txt", "src/deep/c.py"}
    assert await names(tree, "*.py", path="src") == {"src/b.py"}
    assert await names(tree, f"{tree.root}/src/*.py", path="src") == {"src/b.py"}
    assert await names(tree, "**/*.yml") == {".github/w.yml"}
    assert await names(tree, "nothing") == set()
    assert await names(tree, "**/config") == set()
    assert tree.asks == []


async def test_ls_shows_the_tree_that_git_would_see(tree: Desk) -> None:
    result = await tree.call(LsTool(), path="src")
    assert result.content.split("\n") == [
        f"- {tree.root}/src/",
        "  - .gitignore",
        "  - b.py",
        "  - d.txt",
        "  - deep/",
        "    - .gitignore",
        "    - c.py",
        "    - keep.log",
        "",
    ]
    assert result.metadata is not None
    assert (result.metadata["number_of_files"], result.metadata["truncated"]) == (7, False)
    result = await tree.call(LsTool(), depth=1, ignore=["*.py", ".git*"])
    assert result.content == f"- {tree.root}/\n  - src/\n"


async def test_results_are_bounded_and_say_so(desk: Desk) -> None:
    for number in range(LS_ENTRIES + 5):
        desk.write(f"d/{number:04}.txt", "hit\n")
    cases: list[tuple[Tool, dict[str, Any], str, int]] = [
        (LsTool(), {}, "number_of_files", LS_ENTRIES),
        (GlobTool(), {"pattern": "**/*.txt"}, "number_of_files", GLOB_RESULTS),
        (GrepTool(), {"pattern": "hit"}, "number_of_matches", GREP_MATCHES),
    ]
    for tool, arguments, key, most in cases:
        result = await desk.call(tool, **arguments)
        assert result.metadata is not None
        assert (result.metadata[key], result.metadata["truncated"]) == (most, True)
        assert "truncated" in result.content


async def test_grep_shows_matches_of_the_newest_file_first(desk: Desk) -> None:
    old, new = (
        desk.write("old.py", "x\nneedle 1\r\nneedle 2\n"),
        desk.write("new.txt", "needle 3\n"),
    )
    os.utime(old, (1, 1))
    result = await desk.call(GrepTool(), pattern=r"needle \d")
    assert result.content == (
        f"Found 3 matches\n{new}:\n  Line 1: needle 3\n"
        f"{old}:\n  Line 2: needle 1\n  Line 3: needle 2"
    )
    assert result.metadata == {"number_of_matches": 3, "truncated": False}
    only = await desk.call(GrepTool(), pattern="needle", include="*.{py,js}")
    assert str(new) not in only.content
    assert str(old) in only.content
    one = await desk.call(GrepTool(), pattern="needle", path="old.py")
    assert one.content.startswith(f"Found 2 matches\n{old}:")
    assert (await desk.call(GrepTool(), pattern="n..dle \\d", literal_text=True)).content == (
        "No matches found"
    )


async def test_grep_skips_what_git_ignores_and_what_is_no_text(tree: Desk) -> None:
    tree.write("binary.py", b"\0needle\n")
    os.mkfifo(tree.root / "fifo")
    (tree.root / "link.py").symlink_to("/etc/passwd")
    tree.write("wide", "needle" + "x" * 10_000)
    with trio.fail_after(20):
        result = await tree.call(GrepTool(), pattern="needle")
    assert "ignored" not in result.content.replace("keep.log:\n  Line 1: needle ignored", "")
    assert "binary" not in result.content
    assert "x" * (GREP_COLUMNS - 6) + "..." in result.content
    assert "x" * (GREP_COLUMNS + 4) not in result.content


async def test_a_search_that_takes_too_long_ends_at_its_limit_and_the_server_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T48: no pattern is looked at in the server, and what was found before is kept."""
    monkeypatch.setattr("crush_trio.tools.search.grep.GREP_TIMEOUT_S", 0.7)
    desk.env["PATH"] = "/nowhere"  # ripgrep has another way to be slow
    found = desk.write("b", "aaab\n")
    slow = desk.write("a", ("a" * 20_000 + "\n") * 300)
    os.utime(slow, (1, 1))
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = trio.current_time()
            await trio.sleep(0.005)
            longest = max(longest, trio.current_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        result = await desk.call(GrepTool(), pattern="(a{1,30}){1,30}b|^aaab")
        nursery.cancel_scope.cancel()
    assert "was stopped after" in result.content
    assert f"{found}:\n  Line 1: aaab" in result.content
    assert result.metadata == {"number_of_matches": 1, "truncated": True}
    assert longest < 0.3


@pytest.mark.parametrize("pattern", ["(", "[", "(?P<x", "a{2,1}", "(a)\\1"])
async def test_a_wrong_pattern_is_a_sentence(pattern: str, desk: Desk) -> None:
    desk.write("a", "a\n")
    result = await desk.call(GrepTool(), pattern=pattern)
    assert result.is_error
    assert result.content.startswith("the pattern ")


async def test_outside_the_workspace_every_search_asks(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("needle\n")
    (desk.root / "out").symlink_to(tmp_path / "other")
    desk.decision = Decision(False, "no")
    for tool, arguments, action in (
        (LsTool(), {}, "list"),
        (GlobTool(), {"pattern": "*"}, "read"),
        (GrepTool(), {"pattern": "needle"}, "read"),
    ):
        for path in ("out", "..", str(tmp_path / "other")):
            result = await desk.call(tool, path=path, **arguments)
            assert (result.denied, result.content) == (True, "no")
            assert (desk.asks[-1].action, desk.asks[-1].inside) == (action, False)
    desk.decision = Decision(True)
    assert (await names(desk, "**", path="out")) == {"../other/x"}


async def test_a_path_that_is_not_there_is_a_sentence(desk: Desk) -> None:
    desk.write("file", "")
    for tool, arguments in ((LsTool(), {}), (GlobTool(), {"pattern": "*"})):
        result = await desk.call(tool, path="missing", **arguments)
        assert (result.is_error, result.content) == (
            True,
            f"path does not exist: {desk.root}/missing",
        )
    assert (await desk.call(LsTool(), path="file")).content == f"not a directory: {desk.root}/file"
    assert (await desk.call(GrepTool(), pattern="")).is_error
    assert (await desk.call(GlobTool(), pattern=1)).is_error


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "d/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "d/e/a.py", True),
        ("d/**", "d/e/f", True),
        ("d/**/f", "d/f", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c].x", "b.x", True),
        ("[!a-c].x", "b.x", False),
        ("[!a-c].x", "d.x", True),
        ("{a,b}.{c,d}", "b.c", True),
        ("{a,b", "{a,b", True),
        ("a[", "a[", True),
        ("a+(b).x", "a+(b).x", True),
        ("./a", "a", True),
        ("a.b", "axb", False),
    ],
)
def test_globs_match_as_in_a_shell(glob: str, path: str, matches: bool) -> None:
    assert Glob(glob).matches(path) is matches
    assert Glob(glob).among(["", path]) == [False, matches]


def test_ripgrep_gets_no_option_from_a_model_and_no_pattern_it_reads_otherwise(
    tmp_path: Path,
) -> None:
    argv = ripgrep_argv("/rg", "-e --pre=x", "/w", literal=False, include="*.py", above=False)
    assert argv[:2] == ("/rg", "--no-config")
    assert "--regexp=-e --pre=x" in argv
    assert argv[-2:] == ("--", "/w")
    for pattern in (r"a\.b", r"^\w+ [a-z]*$", "(?i)x|(y)+", r"\bword\b", "x{2,3}?"):
        assert same_meaning(pattern, literal=False), pattern
    for pattern in ("é", r"\x41", "[a&&b]", "[[a]b]", "a--b", r"\p{L}", r"\Aa", "(?s)a", "a\nb"):
        assert same_meaning(pattern, literal=False) is ("(?s)" in pattern), pattern
    (tmp_path / "rg").write_text("#!/bin/sh\n")
    (tmp_path / "rg").chmod(0o755)
    assert ripgrep_program(f"{tmp_path}:relative", str(tmp_path)) is None
    assert ripgrep_program(f"/nowhere:{tmp_path}", "/other") == f"{tmp_path}/rg"
