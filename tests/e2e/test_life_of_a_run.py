"""The life of a run through the real server: one ending, kept promises, order (G1-G6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, eventually, script

OUTCOMES: list[tuple[str, list[Json], Json, str]] = [
    ("completed", [{"text": "done"}], {}, "completed"),
    ("failed", [{"text": "so far"}, {"error": "no more"}], {}, "failed"),
    ("cut", [{"text": "so f"}, {"cut": True}], {}, "failed"),
    ("timeout", [{"text": "so far"}, {"silence": True}], {"timeout_s": 0.3}, "limited"),
    ("idle", [{"text": "so far"}, {"silence": True}], {"idle_timeout_s": 0.3}, "limited"),
]


@pytest.mark.parametrize(("name", "actions", "limits", "outcome"), OUTCOMES)
def test_every_run_has_one_terminal_event_and_it_is_its_last(
    server: Server, project: Path, name: str, actions: list[Json], limits: Json, outcome: str
) -> None:
    """G1: whatever the model does; the record, the event and the stored text agree."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / f"{name}.json", actions)
    run = server.prompt(workspace, session, "go", model=model, limits=limits)["run_id"]
    record = server.ended(run)
    assert record["outcome"] == outcome
    events = server.events(workspace)
    ends = [e for e in events if e["type"] == "run_complete"]
    assert [e["payload"]["payload"]["run_id"] for e in ends] == [run]
    of_run = [e["seq"] for e in events if run in str(e)]
    assert ends[0]["seq"] == max(of_run) == record["last_seq"]
    assert record["first_seq"] == min(of_run)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    last = messages[-1]
    assert last["id"] == record["message_id"] == ends[0]["payload"]["payload"]["message_id"]
    text = "".join(p["data"]["text"] for p in last["parts"] if p["type"] == "text")
    assert text == record["text"]
    assert last["parts"][-1]["type"] == "finish"


def test_the_same_run_id_is_one_run_with_one_receipt_also_after_the_end(
    server: Server, project: Path
) -> None:
    """G3: an answer that was lost can be asked for again; another body is a conflict."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    first = server.prompt(workspace, session, "list", run_id="mine-1")
    server.ended("mine-1")
    again = server.prompt(workspace, session, "list", run_id="mine-1")
    assert again == first
    status, error = server.call(
        "POST",
        f"/v1/workspaces/{workspace}/agent",
        {"session_id": session, "prompt": "something else", "run_id": "mine-1"},
    )
    assert (status, error["code"], error["retryable"]) == (409, "run_id_conflict", False)
    assert len(server.get("/v1/runs")["runs"]) == 1


def test_runs_start_in_acceptance_order_however_the_one_before_ends(
    server: Server, project: Path
) -> None:
    """G5: a failed, a limited and a cancelled run hand over like a completed one."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "x"}, {"silence": True}])
    fail = script(project / "fail.json", [{"error": "no"}])
    runs = [
        server.prompt(workspace, session, "1", model=hold, run_id="r1")["run_id"],
        server.prompt(workspace, session, "2", model=fail, run_id="r2")["run_id"],
        server.prompt(workspace, session, "3", model=hold, run_id="r3", limits={"timeout_s": 0.1})[
            "run_id"
        ],
        server.prompt(workspace, session, "list", run_id="r4")["run_id"],
    ]
    server.post("/v1/runs/r1/cancel")
    assert [server.ended(run)["outcome"] for run in runs] == [
        "cancelled",
        "failed",
        "limited",
        "completed",
    ]
    started = [server.record(run)["started_at_ms"] for run in runs]
    assert started == sorted(started)


def test_a_cancel_covers_the_open_runs_and_no_later_one(server: Server, project: Path) -> None:
    """G4, G7: the receipt names them; the queued prompt's text is kept (R52)."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "partial"}, {"silence": True}])
    for run in ("a", "b"):
        server.prompt(workspace, session, f"prompt {run}", model=hold, run_id=run)
    eventually(lambda: server.record("a")["waiting_on"] == "model")
    base = f"/v1/workspaces/{workspace}/agent/sessions/{session}"
    receipt = server.post(f"{base}/cancel")
    assert receipt["runs"] == [
        {"run_id": "a", "was": "running"},
        {"run_id": "b", "was": "queued"},
    ]
    later = server.prompt(workspace, session, "list", run_id="c")
    assert later["run_id"] == "c"
    assert [server.ended(run)["outcome"] for run in ("a", "b", "c")] == [
        "cancelled",
        "cancelled",
        "completed",
    ]
    assert server.post(f"{base}/cancel")["runs"] == []
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    shown = [(m["role"], m["run_id"], m["parts"][-1]["data"]["reason"]) for m in messages]
    assert shown[:4] == [
        ("user", "a", "stop"),
        ("assistant", "a", "canceled"),
        ("user", "b", "stop"),
        ("assistant", "b", "canceled"),
    ]
    assert messages[1]["parts"][0]["data"]["text"] == "partial"


def test_losing_the_client_that_prompted_changes_nothing(server: Server, project: Path) -> None:
    """G6: the connection is cut in the middle of the answer; the run goes on to its end."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    slow = script(project / "slow.json", [{"wait_ms": 300}, {"text": "still here"}])
    with server.stream(workspace) as stream:
        run = server.prompt(workspace, session, "go", model=slow)["run_id"]
        stream.until(lambda frame: frame["type"] == "run")
        stream.connection.socket.close()
    assert server.ended(run)["text"] == "still here"


def test_a_steered_prompt_is_answered_by_the_running_turn(server: Server, project: Path) -> None:
    """G1, R50: it ends `steered` into the running run at its next step."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(
        project / "steps.json",
        [{"text": "looking"}, {"wait_ms": 300}, {"tool": "ls", "input": {}}],
        [{"text": "answered both"}],
    )
    first = server.prompt(workspace, session, "one", model=model)["run_id"]
    eventually(lambda: server.record(first)["state"] == "running")
    second = server.prompt(workspace, session, "two")
    assert second["disposition"] == "steered"
    steered, run = server.ended(second["run_id"]), server.ended(first)
    assert (steered["outcome"], steered["steered_into"]) == ("steered", first)
    assert run["text"] == "answered both"


def test_interrupt_cancels_what_is_open_and_starts(server: Server, project: Path) -> None:
    """G4: `interrupt` is a cancel and an acceptance in one commit."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    server.prompt(workspace, session, "one", model=hold, run_id="one")
    server.prompt(workspace, session, "two", model=hold, run_id="two")
    server.prompt(workspace, session, "list", run_id="three", if_busy="interrupt")
    assert [server.ended(run)["outcome"] for run in ("one", "two", "three")] == [
        "cancelled",
        "cancelled",
        "completed",
    ]
    assert server.record("one")["cancelled_by"]["reason"] == "interrupt"


def test_a_run_that_asked_for_it_ends_when_its_client_goes(server: Server, project: Path) -> None:
    """G6: `on_disconnect: cancel`, and only that run."""
    workspace = server.workspace(project)
    hold = script(project / "hold.json", [{"silence": True}])
    one, two = server.session(workspace), server.session(workspace)
    with server.stream(workspace, "after=now&client_id=c1"):
        server.prompt(
            workspace, one, "1", model=hold, run_id="r1", client_id="c1", on_disconnect="cancel"
        )
        server.prompt(workspace, two, "2", model=hold, run_id="r2", client_id="c1")
    record = server.ended("r1")
    assert record["outcome"] == "cancelled"
    assert record["cancelled_by"]["reason"] == "disconnect"
    assert server.record("r2")["state"] == "running"


def test_a_rule_that_denies_also_holds_for_what_needs_no_permission(
    server: Server, project: Path
) -> None:
    """R67: reading in the workspace is asked for by nobody, and can be forbidden."""
    (project / ".env").write_text("marmot")
    calls: list[Json] = [
        {"tool": "bash", "input": {"command": "cat .env", "description": ""}},
        {"tool": "view", "input": {"file_path": ".env"}},
        {"tool": "grep", "input": {"pattern": "mar"}},
        {"tool": "bash", "input": {"command": "wc -c .env", "description": ""}},
        {"tool": "agent", "input": {"prompt": "look"}},
        {"tool": "todos", "input": {"todos": []}},
    ]
    model = script(project / "m.json", calls, [{"text": "done"}])
    workspace = server.workspace(project)
    deny = ["bash(cat)", "view(.env)", "grep", "agent", "todos"]
    asked = server.prompt(workspace, server.session(workspace), "go", model=model, deny_tools=deny)
    record = server.ended(asked["run_id"])
    assert (record["outcome"], record["denied"]) == ("denied", 5)
    said = str(server.events(workspace))
    assert "6 .env" in said
    assert "marmot" not in said
