"""Where configuration and data live."""

from __future__ import annotations

from pathlib import Path

import pytest

from crush_trio.config.paths import (
    data_directory,
    extra_config_path,
    is_inside,
    user_config_path,
)
from crush_trio.protocol.errors import ConfigError


def test_data_lives_under_xdg_data_home_or_else_under_home() -> None:
    both = {"XDG_DATA_HOME": "/x/data", "HOME": "/h"}
    assert data_directory(both) == Path("/x/data/crush-trio")
    assert data_directory({"HOME": "/h"}) == Path("/h/.local/share/crush-trio")


def test_a_given_data_directory_wins_and_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_directory({}, "some/where/../else") == tmp_path / "some" / "else"
    assert data_directory({"HOME": "/h"}, Path("/given")) == Path("/given")


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "here", "XDG_DATA_HOME": "there"}])
def test_without_a_home_the_sentence_says_what_to_set(environ: dict[str, str]) -> None:
    """G14."""
    with pytest.raises(ConfigError) as caught:
        data_directory(environ)
    assert str(caught.value) == (
        "There is no place for data: HOME is not set; set HOME or XDG_DATA_HOME to an absolute"
        " path, or give --data-dir."
    )


def test_the_users_file_is_found_by_xdg_then_home_and_is_absent_without_both() -> None:
    assert user_config_path({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}) == Path(
        "/c/crush-trio/config.json"
    )
    relative = {"XDG_CONFIG_HOME": "relative", "HOME": "/h"}
    assert user_config_path(relative) == Path("/h/.config/crush-trio/config.json")
    assert user_config_path({}) is None


def test_the_extra_file_must_be_named_by_an_absolute_path() -> None:
    assert extra_config_path({}) is None
    assert extra_config_path({"CRUSH_TRIO_CONFIG": "/a/b.json"}) == Path("/a/b.json")
    with pytest.raises(ConfigError, match="absolute path"):
        extra_config_path({"CRUSH_TRIO_CONFIG": "b.json"})


def test_inside_means_after_following_symlinks_and_before_any_expansion(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "w", tmp_path / "outside"
    workspace.mkdir()
    outside.mkdir()
    (workspace / "link").symlink_to(outside)
    (workspace / "loop").symlink_to("loop")
    inside = {
        path: is_inside(workspace, path)
        for path in (
            "AGENTS.md",
            "docs/../AGENTS.md",
            str(workspace / "x"),
            "..",
            "../w-other",
            "link/secret",
            "/etc/passwd",
            "~/notes",
            "$HOME/notes",
            "a\0b",
        )
    }
    assert inside == {
        "AGENTS.md": True,
        "docs/../AGENTS.md": True,
        str(workspace / "x"): True,
        "..": False,
        "../w-other": False,
        "link/secret": False,
        "/etc/passwd": False,
        "~/notes": False,
        "$HOME/notes": False,
        "a\0b": False,
    }
    assert is_inside(workspace, "n" * 5000)  # longer than any file name, and no error


def test_a_workspace_reached_through_a_symlink_contains_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    assert is_inside(tmp_path / "alias", "AGENTS.md")
    assert is_inside(tmp_path / "alias", str(tmp_path / "real" / "AGENTS.md"))
