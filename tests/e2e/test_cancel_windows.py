"""Cancel in every window through real processes: what the prompter, others and the store see."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests import forked
from tests.e2e.kit import Json, Server, alive, eventually, script

CANCELED = "canceled User canceled request"
NOT_RUN = ["tool", "Error: user cancelled assistant tool calling!", "stop"]
INTERRUPTED = ["tool", "context canceled!", "stop"]
HOSTILE = """
trap '' TERM INT
echo $$ > shell.pid
( ( trap '' TERM INT; echo $BASHPID > orphan.pid; while :; do sleep 1; done ) & ) &
touch begun
while :; do sleep 1; done
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all windows: each has a session of its own."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    assert server.stop() == 0


@attrs.define
class Case:
    """A window: the script's first step, when it is open, and what is stored after the cancel."""

    actions: list[Json]
    is_open: Callable[[Json, Path], bool]
    story: list[list[str]]
    more: Json = attrs.field(factory=dict)


def shows(*parts: str) -> Callable[[Json, Path], bool]:
    """The run's open message has these parts."""
    return lambda snapshot, _: [["assistant", *parts]] == told(snapshot["messages"][1:])


def told(messages: list[Json]) -> list[list[str]]:
    """Messages in words: role, then each part."""
    return [[m["role"], *(_part(p["type"], p["data"]) for p in m["parts"])] for m in messages]


def _part(kind: str, data: Json) -> str:
    match kind:
        case "text":
            return str(data["text"])
        case "reasoning":
            return f"thought {data['thinking']}" + ("" if data.get("finished_at") else " open")
        case "tool_call":
            return f"{data['name']}({data['input']})" + ("" if data.get("finished") else " open")
        case "tool_result":
            return str(data["content"]) + ("!" if data["is_error"] else "")
        case "finish":
            return f"{data['reason']} {data.get('message', '')}".strip()
    return kind


HALF: list[Json] = [
    {"text": "I look."},
    {"tool": "view", "raw_input": '{"file_path": "/etc/pa', "piece_chars": 21, "every_ms": 60_000},
]
BASH: Json = {"command": HOSTILE, "description": "d"}
USER = ["user", "go", "stop"]
CASES = {
    "accepted": Case([{"silence": True}], lambda *_: True, []),
    "silent": Case([{"silence": True}], shows(), [["assistant", CANCELED]]),
    "streaming": Case(
        [{"text": "so far"}, {"silence": True}],
        shows("so far"),
        [["assistant", "so far", CANCELED]],
    ),
    "reasoning": Case(
        [{"reasoning": "hm ", "piece_chars": 2, "every_ms": 60_000}],
        shows("thought hm open"),
        [["assistant", "thought hm", CANCELED]],
    ),
    "arguments": Case(
        HALF,
        shows("I look.", 'view({"file_path": "/etc/p) open'),
        [["assistant", "I look.", "view({})", CANCELED], NOT_RUN],
    ),
    "tool": Case(
        [{"tool": "bash", "input": BASH}, {"tool": "ls"}],
        lambda _, project: (project / "begun").exists() and (project / "orphan.pid").exists(),
        [["assistant", "…", "ls({})", "tool_use"], INTERRUPTED, NOT_RUN, ["assistant", CANCELED]],
        {"permission_mode": "allow"},
    ),
    "retry": Case(
        [{"text": "half"}, {"reset": "529", "delay_ms": 60_000}, {"text": "x"}],
        lambda snapshot, _: snapshot["runs"][0]["waiting_on"] == "retry",
        [["assistant", CANCELED]],
    ),
}


def ending(server: Server, workspace: str, run: str) -> list[Json]:
    """The terminal events of a run."""
    return [
        event["payload"]["payload"]
        for event in server.events(workspace)
        if event["type"] == "run_complete" and event["payload"]["payload"]["run_id"] == run
    ]


@pytest.mark.parametrize("by", ["run", "session"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_is_cancelled_in_every_window(
    server: Server, tmp_path: Path, name: str, by: str
) -> None:
    """G1, G4, G5, G7, G10, R46, R47, R52, R53, R54: twice; the next run starts in its turn."""
    case, project = CASES[name], tmp_path / "project"
    workspace = server.workspace(project)
    base = f"/v1/workspaces/{workspace}"
    session = server.session(workspace, "")
    model = script(tmp_path / "m.json", case.actions, title={"silence": True})
    fine = script(tmp_path / "fine.json", [{"text": "fine"}])
    run = server.prompt(workspace, session, "go", model=model, run_id=f"{name}-{by}", **case.more)
    if name != "accepted":
        snapshot = f"{base}/sessions/{session}/snapshot"
        eventually(lambda: case.is_open(server.get(snapshot), project))
    later = server.prompt(workspace, session, "later", model=fine, run_id=f"{name}-{by}-later")
    path = f"/v1/runs/{run['run_id']}" if by == "run" else f"{base}/agent/sessions/{session}"
    began = time.monotonic()
    receipt = server.post(f"{path}/cancel")
    again = server.post(f"{path}/cancel")
    record = server.ended(run["run_id"])
    assert time.monotonic() - began <= 3
    covered = {each["run_id"]: each["was"] for each in receipt["runs"]}
    assert covered.pop(run["run_id"]) in (
        {"running"} if name != "accepted" else {"running", "queued"}
    )
    assert covered == ({} if by == "run" else {later["run_id"]: "queued"})
    assert receipt["too_late"] == []
    assert {each["run_id"] for each in again["runs"]} <= {run["run_id"]}
    followed = server.ended(later["run_id"])
    assert followed["outcome"] == ("completed" if by == "run" else "cancelled")
    assert (record["outcome"], record["error"]) == ("cancelled", None)
    assert record["cancelled_by"]["reason"] == "user"
    (end,) = ending(server, workspace, run["run_id"])
    assert (end["error"], end["cancelled"]) == ("context canceled", True)
    messages = server.get(f"{base}/sessions/{session}/messages")
    mine = told([m for m in messages if m["run_id"] == run["run_id"]])
    if name == "tool":
        mine[1][1] = "…"
        assert not any(alive(int((project / f).read_text())) for f in ("shell.pid", "orphan.pid"))
        assert record["processes"]["left"] == []
    assert mine == [USER, *(case.story or [["assistant", CANCELED]])]
    assert (end["message_id"], end.get("text", "")) == (record["message_id"], record["text"])
    after = server.prompt(workspace, session, "after", model=fine)["run_id"]
    assert server.ended(after)["text"] == "fine"
    title = server.get(f"{base}/sessions/{session}")["title"]
    assert title == "go" or name == "accepted", "nobody has named it"


def test_a_cancel_during_the_hand_over_and_after_the_end(server: Server, tmp_path: Path) -> None:
    """G4, G5: whichever side of the ending it hits, each run ends once and in order."""
    workspace = server.workspace(tmp_path / "project")
    model = script(tmp_path / "m.json", [{"text": "fine", "piece_chars": 1, "every_ms": 1}])
    for _ in range(6):
        session = server.session(workspace)
        with server.stream(workspace, f"after=now&session_id={session}") as stream:
            more: Json = {"model": model, "if_busy": "enqueue"}
            runs = [
                str(server.prompt(workspace, session, f"number {n}", **more)["run_id"])
                for n in range(3)
            ]
            stream.until_end_of(runs[0])
            receipt = server.post(f"/v1/workspaces/{workspace}/agent/sessions/{session}/cancel")
        records = [server.ended(run) for run in runs]
        covered = {each["run_id"] for each in receipt["runs"]}
        outcomes = ["cancelled" if run in covered else "completed" for run in runs]
        assert [record["outcome"] for record in records] == outcomes
        assert outcomes[0] == "completed"
        assert outcomes == sorted(outcomes, reverse=True)
        assert all(len(ending(server, workspace, run)) == 1 for run in runs)
        late = server.post(f"/v1/runs/{runs[0]}/cancel")
        assert (late["runs"], late["too_late"]) == ([], [runs[0]])


def start_cli(server: Server, project: Path, *arguments: str) -> subprocess.Popen[str]:
    """``crush-trio run`` in a process of its own."""
    return forked.Popen(
        [sys.executable, "-m", "crush_trio", "run", *arguments, "--data-dir", str(server.data)],
        cwd=project,
        env=server.env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_error_or_cancel_elsewhere_does_not_end_somebody_elses_waiting(
    server: Server, tmp_path: Path
) -> None:
    """G1, R47: an `agent_event` names its run; the waiter of another session goes on."""
    project = tmp_path / "project"
    workspace = server.workspace(project)
    patient = script(tmp_path / "patient.json", [{"wait_ms": 1500}, {"text": "patience"}])
    broken = script(tmp_path / "broken.json", [{"wait_ms": 100}, {"error": "overloaded"}])
    silent = script(tmp_path / "silent.json", [{"text": "so far"}, {"silence": True}])
    waiter = start_cli(server, project, "wait for me", "-m", patient, "--run-id", "waiter")
    victim = start_cli(server, project, "go on", "-m", silent, "--run-id", "victim")
    for run in ("waiter", "victim"):
        eventually(lambda run=run: server.call("GET", f"/v1/runs/{run}")[0] == 200)  # type: ignore[misc]
    other = server.session(workspace)
    failed = server.prompt(workspace, other, "fail", model=broken)["run_id"]
    assert server.ended(failed)["outcome"] == "failed"
    eventually(lambda: server.record("victim")["state"] == "running")
    server.post("/v1/runs/victim/cancel")
    out, errors = waiter.communicate(timeout=20)
    assert (waiter.returncode, out.strip()) == (0, "patience"), errors
    victim.communicate(timeout=20)
    assert victim.returncode == 5
    notices = [
        event["payload"]["payload"]
        for event in server.events(workspace)
        if event["type"] == "agent_event" and event["payload"]["payload"]["type"] == "error"
    ]
    assert [(n["run_id"], n["error"]) for n in notices] == [(failed, "overloaded")]
