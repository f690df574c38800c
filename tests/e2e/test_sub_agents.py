"""Sub-agents and to-do lists through the real server and command line (CW 7.5)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking_kit import on_a_terminal, pending
from tests.e2e.kit import Json, Server, eventually, script

AGENT = {"tool": "agent", "input": {"prompt": "find the herd"}}
GREP = {"tool": "grep", "input": {"pattern": "herd"}}
FOUND = "marmot.py, line 1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("p")
    (project / "marmot.py").write_text("def count(herd):\n    return len(herd)\n")
    return project


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module; a test that kills it starts it again."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    assert server.process is not None
    if server.process.poll() is None:
        server.kill()


def model(server: Server, name: str, *inner: Json, **more: Any) -> str:
    """A script that asks for a sub-agent whose one step is this, and then says "done"."""
    steps = [{"actions": inner}]
    path = server.home / f"{name}.json"
    return script(path, [AGENT], [{"text": "done"}], sub_agents=steps, **more)


def sub_agents(server: Server, parent: str) -> list[Json]:
    """The records of a run's sub-agents."""
    runs = server.get("/v1/runs?limit=50")["runs"]
    return [record for record in runs if record.get("parent_run") == parent]


def result(server: Server, record: Json) -> Json:
    """What the caller was told by its one tool call."""
    base = f"/v1/workspaces/{record['workspace_id']}/sessions/{record['session_id']}"
    parts = [part for m in server.get(f"{base}/messages") for part in m["parts"]]
    (found,) = [part["data"] for part in parts if part["type"] == "tool_result"]
    return dict(found)


def test_run_streams_its_sub_agent_and_ends_with_its_own_ending(
    server: Server, project: Path
) -> None:
    """CW 7.5: the child's frames come along, its `run_complete` ends nothing; also with --json."""
    used = {"input_tokens": 1_000_000, "output_tokens": 0}
    name = script(
        server.home / "found.json",
        [AGENT],
        [{"text": "done"}],
        model={"cost_per_1m_in": 2.0, "cost_per_1m_out": 1.0},
        sub_agents=[{"actions": [GREP], "usage": used}, {"actions": [{"text": FOUND}]}],
    )
    done = server.cli("run", "-m", name, "--json", "go", cwd=project)
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    start, last = frames[0], frames[-1]
    run, session = start["run_id"], start["session_id"]
    (inner,) = sub_agents(server, run)
    assert (last["run_id"], last["outcome"], last["text"]) == (run, "completed", "done")
    ends = [f["payload"]["payload"]["run_id"] for f in frames if f["type"] == "run_complete"]
    assert ends == [inner["id"], run]
    deltas = [f for f in frames if f["type"] == "message_delta"]
    assert "".join(d["text"] for d in deltas if d["run_id"] == inner["id"]).endswith(FOUND)
    assert (inner["kind"], inner["outcome"], inner["text"]) == ("agent", "completed", FOUND)
    record = server.record(run)
    assert result(server, record)["content"] == FOUND
    assert (inner["cost_usd"] >= 2.0, record["cost_usd"] > inner["cost_usd"]) == (True, True)
    base = f"/v1/workspaces/{record['workspace_id']}/sessions"
    assert inner["session_id"] not in {s["id"] for s in server.get(base)}
    below = server.get(f"{base}/{inner['session_id']}")
    assert (below["parent_session_id"], below["title"]) == (session, "New Agent Session")
    assert server.get(f"{base}/{session}")["cost"] == record["cost_usd"]
    shown = server.cli("session", "show", inner["session_id"], cwd=project)
    assert FOUND in shown.stdout
    told = server.cli("run", "-m", name, "-v", "go", cwd=project)
    assert told.stdout == "done\n"
    assert "\n  → grep " in told.stderr
    with server.stream(record["workspace_id"], f"after=start&session_id={session}") as stream:
        assert inner["id"] in {f["payload"]["payload"]["run_id"] for f in stream.until_end_of(run)
                               if f["type"] == "run_complete"}  # fmt: skip


@pytest.mark.parametrize("whose", ["caller", "sub-agent"])
def test_cancel_ends_a_run_with_its_sub_agent_or_the_sub_agent_alone(
    server: Server, project: Path, whose: str
) -> None:
    """G4: by command, while the sub-agent's model is silent."""
    name = model(server, f"silent-{whose}", {"silence": True})
    workspace = server.workspace(project)
    run = server.prompt(workspace, server.session(workspace), "go", model=name)["run_id"]
    eventually(lambda: [r["state"] for r in sub_agents(server, run)] == ["running"])
    (inner,) = sub_agents(server, run)
    shown = server.cli("ps", cwd=project).stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == [inner["id"], run]
    assert shown[1].endswith("(sub-agent) find the herd")
    done = server.cli("cancel", run if whose == "caller" else inner["id"])
    assert done.returncode == 0, done.stderr
    record, ended = server.ended(run), server.ended(inner["id"])
    assert ended["outcome"] == "cancelled"
    if whose == "caller":
        assert record["outcome"] == "cancelled"
        assert (ended["cancelled_by"]["reason"], ended["last_seq"] < record["last_seq"]) == (
            "parent",
            True,
        )
    else:
        assert (record["outcome"], record["text"]) == ("completed", "done")
        assert result(server, record)["is_error"] is True


def test_what_a_sub_agent_asks_is_asked_at_the_terminal_of_its_run(
    server: Server, project: Path
) -> None:
    """R67, R70: with the sub-agent's session and run; a person's no ends the run, too."""
    outside = server.home / "notes.txt"
    outside.write_text("the herd grazes in the north\n")
    name = script(
        server.home / "asks.json",
        [AGENT],
        [{"text": "done"}],
        sub_agents=[
            {"actions": [{"tool": "view", "input": {"file_path": str(outside)}}]},
            {"actions": [{"text": "in the north"}]},
        ],
    )
    for said, code, answer in (("y", 0, "done\n"), ("n", 3, "")):
        with on_a_terminal(server, project, "-m", name) as (process, terminal):
            terminal.expect("allow?")
            assert "notes.txt" in terminal.shown
            (waiting,) = pending(server, server.workspace(project))
            run = server.record(waiting["run_id"])
            assert (run["kind"], run["session_id"]) == ("agent", waiting["request"]["session_id"])
            terminal.type(said)
            out, _ = process.communicate(timeout=30)
            assert (process.returncode, out) == (code, answer)


def test_a_killed_server_leaves_neither_of_them_and_starts_neither_again(
    server: Server, project: Path
) -> None:
    """G2: both are lost, the transcripts are whole, and the session goes on."""
    name = model(server, "hangs", {"text": "so far"}, {"silence": True})
    workspace = server.workspace(project)
    session = server.session(workspace)
    run = server.prompt(workspace, session, "go", model=name)["run_id"]
    eventually(lambda: [r["state"] for r in sub_agents(server, run)] == ["running"])
    (inner,) = sub_agents(server, run)
    server.kill()
    server.start()
    record, ended = server.ended(run), server.ended(inner["id"])
    assert [(r["outcome"], r["error"]["code"]) for r in (ended, record)] == [("lost", "lost")] * 2
    assert ended["last_seq"] < record["last_seq"]
    assert len(sub_agents(server, run)) == 1
    after = script(server.home / "after.json", [{"text": "again"}])
    assert (
        server.ended(server.prompt(workspace, session, "more", model=after)["run_id"])["outcome"]
        == "completed"
    )
    assert server.call("DELETE", f"/v1/workspaces/{workspace}/sessions/{session}")[0] == 200
    gone, _ = server.call("GET", f"/v1/workspaces/{workspace}/sessions/{inner['session_id']}")
    assert (gone, server.record(inner["id"])["deleted"]) == (404, True)


def test_a_to_do_list_is_stored_with_its_result_and_shown(server: Server, project: Path) -> None:
    """CW 7.5, 13.2: one commit, a `session/updated`, and what `session show` prints."""
    todos = [
        {"content": "read", "status": "completed", "active_form": "Reading"},
        {"content": "write", "status": "in_progress", "active_form": "Writing"},
    ]
    wrong = {"todos": [{"content": "read", "status": "done"}]}
    name = script(
        server.home / "todos.json",
        [{"tool": "todos", "input": {"todos": todos}}, {"tool": "todos", "input": wrong}],
        [{"text": "done"}],
    )
    done = server.cli("run", "-m", name, "--json", "go", cwd=project)
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    inner = [frame["payload"]["payload"] for frame in frames if "payload" in frame]
    shown = [p["todos"] for p in inner if p.get("todos")]
    assert shown
    assert all(each == todos for each in shown)
    session = frames[0]["session_id"]
    text = server.cli("session", "show", session, cwd=project).stdout
    assert text.endswith("── to do\n✓ read\n→ write\n")
    results = [part["data"] for p in inner if p.get("role") == "tool" for part in p["parts"][:1]]
    assert [each.get("is_error", False) for each in results] == [False, True]
    assert json.loads(results[0]["metadata"])["just_started"] == "Writing"
    assert "must be one of pending, in_progress, completed" in results[1]["content"]
