"""What the planner answers in real directories, through the real tools."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from crush_trio.models.scout.files import run
from crush_trio.models.scout.model import SAYS, Scout
from crush_trio.models.scout.plan import Answer
from tests.models.turn import Turn, run_turn

PYTHON = {
    "README.md": "# Greeter\n\n[![ci](a)](b)\n\nGreets people\nin many ways.\n\n## Install\n",
    "pyproject.toml": '[project]\nname = "greeter"\nversion = "2.1"\ndescription = "Says hello"\n'
    '[project.scripts]\ngreet = "greeter.cli:main"\n[tool.pytest.ini_options]\n',
    "greeter/__init__.py": '"""Greetings."""\n',
    "greeter/__main__.py": "from .cli import main\n\nif __name__ == '__main__':\n",
    "greeter/cli.py": 'def main():\n    print("hello")  # TODO: names\n\n\n'
    'if __name__ == "__main__":\n    main()\n',
    "greeter/big.py": "x = 1\n" * 500,
    "greeter/__pycache__/big.cpython-311.pyc": "compiled",
    "tests/test_cli.py": "def test_it():\n    pass  # FIXME\n",
}
GO = {
    "go.mod": "module example.org/tool\n\ngo 1.22\n",
    "cmd/tool/main.go": "package main\n\nfunc main() {\n}\n",
    "tool_test.go": "package tool\n",
}
JAVASCRIPT = {
    "package.json": '{"name": "jsx", "version": "1.0.0", "description": "A thing", '
    '"bin": "cli.js", "scripts": {"test": "node --test", "start": "node ."}}',
    "cli.js": "#!/usr/bin/env node\n",
    "src/a.test.js": "test()\n",
    "node_modules/dep/index.js": "// TODO: not ours\n",
}
PACKAGE = {
    "__init__.py": '# made by hand\n"""A library for waiting.\n\nAnd more.\n"""\n',
    "core.py": "def wait():\n    pass\n",
}


def fill(directory: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


async def git(directory: Path, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{what}": "a@b"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    env = {**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"}
    await trio.run_process(["git", "-C", str(directory), *arguments], env=env, capture_stdout=True)


async def ask(directory: Path, prompt: str, **options: object) -> Turn:
    mode, without = str(options.get("mode", "deny")), options.get("without", ())
    assert isinstance(without, tuple)
    spill = directory.parent / "spill"
    turn = await run_turn(Scout(), prompt, directory, spill, mode=mode, without=without)
    assert turn.answer.endswith(f"\n\n{SAYS}\n")
    assert len(turn.calls()) <= 12
    return turn


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


async def test_a_survey_of_a_python_repository_answers_every_question(workspace: Path) -> None:
    fill(workspace, PYTHON)
    await git(workspace, "init", "-q", "-b", "main")
    await git(workspace, "add", ".")
    await git(workspace, "commit", "-q", "-m", "Begin to greet")
    turn = await ask(workspace, "Survey this repository")
    assert len(turn.steps) == 2
    assert not [result for step in turn.steps for _, result in step if result.is_error]
    for line in (
        "# greeter\n\n`work`: a Python project, version 2.1.\n\nSays hello\n\n"
        "Greets people in many ways.\n",
        "7 files, ",
        "| Python | 5 | ",
        "- `greet` → `greeter.cli:main`\n",
        "- `python -m greeter` (`greeter/__main__.py`)\n- `greeter/cli.py` line 5: `if __name__",
        "1 file, most of them in `tests` (1). Run them with `python -m pytest`.",
        "- `greeter/` 4 files, 3.",
        "- `greeter/big.py` 2.9 KiB",
        "Changed most in the newest 1 commit: `greeter/` (5)",
        " Begin to greet\n",
        "1 FIXME, 1 TODO in 2 files",
        '  2: print("hello")  # TODO: names',
    ):
        assert line in turn.answer


@pytest.mark.parametrize(
    ("files", "fragments"),
    [
        (
            GO,
            (
                "# example.org/tool\n\n`work`: a Go project.",
                "No README, manifest or docstring says what it is for.",
                "- `cmd/tool/main.go` line 3: `func main() {`",
                "1 file, most of them in `.` (1). Run them with `go test ./...`.",
                "This directory has no git history; the files changed last:",
            ),
        ),
        (
            JAVASCRIPT,
            (
                "# jsx\n\n`work`: a JavaScript project, version 1.0.0.\n\nA thing\n",
                "3 files, ",
                "- `jsx` → `cli.js`\n- `npm run start`",
                "Run them with `npm test`.",
            ),
        ),
        (PACKAGE, ("`work`: a Python package.\n\nA library for waiting.\n", "No test files found")),
        ({"data.csv": "1,2\n"}, ("`work`: a directory.", "None found: it looks like a library")),
    ],
)
async def test_a_survey_reads_what_each_kind_of_project_says(
    workspace: Path, files: Mapping[str, str], fragments: tuple[str, ...]
) -> None:
    turn = await ask(fill(workspace, files), "Survey this repository")
    for fragment in fragments:
        assert fragment in turn.answer
    assert "node_modules" not in turn.answer


async def test_a_survey_of_an_empty_directory_says_so(workspace: Path) -> None:
    turn = await ask(workspace, "Survey this repository")
    assert turn.answer.startswith("`work` is empty")


async def test_a_survey_of_a_tree_too_long_to_list_still_counts_and_finds_the_tests(
    workspace: Path,
) -> None:
    fill(workspace, {f"a/{n}/x{n}.py": "" for n in range(1_100)})
    fill(workspace, {"z/tests/test_it.py": "", "README.md": "It is long.\n"})
    turn = await ask(workspace, "Survey this repository")
    assert "1102 files, 12 B." in turn.answer
    assert "\n\nIt is long.\n" in turn.answer
    assert "1 file, most of them in `z/tests` (1)." in turn.answer


async def test_a_survey_of_a_part_of_a_repository_is_about_that_part(workspace: Path) -> None:
    fill(workspace, {"part/src/a.py": "", "part/b.py": "", "other.py": ""})
    await git(workspace, "init", "-q")
    for path in ("other.py", "part"):
        await git(workspace, "add", path)
        await git(workspace, "commit", "-q", "-m", f"Add {path}")
    turn = await ask(workspace / "part", "Survey this repository")
    assert "newest 1 commit: `b.py` (1), `src/` (1)." in turn.answer
    assert "Add other.py" not in turn.answer


async def test_a_survey_without_some_tools_leaves_out_what_they_would_tell(workspace: Path) -> None:
    turn = await ask(fill(workspace, PYTHON), "Survey this repository", without=("grep", "bash"))
    assert "# greeter" in turn.answer
    assert "Open TODOs\n\nThe search failed: the tool grep is not available" in turn.answer
    turn = await ask(workspace, "Survey this repository", without=("ls",))
    assert "cannot be listed: the tool ls is not available in this run" in turn.answer


async def test_find_shows_the_definition_before_the_uses(workspace: Path) -> None:
    uses = "".join(f"open_it({n})\n" for n in range(150))
    fill(workspace, {"new.py": uses, "src/old.py": "async def open_it(n):\n    pass\n"})
    os.utime(workspace / "src" / "old.py", (1, 1))  # the search shows the newest file first
    turn = await ask(workspace, "Where is open_it defined?")
    assert turn.answer.startswith(
        "**Defined** (by its looks):\n\n```\nsrc/old.py\n  1: async def open_it(n):\n```\n"
    )
    assert "**at least 100 matching lines in 1 file**" in turn.answer
    assert "… and 70 more" in turn.answer


async def test_find_names_files_and_says_when_there_is_nothing(workspace: Path) -> None:
    fill(workspace, PYTHON)
    turn = await ask(workspace, "find big")
    assert "**Files with that name** (1):\n\n```\ngreeter/big.py\n```" in turn.answer
    turn = await ask(workspace, "find nothing_at_all")
    assert "Nothing in this directory is called or contains `nothing_at_all`." in turn.answer
    turn = await ask(workspace, "grep ( in src")
    assert turn.answer.startswith("The search failed: ")
    turn = await ask(workspace, "grep nothing_at_all in greeter")
    assert "Nothing in greeter matches `nothing_at_all`." in turn.answer
    turn = await ask(workspace, "grep x = 1")
    assert turn.answer.startswith("at least 100 matching lines in 1 file\n")


async def test_read_shows_lines_and_says_where_to_go_on(workspace: Path) -> None:
    fill(workspace, PYTHON)
    turn = await ask(workspace, "read greeter/big.py")
    assert turn.answer.startswith("`greeter/big.py`, lines 1 to 400\n\n```\n    1  x = 1\n")
    assert "There is more: `read greeter/big.py lines 401-800`." in turn.answer
    turn = await ask(workspace, "read greeter/big.py lines 499-600")
    assert "lines 499 to 500" in turn.answer
    assert "There is more" not in turn.answer
    turn = await ask(workspace, "read greeter/big.py line 900")
    assert "`greeter/big.py` has no text there." in turn.answer


async def test_a_file_is_found_by_its_name_alone_if_there_is_only_one(workspace: Path) -> None:
    fill(workspace, PYTHON | {"a/same.py": "", "b/same.py": ""})
    turn = await ask(workspace, "outline cli.py")
    assert turn.answer.startswith("`greeter/cli.py` declares 1 thing\n\n```\n    1  def main():\n")
    turn = await ask(workspace, "read same.py")
    assert "there are: " in turn.answer
    assert "a/same.py" in turn.answer
    turn = await ask(workspace, "read nowhere/same.py")
    assert turn.answer.startswith("nowhere/same.py cannot be read: File not found: ")


async def test_an_outline_has_headings_of_text_and_declarations_of_code(workspace: Path) -> None:
    code = (
        "# not a heading\nclass A:\n    type: int = 0\n    async def b(self):\nexport class C {}\n"
    )
    fill(workspace, PYTHON | {"a.py": code})
    turn = await ask(workspace, "outline README.md")
    assert "    1  # Greeter\n    8  ## Install\n" in turn.answer
    turn = await ask(workspace, "outline a.py")
    assert "declares 3 things" in turn.answer
    assert "not a heading" not in turn.answer
    turn = await ask(workspace, "outline greeter/big.py")
    assert "declares nothing" in turn.answer


async def test_what_changed_shows_status_difference_and_commits(workspace: Path) -> None:
    turn = await ask(workspace, "what changed")
    assert turn.answer.startswith("What changed is not known here: fatal: not a git repository")
    fill(workspace, {"a.txt": "one\n"})
    await git(workspace, "init", "-q", "-b", "main")
    turn = await ask(workspace, "what changed")
    assert "?? a.txt" in turn.answer
    assert "There are no commits yet." in turn.answer
    await git(workspace, "add", ".")
    await git(workspace, "commit", "-q", "-m", "Begin")
    turn = await ask(workspace, "what changed")
    assert "**Branch** main\n\n**Working tree** has no changes." in turn.answer
    assert "\tBegin\n" in turn.answer
    fill(workspace, {"a.txt": "two\n"} | {f"new{n}": "" for n in range(50)})
    turn = await ask(workspace, "what changed")
    assert "**Working tree** (51 changed):\n\n```\n M a.txt\n" in turn.answer
    assert "… and 11 more" in turn.answer
    assert "a.txt | 2 +-" in turn.answer


async def test_a_command_that_is_refused_is_answered_with_the_flags_that_allow_it(
    workspace: Path,
) -> None:
    turn = await ask(workspace, "run `make test`")
    assert turn.answer.startswith("`make test` was not run: Permission denied: ")
    assert "`--permission-mode allow`, or with `--allow-tool 'bash(make test)'`" in turn.answer
    assert "Do not repeat" not in turn.answer
    turn = await ask(workspace, "run ls | tee x")
    assert "`--permission-mode allow`." in turn.answer


def test_flags_are_proposed_only_where_they_help() -> None:
    """A rule that denies beats them, and the file system does not know them."""
    for said in (
        "Permission denied: bash (execute) on make is forbidden by the rule 'bash'. Do not repeat",
        "Permission denied: work/a.txt",
        "User denied permission",
    ):
        plan = run("make")
        next(plan)
        with pytest.raises(StopIteration) as end:
            plan.send((Answer(False, said),))
        assert end.value.value == f"`make` was not run: {said.removesuffix(' Do not repeat')}"


async def test_a_command_that_is_allowed_is_run_and_its_end_is_told(workspace: Path) -> None:
    turn = await ask(workspace, "run `echo one; exit 3`", mode="allow")
    assert turn.answer.startswith("`echo one; exit 3` failed\n\n```\none\nExit code 3\n```")
    turn = await ask(workspace, "run true", mode="allow")
    assert turn.answer.startswith("`true` ended well\n\n```\nno output\n```")


async def test_replace_changes_the_file_if_it_may(workspace: Path) -> None:
    path = fill(workspace, {"a.txt": "one two\ntwo\nthree\n"}) / "a.txt"
    turn = await ask(workspace, 'replace "two" with "2" in a.txt')
    assert "`a.txt` was not changed: Permission denied" in turn.answer
    assert "`--allow-tool 'write(a.txt)'`" in turn.answer
    assert path.read_text() == "one two\ntwo\nthree\n"
    turn = await ask(workspace, 'replace "two" with "2" in a.txt', mode="allow")
    assert "Replaced every `two` with `2` in `a.txt`: 2 new lines." in turn.answer
    assert path.read_text() == "one 2\n2\nthree\n"
    turn = await ask(workspace, 'replace "four" with "4" in a.txt', mode="allow")
    assert "`a.txt` was not changed: old_string not found" in turn.answer
    assert "Repeat the prompt" not in turn.answer
    turn = await ask(workspace, 'replace "a" with "b" in no/such.txt', mode="allow")
    assert "no/such.txt cannot be read: File not found" in turn.answer


async def test_list_shows_two_levels_without_what_is_installed(workspace: Path) -> None:
    turn = await ask(fill(workspace, JAVASCRIPT | {"src/b/c/d.js": ""}), "list")
    assert "  - src/\n    - a.test.js\n    - b/\n" in turn.answer
    assert "node_modules" not in turn.answer
    assert "d.js" not in turn.answer
    turn = await ask(workspace, "list nowhere")
    assert turn.answer.startswith("Cannot list nowhere: path does not exist: ")


async def test_a_file_cannot_break_out_of_the_answer(workspace: Path) -> None:
    turn = await ask(fill(workspace, {"a.md": "```\nOutside?\n```\n"}), "read a.md")
    assert "````\n    1  ```\n    2  Outside?\n    3  ```\n````" in turn.answer
