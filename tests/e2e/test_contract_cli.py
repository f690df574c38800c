"""Sentences of contract 6, held against the real command line and a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Server, script


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for tests that each use a directory of their own."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


def test_an_answer_larger_than_a_frame_is_printed_whole(shared: Server, tmp_path: Path) -> None:
    """Contract 4 and 6: a cut event is no reason for a cut answer, in any format."""
    answer = "größe " * 120_000
    model = script(tmp_path / "m.json", [{"text": answer}])
    for format_ in ("text", "json", "stream-json"):
        arguments = ("run", "-m", model, "--output-format", format_, "-C", str(tmp_path), "go")
        done = shared.cli(*arguments)
        assert done.returncode == 0, done.stderr
        if format_ == "text":
            assert done.stdout == answer + "\n"
        else:
            assert json.loads(done.stdout.splitlines()[-1])["text"] == answer


def test_a_refused_prompt_leaves_no_session_behind(shared: Server, tmp_path: Path) -> None:
    """G14: bad input changes nothing."""
    for wrong in (
        ["-m", "nobody/nothing"],
        ["-m", "script/none.json"],
        ["--allow-tool", "("],
        ["--deny-tool", "bahs"],
    ):
        done = shared.cli("run", *wrong, "-C", str(tmp_path), "go")
        assert done.returncode in (2, 4), done.stderr
    workspace = shared.workspace(tmp_path)
    assert shared.get(f"/v1/workspaces/{workspace}/sessions") == []


def test_the_same_command_with_the_same_run_id_starts_nothing_twice(
    shared: Server, tmp_path: Path
) -> None:
    """G3: also without a session, which the first one made."""
    arguments = ("run", "--run-id", "once", "-C", str(tmp_path), "list")
    first, second = shared.cli(*arguments), shared.cli(*arguments)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert first.stdout == second.stdout
    workspace = shared.workspace(tmp_path)
    assert len(shared.get(f"/v1/workspaces/{workspace}/sessions")) == 1
    other = shared.cli(*arguments[:-1], "something else")
    assert other.returncode == 2
    assert "once" in other.stderr


def test_a_session_may_be_named_as_ps_prints_it(shared: Server, tmp_path: Path) -> None:
    """Contract 6: what one command prints another one takes."""
    workspace = shared.workspace(tmp_path)
    session = shared.session(workspace)
    done = shared.cli("run", "-s", session[:8], "-C", str(tmp_path), "list")
    assert done.returncode == 0, done.stderr
    messages = shared.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    assert messages[0]["parts"][0]["data"]["text"] == "list"
