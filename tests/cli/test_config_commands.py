"""``crush-trio config``: trust with and without a person; check and schema for programs."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.kit import cli, environment


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / "crush.json").write_text('{"mcp": {"m": {"command": "evil"}}}')
    return work


def listed(env: dict[str, str]) -> list[tuple[str, str]]:
    done = cli(env, "config", "trust", "--list", "--json")
    assert done.returncode == 0
    return [(each["directory"], each["state"]) for each in json.loads(done.stdout)]


def test_trust_is_given_shown_listed_lost_by_a_change_and_taken_back(
    env: dict[str, str], work: Path, tmp_path: Path
) -> None:
    assert (
        "inert: crush.json: mcp (the workspace is not trusted)"
        in cli(env, "config", "check", "-C", str(work)).stdout
    )
    done = cli(env, "config", "trust", "--yes", cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"command": "evil"' in done.stdout
    assert done.stdout.endswith(f"{work} is trusted, until the above changes.\n")
    assert listed(env) == [(str(work), "trusted")]
    shown = json.loads(cli(env, "config", "show", "--json", "-C", str(work)).stdout)
    assert (shown["trust"], shown["inert"]) == ("trusted", [])
    (work / "crush.json").write_text('{"mcp": {"m": {"command": "worse"}}}')
    assert listed(env) == [(str(work), "changed")]
    assert (
        "inert: crush.json: mcp (changed after the workspace was trusted)"
        in cli(env, "config", "show", "-C", str(work)).stdout
    )
    work.rename(tmp_path / "gone")
    assert listed(env) == [(str(work), "missing")]
    done = cli(env, "config", "trust", str(work), "--revoke")
    assert (done.returncode, done.stdout) == (0, f"{work} is not trusted any more.\n")
    assert listed(env) == []


def test_without_a_terminal_nothing_is_trusted_unasked(env: dict[str, str], work: Path) -> None:
    """G12."""
    done = cli(env, "config", "trust", str(work))
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    done = cli(env, "config", "trust", str(work), input="y\n", stdin=None)
    assert done.returncode == 2
    assert listed(env) == []


def at_a_terminal(env: dict[str, str], work: Path, said: str) -> tuple[int, str]:
    """Trust ``work`` as a person would who answers ``said``: exit code, and all that is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crush_trio", "config", "trust", str(work)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, b"y\n")  # typed before anything was shown
    shown = b""
    deadline = time.monotonic() + 30
    answered = False
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not answered and b"[y/N]" in shown:
            answered = True
            os.write(ours, said.encode())
    process.kill()  # if it has not ended yet, it waits for more than was said
    os.close(ours)
    return process.wait(30), shown.decode()


def test_a_person_is_asked_after_everything_was_shown(env: dict[str, str], work: Path) -> None:
    """G12: only a yes is one, and none that was typed before the question."""
    for said in ("\n", "yess\n"):
        code, shown = at_a_terminal(env, work, said)
        assert code == 1, shown
        assert "not trusted" in shown
        assert listed(env) == []
    code, shown = at_a_terminal(env, work, "y\n")
    assert code == 0, shown
    assert shown.index('"command": "evil"') < shown.index("[y/N]")
    assert listed(env) == [(str(work), "trusted")]


def test_wrong_uses_are_one_sentence(env: dict[str, str], work: Path) -> None:
    """G14."""
    for arguments, code, words in (
        (("trust", str(work / "none")), 2, "is not a directory"),
        (("trust", "--json"), 2, "--json goes with --list"),
    ):
        done = cli(env, "config", *arguments)
        assert done.returncode == code
        assert words in done.stderr
    trusted = Path(env["HOME"]) / ".config" / "crush-trio" / "trust.json"
    trusted.parent.mkdir(parents=True)
    trusted.write_text("{}")
    trusted.chmod(0o666)
    for more in (("--yes", str(work)), ("--list",)):
        done = cli(env, "config", "trust", *more)
        assert done.returncode == 4
        assert "others may write it" in done.stderr


def test_a_directory_without_inert_parts_needs_no_trust(env: dict[str, str], work: Path) -> None:
    (work / "crush.json").write_text('{"options": {"progress": true}}')
    done = cli(env, "config", "trust", str(work))
    assert (done.returncode, listed(env)) == (0, [])
    assert "nothing to trust" in done.stdout


def test_check_and_schema_can_be_read_by_programs(env: dict[str, str], work: Path) -> None:
    (work / "crush.json").write_text('{"models": {"large": {"provider": "opnai", "model": "m"}}}')
    done = cli(env, "config", "check", "--json", "-C", str(work))
    assert done.returncode == 4
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    [error] = [each["text"] for each in answer["findings"] if each["level"] == "error"]
    assert error.endswith("did you mean openai?")
    assert cli(env, "config", "schema").stdout == cli(env, "schema", "config").stdout


def test_check_names_rules_that_cannot_be_read_and_tools_that_are_not_there(
    env: dict[str, str], work: Path
) -> None:
    user = Path(env["HOME"]) / ".config" / "crush-trio" / "config.json"
    user.parent.mkdir(parents=True, exist_ok=True)
    user.write_text('{"permissions": {"denied_tools": ["bash(rm)", "bahs"]}}')
    done = cli(env, "config", "check", "-C", str(work))
    assert done.returncode == 0
    assert "warning: $.permissions.denied_tools: permission pattern 'bahs'" in done.stdout
    assert "did you mean bash?" in done.stdout
    user.write_text('{"permissions": {"denied_tools": ["bash(rm"]}}')
    done = cli(env, "config", "check", "-C", str(work))
    assert done.returncode == 4
    assert "error: $.permissions.denied_tools: permission pattern 'bash(rm'" in done.stdout
