"""What a SIGKILL leaves behind, and what the next start makes of it (G1, G2, G7, G8, G10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.kit import Server, alive, eventually, script


def test_nothing_accepted_is_lost_when_the_server_is_killed(server: Server, project: Path) -> None:
    """G1, G2: the running run is lost once, queued ones go on, cancelled ones stay cancelled."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "partial text"}, {"silence": True}])
    server.prompt(workspace, session, "runs", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    server.prompt(workspace, session, "list", run_id="dropped")
    assert server.post("/v1/runs/dropped/cancel")["runs"] == [
        {"run_id": "dropped", "was": "queued"}
    ]
    eventually(lambda: "partial text" in str(_messages(server, workspace, session)))
    before = server.get(f"/v1/workspaces/{workspace}/snapshot")["seq"]
    # The open text's checkpoint is in the row at most a second after the text (G8).
    eventually(lambda: "partial text" in _stored_text(server))
    server.kill()

    server.start()
    assert server.ended("running")["outcome"] == "lost"
    assert server.ended("queued")["outcome"] == "completed"
    assert server.ended("dropped")["outcome"] == "cancelled"
    assert server.record("running")["error"]["code"] == "lost"
    ends = [e["run_id"] for e in _ends(server, workspace)]
    assert sorted(ends) == ["dropped", "queued", "running"]
    events = server.events(workspace)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert server.get(f"/v1/workspaces/{workspace}/snapshot")["seq"] > before
    messages = _messages(server, workspace, session)
    lost = [m for m in messages if m["run_id"] == "running"]
    assert lost[-1]["parts"][0]["data"]["text"] == "partial text"
    assert lost[-1]["parts"][-1]["data"]["reason"] == "error"


def test_an_edited_and_moved_run_is_still_so_after_a_kill(server: Server, project: Path) -> None:
    """G2: the answer to an edit is a promise, too."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "runs", model=hold, run_id="running")
    for run in ("one", "two", "three"):
        server.prompt(workspace, session, f"list {run}", run_id=run)
    status, record = server.call("PATCH", "/v1/runs/three", {"prompt": "list", "position": 0})
    assert (status, record["prompt"]) == (200, "list")
    assert server.call("PATCH", "/v1/runs/one", {"position": 2})[0] == 200
    server.kill()
    server.start()
    started = {run: server.ended(run)["started_at_ms"] for run in ("three", "two", "one")}
    assert sorted(started, key=lambda run: started[run]) == ["three", "two", "one"]
    assert server.record("three")["prompt"] == "list"


def test_wait_exits_9_for_a_lost_run_and_0_for_the_one_that_went_on(
    server: Server, project: Path
) -> None:
    """G2, G13: the command line tells the truth afterwards."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "runs", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: server.record("running")["state"] == "running")
    server.kill()
    server.start()
    assert server.cli("wait", "running").returncode == 9
    assert server.cli("wait", "queued").returncode == 0
    listed = server.cli("ps", "--all", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {run["id"]: run["outcome"] for run in json.loads(listed.stdout)}
    assert found == {"running": "lost", "queued": "completed"}


def test_a_queued_run_that_waited_too_long_ends_lost_as_stale(
    server: Server, project: Path
) -> None:
    """G2: `--requeue-within 0` repeats nothing."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "runs", model=hold, run_id="running")
    server.prompt(workspace, session, "list the files", run_id="queued")
    server.kill()
    server.arguments = ("--requeue-within", "0")
    server.start()
    record = server.ended("queued")
    assert (record["outcome"], record["error"]["code"]) == ("lost", "stale")
    assert "list the files" in str(_messages(server, workspace, session))


def test_a_queued_run_whose_directory_is_gone_fails(server: Server, home: Path) -> None:
    """G2: `workspace_missing`, and the server starts all the same."""
    place = home / "gone"
    workspace = server.workspace(place)
    session = server.session(workspace)
    hold = script(home / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "runs", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    server.kill()
    place.rmdir()
    server.start()
    record = server.ended("queued")
    assert (record["outcome"], record["error"]["code"]) == ("failed", "workspace_missing")


def test_a_killed_server_takes_its_tools_with_it(server: Server, project: Path) -> None:
    """G10: a shell that ignores TERM and its double-forked child are gone before the next start
    answers."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    pids = project / "pids"
    command = (
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >> pids; sleep 600' &) ; "
        "echo $$ >> pids; sleep 600"
    )
    model = script(
        project / "tool.json",
        [{"tool": "bash", "input": {"command": command, "description": "hang"}}],
    )
    server.prompt(workspace, session, "go", model=model, permission_mode="allow", run_id="tool")
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in started)
    server.kill()
    server.start()
    assert not any(alive(pid) for pid in started)
    assert server.ended("tool")["outcome"] == "lost"
    messages = _messages(server, workspace, session)
    results = [p["data"] for m in messages for p in m["parts"] if p["type"] == "tool_result"]
    assert [result["content"] for result in results] == [
        "Interrupted: the server stopped; it may have run in part"
    ]


def test_a_cursor_from_before_the_kill_goes_on_without_a_gap(server: Server, project: Path) -> None:
    """G8: the same subscriber resumes on the new process and sees the rest exactly once."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    run = server.prompt(workspace, session, "list")["run_id"]
    with server.stream(workspace) as stream:
        stream.until_end_of(run)
        seen = [frame["seq"] for frame in stream.seen if "ts_ms" in frame]
        epoch = stream.seen[0]["epoch"]
    server.kill()
    server.start()
    again = server.prompt(workspace, session, "list")["run_id"]
    with server.stream(workspace, f"after={seen[-1]}&epoch={epoch}") as stream:
        stream.until_end_of(again)
        seen += [frame["seq"] for frame in stream.seen if "ts_ms" in frame]
        assert not [frame for frame in stream.seen if frame["type"] == "resync"]
    assert seen == list(range(1, len(seen) + 1))


def _messages(server: Server, workspace: str, session: str) -> Any:
    return server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")


def _ends(server: Server, workspace: str) -> list[dict[str, str]]:
    return [
        event["payload"]["payload"]
        for event in server.events(workspace)
        if event["type"] == "run_complete"
    ]


def _stored_text(server: Server) -> str:
    """Everything in the database's files, as bytes that may be searched for a text."""
    files = [server.data / "crush.db", server.data / "crush.db-wal"]
    return json.dumps("".join(f.read_bytes().decode("latin1") for f in files if f.exists()))
