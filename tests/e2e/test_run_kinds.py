"""Summaries and a person's commands as runs: a real server, its command line, a script's model."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Json, Server, UnixHTTP, eventually, script

SUMMARY = {"actions": [{"text": "Marmots were counted.", "piece_chars": 4}]}


def base(workspace: str, session: str) -> str:
    """Where the routes of a session's agent are."""
    return f"/v1/workspaces/{workspace}/agent/sessions/{session}"


@pytest.fixture
def place(server: Server, project: Path) -> tuple[str, str]:
    """A workspace and a session."""
    workspace = server.workspace(project)
    return workspace, server.session(workspace)


def four_k(path: Path, *steps: list[Json], used: int, summary: Any = SUMMARY, **more: Any) -> str:
    """A model with a window of 4,096 tokens whose steps report ``used`` of them."""
    usage = {"input_tokens": used, "output_tokens": 10}
    content = {
        "model": {"context_window": 4096},
        "steps": [{"actions": actions, "usage": usage} for actions in steps],
        "summary": [summary | {"usage": {"input_tokens": used, "output_tokens": 30}}],
    }
    path.write_text(json.dumps(content | more))
    return f"script/{path}"


def messages(server: Server, workspace: str, session: str) -> list[Json]:
    """The stored transcript."""
    found: list[Json] = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    return found


# --- commands -----------------------------------------------------------------------------


def test_a_command_is_answered_with_its_output_and_stored_as_a_message(
    server: Server, project: Path, place: tuple[str, str]
) -> None:
    """CW 13.4, R10: no permission is asked, the exit code is no failure, escapes are stored."""
    body = {
        "session_id": "another",
        "command": "printf '\\033[31mred\\033[0m\\n'; echo err >&2; exit 3",
        "term_width": 80,
    }
    answer = server.post(f"{base(*place)}/shell", body)
    run, output = answer.pop("run_id"), answer.pop("output")
    assert answer == {"exit_code": 3, "outcome": "completed"}
    # Two pipes have no order between them.
    assert sorted(output.splitlines(keepends=True)) == ["\x1b[31mred\x1b[0m\n", "err\n"]
    record = server.record(run)
    assert (record["kind"], record["outcome"]) == ("shell", "completed")
    assert record["text"] == output
    (message,) = messages(server, *place)
    assert message["role"] == "user"
    assert [part["type"] for part in message["parts"]] == ["shell_command", "finish"]
    assert message["parts"][0]["data"]["exit_code"] == 3
    assert message["parts"][1]["data"]["reason"] == "stop"
    own = [e for e in server.events(place[0]) if "shell_command" in json.dumps(e)]
    assert len(own) == 2, "created and updated"
    said = server.post(f"{base(*place)}/shell", {"command": "env; pwd"})["output"]
    assert "FORCE_COLOR=1\n" in said
    assert said.endswith(f"{project}\n")


def test_a_command_is_shown_live_and_cancelled_with_what_it_has_written(
    server: Server, project: Path, place: tuple[str, str]
) -> None:
    """G4, G10: also one that ignores TERM; the output so far is kept, with exit code 130."""
    workspace, session = place
    command = "trap '' TERM INT; (setsid sleep 1000 &); echo begun; while :; do sleep 1; done"
    with server.stream(workspace, "after=now") as stream:
        body = {"command": command, "run_id": "sh", "wait": False}
        receipt = server.post(f"{base(*place)}/shell", body, expect=202)
        assert (receipt["run_id"], receipt["disposition"]) == ("sh", "started")
        live = stream.until(lambda f: f["type"] == "tool_output")[-1]
        assert (live["run_id"], live["tool_call_id"], live["text"]) == ("sh", "sh", "begun\n")
        waiting = server.prompt(workspace, session, "@tree", if_busy="steer")
        assert waiting["disposition"] == "queued", "a command takes no prompts in"
        covered = server.post("/v1/runs/sh/cancel")
        assert covered["runs"] == [{"run_id": "sh", "was": "running"}]
        stream.until_end_of("sh")
    record = server.record("sh")
    assert (record["outcome"], record["text"]) == ("cancelled", "begun\n")
    assert record["processes"]["killed"] >= 2
    assert record["processes"]["left"] == []
    part = messages(server, *place)[0]["parts"][0]["data"]
    assert (part["output"], part["exit_code"]) == ("begun\n", 130)
    assert server.ended(waiting["run_id"])["state"] == "finished"


def test_a_lost_client_changes_nothing_and_the_same_run_id_starts_nothing(
    server: Server, project: Path, place: tuple[str, str]
) -> None:
    """G3, G6: the command belongs to the workspace (CW W32)."""
    body = {"command": "sleep 0.7; echo ran >> ran.txt", "run_id": "once"}
    connection = UnixHTTP(server.socket_path)
    raw = json.dumps(body).encode()
    connection.request("POST", f"{base(*place)}/shell", raw, {"Content-Type": "application/json"})
    eventually(lambda: server.call("GET", "/v1/runs/once")[0] == 200)
    connection.close()
    answer = server.post(f"{base(*place)}/shell", body)
    assert (answer["run_id"], answer["exit_code"]) == ("once", 0)
    assert server.post(f"{base(*place)}/shell", body) == answer, "also after the end"
    assert (project / "ran.txt").read_text() == "ran\n"
    status, refused = server.call("POST", f"{base(*place)}/shell", {**body, "command": "true"})
    assert (status, refused["code"]) == (409, "run_id_conflict")


def test_what_is_wrong_is_refused_and_changes_nothing(
    server: Server, place: tuple[str, str]
) -> None:
    """G14."""
    wrong: list[tuple[str, Json | None, int, str]] = [
        ("shell", {"command": "  "}, 400, "command_empty"),
        ("shell", None, 400, "command_empty"),
        ("shell", {"command": "x" * 200_000}, 400, "command_too_long"),
        ("shell", {"command": "a\0b"}, 400, "bad_request"),
        ("shell", {"command": "ls", "if_busy": "steer"}, 400, "bad_request"),
        ("shell", {"command": "ls", "limits": {"timeout_s": 0}}, 400, "bad_request"),
        ("shell", {"command": "ls", "run_id": "a b"}, 400, "bad_run_id"),
        ("shell?wait=2", {"command": "ls"}, 400, "bad_request"),
        ("summarize", None, 400, "no_language_model"),
        ("summarize", {"on_disconnect": "cancel"}, 400, "bad_request"),
        ("summarize", {"model": "no/such"}, 400, "unknown_provider"),
    ]
    for route, body, status, code in wrong:
        raw = None if body is not None else b""
        got, refused = server.call("POST", f"{base(*place)}/{route}", body, raw=raw)
        assert (got, refused["code"]) == (status, code), (route, refused)
    for route in ("shell", "summarize"):
        there = f"{base(place[0], 'unknown')}/{route}"
        got, refused = server.call("POST", there, {"command": "ls"})
        assert (got, refused["code"]) == (404, "session_not_found")
    assert server.get("/v1/runs")["runs"] == []


def test_a_waiting_command_is_edited_by_the_rules_of_a_new_one(
    server: Server, place: tuple[str, str]
) -> None:
    """G14."""
    shell = f"{base(*place)}/shell?wait=0"
    for name, command in (("first", "sleep 600"), ("second", "true")):
        status, _ = server.call("POST", shell, {"command": command, "run_id": name})
        assert status == 202
    for text, code in (("a\0b", "bad_request"), ("x" * 200_000, "command_too_long")):
        status, refused = server.call("PATCH", "/v1/runs/second", {"prompt": text})
        assert (status, refused["code"]) == (400, code)
    assert server.record("second")["prompt"] == "true"
    server.post(f"{base(*place)}/cancel", {})


def test_a_command_that_reaches_its_limit_or_cannot_start_says_so(
    server: Server, project: Path, place: tuple[str, str]
) -> None:
    """G4: a wall limit ends it as limited; one whose directory is gone fails."""
    body = {"command": "echo begun; sleep 60", "limits": {"timeout_s": 0.4}}
    answer = server.post(f"{base(*place)}/shell", body)
    assert (answer["exit_code"], answer["outcome"], answer["output"]) == (124, "limited", "begun\n")
    record = server.record(answer["run_id"])
    assert record["error"]["code"] == "timeout"
    project.rename(project.with_name("gone"))
    status, refused = server.call("POST", f"{base(*place)}/shell", {"command": "true"})
    assert (status, refused["code"]) == (500, "run_failed"), refused
    (record,) = server.get("/v1/runs?limit=1")["runs"]
    assert record["error"]["code"] == "shell_failed"


def test_a_server_that_dies_during_a_command_loses_it_with_its_output(
    server: Server, home: Path, place: tuple[str, str]
) -> None:
    """G1, G8: at most the last second of the output is missing; the transcript is whole."""
    command = "echo one; sleep 1.6; echo two; sleep 60"  # what is 1.6 s old must be kept
    body = {"command": command, "run_id": "sh", "wait": False}
    server.post(f"{base(*place)}/shell", body, expect=202)
    later = {"command": "echo three", "run_id": "later", "wait": False}
    server.post(f"{base(*place)}/shell", later, expect=202)
    eventually(lambda: '"output": "one\\ntwo' in json.dumps(messages(server, *place)))
    server.kill()
    again = Server(home).start()
    try:
        assert again.ended("sh")["outcome"] == "lost"
        assert again.ended("later")["text"] == "three\n", "a queued command goes on (G2)"
        parts = [message["parts"][0]["data"] for message in messages(again, *place)]
        assert parts[0]["output"].startswith("one\n")
        assert [part["exit_code"] for part in parts] == [137, 0]
    finally:
        again.kill()


# --- summaries ----------------------------------------------------------------------------


def test_a_summary_takes_the_place_of_what_was_said(
    server: Server, project: Path, home: Path, place: tuple[str, str]
) -> None:
    """R65, I18: pointer, counts and event come together; the history stays stored."""
    workspace, session = place
    model = four_k(home / "m.json", [{"text": "Two marmots."}], used=100, then="repeat")
    run = server.prompt(workspace, session, "count", model=model)
    server.ended(run["run_id"])
    answer = server.post(f"{base(*place)}/summarize", {"model": model})
    record = answer["run"]
    assert (record["kind"], record["outcome"]) == ("summarize", "completed")
    assert record["text"] == "Marmots were counted."
    assert (record["steps"], record["usage"]["output_tokens"]) == (1, 30)
    stored = messages(server, *place)
    assert [m["role"] for m in stored] == ["user", "assistant", "assistant"]
    assert stored[-1]["is_summary_message"] is True
    assert stored[-1]["parts"][-1]["data"]["reason"] == "end_turn"
    shown = server.get(f"/v1/workspaces/{workspace}/sessions/{session}")
    assert shown["summary_message_id"] == stored[-1]["id"] == record["message_id"]
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (0, 30)
    own = [e for e in server.events(workspace) if e["seq"] >= record["first_seq"]]
    notices = [e["payload"]["payload"] for e in own if e["type"] == "agent_event"]
    assert [(n["type"], n["tokens_before"], n["tokens_after"]) for n in notices] == [
        ("summarize", 110, 30)
    ]
    again = server.post(f"{base(*place)}/summarize", {"model": model})["run"]
    assert (again["outcome"], again["steps"]) == ("completed", 0), "there is nothing new"


def test_a_summary_that_is_cancelled_or_fails_leaves_the_session_as_it_was(
    server: Server, home: Path, place: tuple[str, str]
) -> None:
    """R65: the answer of the request says how it ended (409, 500), and the record why."""
    workspace, session = place
    slow = four_k(
        home / "slow.json",
        [{"text": "Two marmots."}],
        used=100,
        summary={"actions": [{"text": "half"}, {"silence": True}]},
    )
    server.ended(server.prompt(workspace, session, "count", model=slow)["run_id"])
    before = messages(server, *place)
    shown = server.get(f"/v1/workspaces/{workspace}/sessions/{session}")
    answers: list[tuple[int, Any]] = []
    body = {"model": slow, "run_id": "sum"}

    def ask() -> None:
        answers.append(server.call("POST", f"{base(*place)}/summarize", body))

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: "half" in json.dumps(server.get(
        f"/v1/workspaces/{workspace}/sessions/{session}/snapshot"
    )))  # fmt: skip
    assert server.record("sum")["waiting_on"] == "summarize"
    server.post("/v1/runs/sum/cancel")
    asking.join(20)
    assert [(status, body["code"]) for status, body in answers] == [(409, "run_cancelled")]
    assert messages(server, *place) == before
    broken = four_k(
        home / "broken.json", [], used=1, summary={"actions": [{"text": "half"}, {"cut": True}]}
    )
    status, refused = server.call("POST", f"{base(*place)}/summarize", {"model": broken})
    assert (status, refused["code"]) == (500, "run_failed")
    stored = messages(server, *place)
    assert stored[:-1] == before
    finish = stored[-1]["parts"][-1]["data"]
    assert (finish["reason"], finish["message"]) == ("error", "Summarization Error")
    now = server.get(f"/v1/workspaces/{workspace}/sessions/{session}")
    for key in ("summary_message_id", "prompt_tokens", "completion_tokens"):
        assert now[key] == shown[key]


# --- by itself ----------------------------------------------------------------------------


def test_a_run_in_a_small_window_is_summarised_and_goes_on(
    server: Server, home: Path, project: Path
) -> None:
    """R63, R64: through the command line, with one ending; `--no-compact` leaves it alone."""
    model = four_k(
        home / "m.json",
        [{"tool": "ls", "input": {"path": "."}}],
        [{"text": "There are two files."}],
        used=3500,
    )
    done = server.cli("run", "--json", "-m", model, "look", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    result = lines[-1]
    assert (result["text"], result["steps"]) == ("There are two files.", 3)
    assert result["usage"] == {
        "input_tokens": 10500,
        "output_tokens": 50,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
    }
    waits = [f["payload"]["payload"]["waiting_on"] for f in lines if f["type"] == "run"]
    assert "summarize" in waits
    notices = [f["payload"]["payload"] for f in lines if f["type"] == "agent_event"]
    assert [n["type"] for n in notices] == ["summarize", "agent_finished"]
    assert [f["type"] for f in lines].count("run_complete") == 1
    shown = server.cli("session", "show", "latest", "--json", cwd=project)
    texts = [
        part.get("text", "")
        for message in json.loads(shown.stdout)["messages"]
        for part in message["parts"]
    ]
    assert "look" in texts
    assert "Marmots were counted." in texts
    done = server.cli("run", "--json", "--no-compact", "-m", model, "look", cwd=project)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2


def test_a_window_that_stays_too_small_ends_the_run(
    server: Server, home: Path, project: Path
) -> None:
    """R-COMPACT: two rounds without progress, then `context_overflow`, never a loop."""
    steps = [[{"tool": "ls", "input": {"path": ".", "depth": n}}] for n in range(1, 9)]
    model = four_k(home / "m.json", *steps, used=4000)
    done = server.cli("run", "--json", "-m", model, "look", cwd=project)
    assert done.returncode == 1
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["error"]["code"] == "context_overflow"
    assert (result["steps"], result["tool_calls"]) == (5, 3)


# --- the command line ---------------------------------------------------------------------


def test_the_command_line_runs_commands_and_summaries_in_a_session(
    server: Server, home: Path, project: Path
) -> None:
    """Contract 6: exit codes as for `run`; ps, wait and cancel know the kinds."""
    model = script(home / "m.json", [{"text": "ok"}], summary=[SUMMARY], then="repeat")
    assert server.cli("run", "-m", model, "hello", cwd=project).stdout == "ok\n"
    done = server.cli("session", "shell", "latest", "echo $((6*7)); exit 3", cwd=project)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert "exit code 3" in done.stderr
    done = server.cli("session", "shell", "latest", "echo x", "--json", cwd=project)
    line = json.loads(done.stdout)
    assert (line["kind"], line["outcome"], line["text"]) == ("shell", "completed", "x\n")
    assert line["process_exit_code"] == 0
    limited = server.cli("session", "shell", "latest", "sleep 9", "--timeout", ".2", cwd=project)
    assert limited.returncode == 6
    done = server.cli("session", "summarize", "latest", "-m", model, cwd=project)
    assert (done.returncode, done.stdout) == (0, "Marmots were counted.\n"), done.stderr
    refused = server.cli("session", "summarize", "latest", cwd=project)
    assert refused.returncode == 4
    assert "language model" in refused.stderr
    assert server.cli("session", "shell", "latest", " ", cwd=project).returncode == 2
    assert server.cli("session", "shell", "nowhere", "ls", cwd=project).returncode == 2
    listed = server.cli("ps", "--all").stdout
    assert "/summarize" in listed
    assert "!echo x" in listed
    shown = server.cli("session", "show", "latest", cwd=project).stdout
    assert "$ echo $((6*7)); exit 3\n42\n(exit code 3)" in shown
    waited = server.cli("wait", line["run_id"])
    assert (waited.returncode, waited.stdout) == (0, "x\n\n")
