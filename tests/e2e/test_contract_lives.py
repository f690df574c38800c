"""How workspaces and sessions end, with everything that is theirs (contract 3)."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.e2e.kit import Json, Server, eventually, script

SILENT: list[Json] = [{"text": "so far"}, {"silence": True}]
STUBBORN = "trap '' TERM; touch begun; while :; do sleep 1; done"


def test_closing_a_workspace_ends_its_runs_and_gives_it_back_later(
    server: Server, project: Path
) -> None:
    """G1: running and waiting ones end cancelled, by the workspace; it can be opened again."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", SILENT)
    running = server.prompt(workspace, session, "one", model=model, run_id="one")["run_id"]
    eventually(lambda: server.record(running)["state"] == "running")
    waiting = server.prompt(workspace, session, "two", model=model, run_id="two")["run_id"]
    with server.stream(workspace, "after=start") as stream:
        server.post(f"/v1/workspaces/{workspace}/close", {})
        seen = stream.until(lambda frame: frame["type"] == "bye")
    ends = {
        frame["payload"]["payload"]["run_id"]: frame["payload"]["payload"]["outcome"]
        for frame in seen
        if frame["type"] == "run_complete"
    }
    assert ends == {running: "cancelled", waiting: "cancelled"}
    for run in (running, waiting):
        record = server.record(run)
        assert (record["outcome"], record["cancelled_by"]["reason"]) == ("cancelled", "workspace")
    assert server.get("/v1/workspaces") == []
    assert server.post(f"/v1/workspaces/{workspace}/close", {}) is None
    again = server.prompt(workspace, session, "list")["run_id"]
    assert server.ended(again)["outcome"] == "completed"


def test_a_prompt_for_a_workspace_that_is_being_closed_is_409(
    server: Server, project: Path
) -> None:
    """Contract 3: `workspace_closing`, while a tool that ignores TERM holds it up."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    call: Json = {"tool": "bash", "input": {"command": STUBBORN, "description": "d"}}
    model = script(project / "m.json", [call])
    run = server.prompt(workspace, session, "one", model=model, permission_mode="allow")["run_id"]
    eventually((project / "begun").exists)
    closing = threading.Thread(target=server.post, args=(f"/v1/workspaces/{workspace}/close", {}))
    closing.start()
    eventually(lambda: server.record(run)["cancelled_by"] is not None)
    status, answer = server.call(
        "POST", f"/v1/workspaces/{workspace}/agent", {"session_id": session, "prompt": "list"}
    )
    assert (status, answer["code"], answer["retryable"]) == (409, "workspace_closing", True)
    closing.join(timeout=10)
    assert server.ended(run)["outcome"] == "cancelled"


def spilled(server: Server) -> int:
    """How many files of tool output there are."""
    return len([path for path in (server.data / "outputs").rglob("*") if path.is_file()])


def test_tool_output_goes_with_its_session_or_workspace(server: Server, project: Path) -> None:
    """Contract 3: spilled files too; those of other sessions stay."""
    workspace = server.workspace(project)
    call: Json = {
        "tool": "bash",
        "id": "same",
        "input": {"command": "head -c 600000 /dev/zero", "description": "d"},
    }
    model = script(project / "m.json", [call], [{"text": "done"}])
    sessions = [server.session(workspace) for _ in range(3)]
    for session in sessions:
        run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
        assert server.ended(run["run_id"])["outcome"] == "completed"
    assert spilled(server) == 3
    assert server.call("DELETE", f"/v1/workspaces/{workspace}/sessions/{sessions[0]}")[0] == 200
    assert spilled(server) == 2
    server.kill()
    server.start()
    assert spilled(server) == 2
    assert server.call("DELETE", f"/v1/workspaces/{workspace}?purge=true")[0] == 200
    assert spilled(server) == 0
