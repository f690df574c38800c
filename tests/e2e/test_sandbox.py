"""The sandbox of a run, through the real command line and server (R-SANDBOX, T11, T30)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crush_trio.tools.sandbox.mechanism import VARIABLE
from tests.e2e.asking_kit import grant, pending
from tests.e2e.kit import Json, Server, cli, script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are Linux's")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server whose user has a secret at home."""
    home = tmp_path_factory.mktemp("h")
    server = Server(home)
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id").write_text("secret\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / ".git" / "hooks").mkdir(parents=True)
    return project


def bash(command: str) -> Json:
    return {"tool": "bash", "input": {"command": command, "description": "try"}}


def run(server: Server, project: Path, *actions: Json, sandbox: str) -> Json:
    """One run of these calls with everything permitted; what ``--output-format json`` says."""
    model = script(project.parent / "s.json", *[[each] for each in actions], [{"text": "done"}])
    argv = ["run", "go", "-m", model, "-y", "--sandbox", sandbox, "--output-format", "json"]
    done = cli(server.env, *argv, "--server", server.url, cwd=project)
    said: Json = json.loads(done.stdout)
    return {**said, "code": done.returncode}


def contents(server: Server, project: Path, session: str) -> list[str]:
    workspace = server.workspace(project)
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    parts = [part for message in messages for part in message["parts"]]
    return [part["data"]["content"] for part in parts if part["type"] == "tool_result"]


def test_a_run_writes_in_its_workspace_and_nowhere_else(server: Server, project: Path) -> None:
    outside = server.home / "outside.txt"
    ended = run(
        server,
        project,
        bash(f"echo in >in.txt; echo out >{outside}; cat ~/.ssh/id {server.data}/token; true"),
        bash("sleep 600 & echo left"),
        {"tool": "write", "input": {"file_path": str(outside), "content": "out"}},
        {"tool": "write", "input": {"file_path": ".git/hooks/pre-commit", "content": "evil"}},
        {"tool": "view", "input": {"file_path": str(server.home / ".ssh" / "id")}},
        {"tool": "write", "input": {"file_path": "ok.txt", "content": "fine"}},
        {"tool": "fetch", "input": {"url": "http://127.0.0.1:1/", "format": "text"}},
        sandbox="workspace-write",
    )
    assert (ended["outcome"], ended["code"]) == ("completed", 0)
    assert (ended["processes"]["started"], ended["processes"]["killed"]) == (2, 1)
    said = contents(server, project, ended["session_id"])
    assert "secret" not in "".join(said)
    assert "lets it write in" in said[2]
    assert "protects" in said[3]
    assert "hides" in said[4]
    assert "no network" in said[6]
    assert sorted(os.listdir(project)) == [".git", "in.txt", "ok.txt"]
    assert not outside.exists()
    assert os.listdir(project / ".git" / "hooks") == []


def test_a_background_job_is_in_the_sandbox_of_the_run_that_started_it(
    server: Server, project: Path
) -> None:
    job = bash("echo x >in.txt; echo job")
    job["input"]["run_in_background"] = True
    wait = {"tool": "job_output", "input": {"shell_id": "001", "wait": True}}
    ended = run(server, project, job, wait, sandbox="read-only")
    assert ended["outcome"] == "completed"
    assert not (project / "in.txt").exists()
    assert "in.txt" in "".join(contents(server, project, ended["session_id"]))


def test_a_configured_sandbox_holds_for_a_persons_commands_too(
    server: Server, project: Path
) -> None:
    config = server.home / ".config" / "crush-trio"
    config.mkdir(parents=True)
    (config / "config.json").write_text('{"options": {"sandbox": "read-only"}}')
    # What a directory says for itself counts only when it is trusted.
    (project / "crush.json").write_text('{"options": {"sandbox": "off"}}')
    workspace = server.workspace(project)
    session = server.session(workspace)
    path = f"/v1/workspaces/{workspace}/agent/sessions/{session}/shell"
    try:
        answer = server.post(path, {"command": "touch no"})
    finally:
        (config / "config.json").unlink()
    assert answer["exit_code"] != 0
    assert server.record(answer["run_id"])["sandbox"] == "read-only"
    assert not (project / "no").exists()


def test_what_was_granted_in_a_sandbox_is_asked_for_again_without_one(
    server: Server, project: Path
) -> None:
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project.parent / "s.json", [bash("touch made")], [{"text": "done"}])

    def asked(sandbox: str) -> str:
        receipt = server.prompt(workspace, session, "go", model=model, sandbox=sandbox)
        return str(receipt["run_id"])

    first = asked("workspace-write")
    [item] = pending(server, workspace)
    assert item["request"]["covers"].endswith(", in a sandbox")
    grant(server, workspace, item["request"], "allow_session")
    assert server.ended(first)["outcome"] == "completed"
    assert server.ended(asked("workspace-write"))["outcome"] == "completed"
    third = asked("off")
    [item] = pending(server, workspace)
    grant(server, workspace, item["request"], "allow_session")
    assert server.ended(third)["outcome"] == "completed"
    server.call("DELETE", f"/v1/workspaces/{workspace}/sessions/{session}/grants")
    fourth = asked("off")
    [item] = pending(server, workspace)
    grant(server, workspace, item["request"], "allow_session")
    assert server.ended(fourth)["outcome"] == "completed"
    assert server.ended(asked("workspace-write"))["outcome"] == "completed"


def test_a_sandbox_that_cannot_be_had_is_an_error_and_nothing_is_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = Server(tmp_path_factory.mktemp("h"))
    server.env[VARIABLE] = "none"
    project = server.home / "project"
    project.mkdir()
    server.start()
    try:
        ended = run(server, project, bash("touch ran"), sandbox="workspace-write")
        runs = server.get("/v1/runs")["runs"]
        sessions = server.get(f"/v1/workspaces/{server.workspace(project)}/sessions")
    finally:
        server.stop()
    assert (ended["code"], ended["error"]["code"]) == (4, "sandbox_unavailable")
    assert "--sandbox off" in ended["error"]["message"]
    assert (runs, sessions) == ([], [])
    assert not (project / "ran").exists()


def test_an_unknown_mode_is_refused(server: Server, project: Path) -> None:
    workspace = server.workspace(project)
    body = {"session_id": server.session(workspace), "prompt": "go", "sandbox": "some"}
    answer = server.post(f"/v1/workspaces/{workspace}/agent", body, expect=400)
    assert "read-only" in answer["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can look into everything")
def test_the_server_cannot_be_looked_into(server: Server) -> None:
    with pytest.raises(PermissionError):
        Path(f"/proc/{server.pid}/environ").read_bytes()
