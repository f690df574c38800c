"""The numbers about a directory that ls adds: complete, bounded, and true when it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from crush_trio import limits
from crush_trio.tools.search import program as search_child
from crush_trio.tools.search.walk import walk


def summary(directory: Path, *ignore: str) -> dict[str, object]:
    place = {"start": str(directory), "root": str(directory)}
    return search_child.summary({**place, "ignore": list(ignore), "depth": 0})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "README.md": 10,
        "src/a.py": 100,
        "src/deep/b.py": 50,
        "docs/x": 5,
        "junk/c.o": 9_000,
        ".hidden": 1,
        "Makefile": 2,
    }
    for name, size in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return tmp_path


def test_files_and_bytes_are_counted_by_extension_and_top_directory(tree: Path) -> None:
    assert summary(tree, "junk") == {
        "files": 6,
        "bytes": 168,
        "complete": True,
        "here": [".hidden", "Makefile", "README.md", "docs/", "src/"],
        "extensions": {".py": [2, 150], ".md": [1, 10], "": [3, 8]},
        "directories": {"src": [2, 150], "docs": [1, 5]},
        "largest": [
            ["src/a.py", 100],
            ["src/deep/b.py", 50],
            ["README.md", 10],
            ["docs/x", 5],
            ["Makefile", 2],
            [".hidden", 1],
        ],
    }


def test_a_walk_that_is_stopped_says_so_and_still_names_what_is_at_the_top(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_child, "TREE_SUMMARY_FILES", 3)
    cut = summary(tree)
    assert cut["complete"] is False
    assert cut["here"] == [".hidden", "Makefile", "README.md", "docs/", "junk/", "src/"]


def test_its_tables_are_bounded(tmp_path: Path) -> None:
    for number in range(limits.TREE_SUMMARY_NAMES + 5):
        (tmp_path / f"file.x{number}").write_bytes(b"x" * number)
    found = summary(tmp_path)
    assert found["files"] == limits.TREE_SUMMARY_NAMES + 5
    for table, bound in (
        ("here", limits.TREE_SUMMARY_NAMES),
        ("extensions", limits.TREE_SUMMARY_ROWS),
        ("largest", limits.TREE_SUMMARY_ROWS),
    ):
        value = found[table]
        assert isinstance(value, list | dict)
        assert len(value) == bound


def test_a_walk_reports_sizes(tree: Path) -> None:
    sizes = {one.path: one.stat()[1] for one in walk(str(tree), str(tree)) if one.is_file}
    assert sizes["junk/c.o"] == 9_000
