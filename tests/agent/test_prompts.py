"""The system prompt and the project's files in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crush_trio import limits
from crush_trio.agent.prompts import ContextFile, read_context_files, system_prompt


def names(workspace: Path, *wanted: str) -> list[str]:
    return [file.path for file in read_context_files(workspace, wanted)]


def test_files_come_in_the_order_asked_and_each_once(tmp_path: Path) -> None:
    (tmp_path / "CRUSH.md").write_text("crush")
    (tmp_path / "AGENTS.md").write_text("agents")
    os.link(tmp_path / "CRUSH.md", tmp_path / "again.md")
    (tmp_path / "link.md").symlink_to("AGENTS.md")
    wanted = ("AGENTS.md", "missing.md", "CRUSH.md", "again.md", "link.md")
    assert names(tmp_path, *wanted) == ["AGENTS.md", "CRUSH.md"]


def test_a_directory_stands_for_the_files_right_in_it(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    (rules / "deeper").mkdir(parents=True)
    for name in ("b.md", "a.md", "deeper/c.md"):
        (rules / name).write_text(name)
    assert names(tmp_path, "rules") == ["rules/a.md", "rules/b.md"]


def test_nothing_outside_of_the_workspace_is_read(tmp_path: Path) -> None:
    """G12: whatever name or link leads there."""
    outside = tmp_path / "outside"
    workspace = tmp_path / "workspace"
    for directory in (outside, workspace):
        directory.mkdir()
    (outside / "secret.md").write_text("secret")
    (workspace / "link.md").symlink_to(outside / "secret.md")
    (workspace / "out").symlink_to(outside)
    wanted = ("link.md", "out", "out/secret.md", "../outside", "../outside/secret.md")
    assert names(workspace, *wanted, str(outside / "secret.md"), "..", "/") == []


def test_what_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop of links, a pipe, a name with a NUL, and a file that goes away meanwhile."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ok.md").write_text("ok")
    assert names(tmp_path, "a", "pipe", "x\0y", "ok.md/below", "ok.md") == ["ok.md"]
    (tmp_path / "locked").mkdir()

    def refuse(self: Path, *mode: str) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert names(tmp_path, "locked", "ok.md") == ["ok.md"]
    monkeypatch.setattr(Path, "open", refuse)
    assert names(tmp_path, "ok.md") == []


def test_long_files_are_cut_and_say_so(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.md").write_text("x" * (limits.CONTEXT_FILE_BYTES + 1))
    found = read_context_files(tmp_path, [f"{number}.md" for number in range(6)])
    assert all(file.cut for file in found)
    assert len(found[0].text) == limits.CONTEXT_FILE_BYTES
    assert sum(len(file.text) for file in found) <= limits.CONTEXT_FILES_BYTES
    assert "[cut here" in system_prompt(tmp_path, is_git=True, today="2026-01-01", files=found)


def test_many_small_files_are_bounded_too(tmp_path: Path) -> None:
    for number in range(limits.CONTEXT_FILES + 5):
        (tmp_path / f"{number:03}.md").write_text("x")
    assert len(names(tmp_path, ".")) == limits.CONTEXT_FILES


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_bytes(b"caf\xe9")
    (file,) = read_context_files(tmp_path, ["bad.md"])
    assert file.text == "caf�"
    (tmp_path / os.fsdecode(b"n\xe9.md")).write_text("x")
    assert "�" in names(tmp_path, ".")[-1]


def test_the_prompt_names_where_it_is(tmp_path: Path) -> None:
    files = (ContextFile("AGENTS.md", "be brief"),)
    text = system_prompt(tmp_path, is_git=False, today="2026-01-01", files=files)
    assert f"Working directory: {tmp_path}\nGit repository: no\n" in text
    assert '<file path="AGENTS.md">\nbe brief\n</file>' in text
    assert "Date: 2026-01-01" in text
