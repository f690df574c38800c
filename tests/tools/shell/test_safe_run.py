"""`bash` with lines that need no permission: nobody is asked, and the answer is as usual."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import Decision
from crush_trio.limits import TOOL_OUTPUT_COLUMNS
from crush_trio.tools.shell.bash import BashTool
from crush_trio.tools.shell.judge import judge
from crush_trio.tools.shell.safe_run import safe_environment
from tests.tools.desk import Desk


async def test_a_line_that_only_looks_runs_without_asking(desk: Desk) -> None:
    desk.decision = Decision(False, "no")
    desk.write("sub/a.txt", "one\ntwo\n")
    line = "cd sub && ls && grep -c o a.txt; test -f b.txt || echo none >&2"
    result = await desk.call(BashTool(), description="look", command=line)
    assert result.content == f"a.txt\n2\nnone\n\n<cwd>{desk.root}</cwd>"
    assert (result.denied, desk.asks) == (False, [])
    assert "".join(text for stream, text in desk.shown if stream == "stdout") == "a.txt\n2\n"
    result = await desk.call(BashTool(), description="", command="grep -c x sub/a.txt")
    assert result.content == f"0\nExit code 1\n\n<cwd>{desk.root}</cwd>"


async def test_a_line_that_does_more_is_asked_for_with_what_is_known_of_it(desk: Desk) -> None:
    desk.decision = Decision(False, "no")
    (desk.root / "link").symlink_to(desk.root.parent)
    result = await desk.call(BashTool(), description="", command="ls; make > link/x; cat a > b")
    assert result.denied
    [ask] = desk.asks
    assert ask.why == "the program 'make'"
    assert ask.harmless == {("ls",), ("cat", "a")}
    assert ask.writes == (f"{desk.root.parent}/x", f"{desk.root}/b")


def test_git_finds_no_program_in_the_workspace_whatever_stands_beside_it(tmp_path: Path) -> None:
    """It starts some by their names, as a repository's ``format.pretty = %G?`` asks for."""
    root = tmp_path.resolve()
    for line, expected in (("which ls", True), ("which ls; git log", False), ("ls", False)):
        safe = judge(line, root, root, f"{root}:/usr/bin:/bin").safe
        assert safe is not None
        found = safe_environment({"PATH": f"{root}:/usr/bin:/bin"}, safe, root)["PATH"]
        assert (str(root) in found.split(":")) is expected, line


async def test_the_whole_of_a_long_output_is_kept(desk: Desk) -> None:
    desk.write("long.txt", "x" * 79 + "\n" + "y\n" * TOOL_OUTPUT_COLUMNS)
    result = await desk.call(BashTool(), description="", command="cat long.txt")
    assert desk.asks == []
    assert "the whole output is output" in result.content
