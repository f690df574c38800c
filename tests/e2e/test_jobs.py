"""Background jobs through the real server: their life, their output, and whose they are (G10)."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Json, Server, alive, eventually, script


def bash(command: str, **more: Any) -> Json:
    return {"tool": "bash", "input": {"command": command, "description": "a job", **more}}


def background(command: str) -> Json:
    return bash(command, run_in_background=True)


@pytest.fixture
def workspace(server: Server, project: Path) -> str:
    return server.workspace(project)


@pytest.fixture
def session(server: Server, workspace: str) -> str:
    return server.session(workspace)


def play(server: Server, workspace: str, session: str, *actions: Json, name: str = "s") -> Json:
    """A run that makes these calls, one a step; its record."""
    path = server.home / f"{name}-{secrets.token_hex(4)}.json"
    model = script(path, *[[action] for action in actions], [{"text": "done"}])
    run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
    return server.ended(run["run_id"])


def results(server: Server, workspace: str, session: str) -> list[Json]:
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    parts = [part for message in messages for part in message["parts"]]
    return [part["data"] for part in parts if part["type"] == "tool_result"]


def jobs(server: Server, workspace: str, query: str = "") -> list[Json]:
    found: list[Json] = server.get(f"/v1/workspaces/{workspace}/jobs{query}")["jobs"]
    return found


def output(server: Server, workspace: str, job: str = "001", **query: object) -> Json:
    text = "&".join(f"{key}={value}" for key, value in query.items())
    found: Json = server.get(f"/v1/workspaces/{workspace}/jobs/{job}/output?{text}")
    return found


def pid_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


STUBBORN = 'trap "" TERM INT HUP; (setsid sleep 600 &); echo $$ >{pid}; while :; do sleep 0.1; done'


def test_a_job_outlives_its_run_and_its_output_is_read_by_position(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """G10: the run's ending does not wait for it, counts it; the job's events name no run."""
    go = project / "go"
    command = f"echo first; while ! test -e {go}; do sleep 0.02; done; echo second; exit 3"
    record = play(server, workspace, session, background(command))
    assert (record["outcome"], record["processes"]["started"]) == ("completed", 1)
    assert (record["processes"]["killed"], record["processes"]["left"]) == (0, [])
    told = results(server, workspace, session)[0]
    assert told["content"].startswith("Background shell started with ID: 001")
    metadata = json.loads(told["metadata"])
    assert (metadata["background"], metadata["shell_id"]) == (True, "001")
    [job] = jobs(server, workspace, f"?session_id={session}")
    assert (job["state"], job["origin_run"], job["exit_code"]) == ("running", record["id"], None)
    assert jobs(server, workspace, "?session_id=other") == []
    shot = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/snapshot")
    assert [each["job_id"] for each in shot["jobs"]] == ["001"]

    shown = server.cli("ps").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [["JOB", "STATE"], ["001", "running"]]

    piece = output(server, workspace)
    assert piece == {"data": "first\n", "next": 6, "done": False, "dropped": 0}
    go.touch()
    piece = output(server, workspace, after=6, wait=10)
    assert (piece["data"], piece["next"]) == ("second\n", 13)
    end = output(server, workspace, after=13, wait=10)
    assert end == {"data": "", "next": 13, "done": True, "dropped": 0}
    assert output(server, workspace, after=2, limit=5)["data"] == "rst\ns"
    [job] = jobs(server, workspace)
    assert (job["state"], job["exit_code"], job["output_bytes"]) == ("exited", 3, 13)

    events = [e for e in server.events(workspace) if e["type"] == "job"]
    assert [e["payload"]["type"] for e in events] == ["created", "updated"]
    for event in events:
        assert event["payload"]["payload"]["job_id"] == "001"
        assert "run_id" not in event["payload"]["payload"]


def test_what_a_job_writes_is_shown_live_in_its_own_name(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    go = project / "go"
    command = f"echo first; while ! test -e {go}; do sleep 0.02; done; echo second"
    play(server, workspace, session, background(command))
    with server.stream(workspace, "after=now") as stream:
        seen = stream.until(lambda frame: frame["type"] == "tool_output")
        go.touch()
        seen += stream.until(lambda frame: frame["type"] == "job")
    shown = [frame for frame in seen if frame["type"] == "tool_output"]
    assert "".join(frame["text"] for frame in shown) == "first\nsecond\n"
    assert [frame["offset"] for frame in shown] == [0, 6]
    assert {(frame["job_id"], "run_id" in frame) for frame in shown} == {("001", False)}
    assert seen[-1]["payload"]["payload"]["state"] == "exited"


def test_a_model_reads_waits_for_and_kills_its_jobs(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """CW 7.3: ids, texts and metadata."""
    play(
        server,
        workspace,
        session,
        background("echo going; sleep 600"),
        {"tool": "job_output", "input": {"shell_id": "001"}},
        {"tool": "job_output", "input": {"shell_id": "001", "offset": 2}},
        {"tool": "job_kill", "input": {"shell_id": "001"}},
        background("echo once more; sleep 1.5; exit 4"),
        {"tool": "job_output", "input": {"shell_id": "002", "wait": True}},
        {"tool": "job_output", "input": {"shell_id": "007"}},
        background("echo failed at once >&2; exit 9"),
    )
    found = results(server, workspace, session)
    texts = [result["content"] for result in found]
    assert texts[1] == "Status: running\n\ngoing"
    assert texts[2] == "Status: running\n\ning\n\n\n(go on with offset 6)"
    assert texts[3] == "Background shell 001 terminated successfully"
    assert texts[5] == "Status: completed\n\nonce more\nExit code 4"
    assert texts[6] == "background shell not found: 007; this session has: 001, 002"
    assert texts[7] == f"failed at once\nExit code 9\n\n<cwd>{project}</cwd>"
    assert json.loads(found[5]["metadata"]) == {
        "shell_id": "002",
        "command": "echo once more; sleep 1.5; exit 4",
        "description": "a job",
        "done": True,
        "working_directory": str(project),
    }
    assert [job["state"] for job in jobs(server, workspace)] == ["killed", "exited", "exited"]


def test_a_command_moves_to_the_background_only_if_it_was_asked_to(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """A quick one leaves no trace of having been ready to move."""
    record = play(
        server,
        workspace,
        session,
        bash("sleep 0; echo quick", auto_background_after=20),
        bash("echo slow; sleep 600", auto_background_after=1),
        {"tool": "job_output", "input": {"shell_id": "002"}},
    )
    texts = [result["content"] for result in results(server, workspace, session)]
    assert texts[0] == f"quick\n\n<cwd>{project}</cwd>"
    assert "moved to background.\n\nBackground shell ID: 002" in texts[1]
    assert texts[2] == "Status: running\n\nslow"
    assert record["processes"] == {"started": 2, "killed": 0, "left": []}
    assert [job["job_id"] for job in jobs(server, workspace)] == ["002"]


def test_a_command_that_was_not_moved_yet_ends_with_its_run(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    pid = project / "pid"
    call = bash(STUBBORN.format(pid=pid), auto_background_after=500)
    model = script(project / "m.json", [call])
    run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")["run_id"]
    process = pid_in(pid)
    server.post(f"/v1/runs/{run}/cancel")
    record = server.ended(run)
    assert record["outcome"] == "cancelled"
    assert record["processes"]["started"] == 1
    assert record["processes"]["killed"] >= 2
    assert not alive(process)
    assert jobs(server, workspace) == []


def test_a_killed_job_takes_its_whole_tree_with_it(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    pid = project / "pid"
    play(server, workspace, session, background(STUBBORN.format(pid=pid)))
    process = pid_in(pid)
    job = server.post(f"/v1/workspaces/{workspace}/jobs/001/kill")
    assert (job["state"], job["left"]) == ("killed", [])
    assert not alive(process)
    assert server.post(f"/v1/workspaces/{workspace}/jobs/001/kill") == job, "again changes nothing"
    assert server.call("GET", f"/v1/workspaces/{workspace}/jobs/0FF")[0] == 404


@pytest.mark.parametrize("how", ["session", "close", "purge", "stop"])
def test_a_job_ends_with_its_session_its_workspace_and_its_server(
    how: str, server: Server, project: Path, workspace: str, session: str
) -> None:
    pid = project / "pid"
    play(server, workspace, session, background(STUBBORN.format(pid=pid)))
    process = pid_in(pid)
    if how == "session":
        server.call("DELETE", f"/v1/workspaces/{workspace}/sessions/{session}")
        assert jobs(server, workspace) == []
    elif how == "close":
        server.post(f"/v1/workspaces/{workspace}/close")
        [job] = jobs(server, workspace)
        assert job["state"] == "killed"
        assert output(server, workspace) == {"data": "", "next": 0, "done": True, "dropped": 0}
    elif how == "purge":
        assert server.call("DELETE", f"/v1/workspaces/{workspace}?purge=true")[0] == 200
    else:
        assert server.stop() == 0
    assert not alive(process)
    if how == "stop":
        server.start()
        assert [job["state"] for job in jobs(server, workspace)] == ["killed"]


def test_a_job_of_a_server_that_died_is_gone_and_lost(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """Its number is not given again, and no run is repeated for it."""
    pid = project / "pid"
    play(server, workspace, session, background(STUBBORN.format(pid=pid)))
    process = pid_in(pid)
    server.kill()
    server.start()
    assert not alive(process)
    [job] = jobs(server, workspace)
    assert (job["state"], job["exit_code"], job["left"]) == ("lost", None, [])
    assert job["ended_at_ms"] is not None
    play(server, workspace, session, background("sleep 600"))
    assert [job["job_id"] for job in jobs(server, workspace)] == ["001", "002"]


def test_a_job_may_not_drive_the_server(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    command = (
        'python3 -c \'import http.client, socket, sys; c = http.client.HTTPConnection("x");'
        " c.sock = socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1]);"
        f' c.request("GET", "/v1/runs"); print(c.getresponse().read())\' {server.socket_path};'
        " sleep 600"
    )
    play(server, workspace, session, background(command))
    piece = output(server, workspace, wait=15)
    assert "from_tool" in piece["data"]


def test_the_servers_cgroup_goes_with_it_however_it_ended(server: Server, home: Path) -> None:
    version = server.get("/v1/version")
    if version["process_control"] != "cgroup":
        pytest.skip(f"trees are kept together by {version['process_control']} here")
    note = server.data / "process-cgroup"
    first = Path(note.read_text())
    assert first.is_dir()
    assert str(server.pid) in first.name
    server.kill()
    server.start()
    second = Path(note.read_text())
    assert (first.exists(), second.is_dir()) == (False, True)
    assert server.stop() == 0
    assert (second.exists(), note.exists()) == (False, False)
