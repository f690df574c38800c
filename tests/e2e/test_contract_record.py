"""``--record FILE`` (contract 9): what a model said, as a script that can be played again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, script


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for tests that each use a directory of their own."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


def test_a_recorded_run_can_be_played_again(server: Server, project: Path) -> None:
    """Contract 9: text and tool calls are the same; the file is complete after the run."""
    model = script(
        project / "m.json",
        [{"text": "Let me look. "}, {"tool": "ls", "input": {"path": "."}}],
        [{"text": "A project.", "piece_chars": 2, "every_ms": 2}],
    )
    first = server.cli("run", "-m", model, "--record", "said.json", "go", cwd=project)
    assert first.returncode == 0, first.stderr
    assert len(json.loads((project / "said.json").read_text())["steps"]) == 2
    again = server.cli("run", "-m", "script/said.json", "go", cwd=project)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr


def test_nothing_is_overwritten_by_a_recording(server: Server, project: Path) -> None:
    """Contract 9: refused before the run is accepted, and the file is as it was."""
    (project / "mine.json").write_text("mine")
    done = server.cli("run", "--record", "mine.json", "list", cwd=project)
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert (project / "mine.json").read_text() == "mine"
    workspace = server.workspace(project)
    assert server.get(f"/v1/workspaces/{workspace}/runs")["runs"] == []


@pytest.mark.parametrize(
    ("file", "code"), [("said.json", "record_file"), ("/nowhere/said.json", "record_file")]
)
def test_a_recording_needs_an_absolute_path_in_a_directory_of_ours(
    server: Server, project: Path, file: str, code: str
) -> None:
    """Contract 9, G14: the command line makes the path absolute, others must."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    body: Json = {"session_id": session, "prompt": "list", "record": file}
    status, answer = server.call("POST", f"/v1/workspaces/{workspace}/agent", body)
    assert (status, answer["code"]) == (400, code)


def test_over_tcp_nobody_has_files_written(home: Path, project: Path) -> None:
    """Contract 9: as for playing one, on the unix socket only unless the server says otherwise."""
    for more, taken in (([], False), (["--allow-script-models"], True)):
        server = Server(home, "--host", "tcp://127.0.0.1:0", *more)
        server.start()
        token = (server.data / "token").read_text().strip().rpartition(":")[2]
        file = project / "said.json"
        done = server.cli(
            "run", "-d", "--record", str(file), "-C", str(project), "list",
            "--server", server.url, "--token-file", str(server.data / "token"),
        )  # fmt: skip
        server.kill()
        assert token not in done.stdout + done.stderr
        assert (done.returncode == 0) is taken, done.stderr
        if not taken:
            assert "on the local unix socket only" in done.stderr
            assert not file.exists()


def test_a_prompt_to_be_recorded_is_not_folded_into_another_run(
    server: Server, project: Path
) -> None:
    """Contract 3 and 9: what it is answered must be in its own file."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(
        project / "m.json", [{"tool": "ls", "input": {}}, {"wait_ms": 300}], [{"text": "done"}]
    )
    running = server.prompt(workspace, session, "one", model=model, if_busy="steer")
    steered = server.prompt(
        workspace,
        session,
        "two",
        model=model,
        if_busy="steer",
        record=str(project / "said.json"),
    )
    assert server.ended(running["run_id"])["outcome"] == "completed"
    assert server.ended(steered["run_id"])["outcome"] == "completed"
    assert (project / "said.json").exists()
