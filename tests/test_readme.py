"""What the README and the other pages say can be done exists: commands, options, files, codes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from crush_trio.cli import exit_codes
from crush_trio.cli.group import COMMANDS, cli
from crush_trio.cli.serve import command as serve

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").iterdir()])

_SH = re.compile(r"^```sh\n(.*?)\n^```$", re.DOTALL | re.MULTILINE)
_TYPED = re.compile(r"^ {4,}(?:\$ )?((?:\S+ \| |\w+ .* \| )?crush-trio .*)$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(crush-trio [^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def table(heading: str) -> list[tuple[str, str]]:
    """The two columns of the table under a heading of the README, without its head."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    return [row for row in rows if row not in (("code", "meaning"), ("command", "what it does"))]


def commands_in(line: str) -> Iterator[list[str]]:
    """The arguments of each ``crush-trio`` in a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            if words and words[0].rpartition("/")[2] == "crush-trio":
                yield words[1:]
            words = []
        elif set(word) <= set("<>"):
            skip = True  # what follows is a file
        elif skip:
            skip = False
        elif words or "=" not in word:
            words.append(word)


def shown() -> Iterator[tuple[str, str]]:
    """Every command line of ours in the pages, with the page it stands in."""
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [line for block in _SH.findall(text) for line in block.splitlines()]
        for line in (*lines, *_TYPED.findall(text), *_INLINE.findall(text)):
            yield page.relative_to(ROOT).as_posix(), line


def parse(arguments: list[str]) -> None:
    """Let click parse what the command is given, and nothing more.

    Raises:
        click.UsageError: There is no such command or option, or a value does not fit.
    """
    group: click.Group = cli
    context = click.Context(cli, info_name="crush-trio")
    while arguments:
        if arguments[0].startswith("-"):
            break
        name, command, rest = group.resolve_command(context, arguments)
        assert command is not None
        if not isinstance(command, click.Group):
            if rest:  # else the command is only named
                command.make_context(name, rest, parent=context)
            return
        group, arguments = command, rest
    assert arguments in ([], ["--help"], ["--version"])


SHOWN = sorted(set(shown()))


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{page}:{line}" for page, line in SHOWN])
def test_each_command_line_parses(page: str, line: str) -> None:
    found = list(commands_in(line))
    assert found or "crush-trio" not in line, page
    for arguments in found:
        parse(arguments)


def test_command_lines_are_found_and_wrong_ones_are_noticed() -> None:
    assert {"README.md", "docs/tutorial.md", "docs/security.md"} <= {page for page, _ in SHOWN}
    assert list(commands_in("echo hi | A=1 .venv/bin/crush-trio run -q 'a b' > x && ls")) == [
        ["run", "-q", "a b"]
    ]
    for wrong in (["dance"], ["run", "--dance"], ["ps", "-n", "many"], ["session", "burn"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_the_table_of_exit_codes_is_the_programs_own() -> None:
    listed = [(int(code), meaning) for code, meaning in table("Exit codes")]
    assert listed == list(exit_codes.TABLE)
    printed = cli.get_help(click.Context(cli))
    for code, meaning in listed:
        assert re.search(rf"^ +{code}  {re.escape(meaning)}$", printed, re.MULTILINE)


def test_the_exit_codes_of_serve_are_those_of_its_help() -> None:
    [sentence] = re.findall(r"^`serve` has its own: (.*)\.$", README, re.MULTILINE)
    assert set(re.findall(r"\b\d+\b", sentence)) == set(
        re.findall(r"^ +(\d+)  ", serve.get_help(click.Context(serve)), re.MULTILINE)
    )


def test_the_table_of_commands_is_complete() -> None:
    listed = [name.removeprefix("`crush-trio ").rstrip("`") for name, _ in table("Commands")]
    assert sorted(listed) == sorted(COMMANDS)


def test_the_two_commands_are_scripts_that_exist_and_flags_they_take() -> None:
    blocks = _SH.findall(README)
    assert len(blocks) == 2
    for script in re.findall(r"scripts/\w+", " ".join(blocks)):
        assert os.access(ROOT / script, os.X_OK)
    told = subprocess.run(
        [ROOT / "scripts/setup", "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "scripts/setup --runtime" in told
    assert blocks[0].startswith("scripts/setup --runtime && ")


def test_what_is_run_before_a_merge_is_the_second_command() -> None:
    assert _SH.findall(README)[1] in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_every_guarantee_is_named_once_and_in_order() -> None:
    listed = [name for name, _ in table("What it guarantees")]
    assert listed == [f"G{number}" for number in range(1, 15)]


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = _HEADING.findall(file.read_text("utf-8"))
            assert anchor in {_anchor(heading) for heading in headings}, target
