"""Waiting for a person through real processes: clients, kills, tools, and the command line."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.e2e.kit import Json, Server, eventually, script

BASH = {"tool": "bash", "input": {"command": "touch made", "description": "make a file"}}
QUESTIONS = [
    {
        "type": "single_choice",
        "question": "Which format?",
        "description": "Of the export.",
        "choices": ["JSON", "CSV"],
    },
    {"type": "yes_no", "question": "Sure?", "description": "It is a lot."},
]


@pytest.fixture
def model(home: Path) -> str:
    """A model that wants to run a command, and says so when it is done."""
    return script(home / "asks.json", [BASH], [{"text": "made it"}])


@pytest.fixture
def curious(home: Path) -> str:
    """A model that asks two questions."""
    asked = {"tool": "question", "input": {"questions": QUESTIONS}}
    return script(home / "curious.json", [asked], [{"text": "thank you"}])


def pending(server: Server, workspace: str, count: int = 1) -> list[Json]:
    """The requests of a workspace that wait, once there are so many."""
    path = f"/v1/workspaces/{workspace}/permissions"
    eventually(lambda: len(server.get(path)) == count)
    found: list[Json] = server.get(path)
    return found


def grant(server: Server, workspace: str, request: Json, action: str) -> Json:
    """Answer with the request as it was shown."""
    body = {"permission": request, "action": action}
    answer: Json = server.post(f"/v1/workspaces/{workspace}/permissions/grant", body)
    return answer


def notices(server: Server, workspace: str) -> list[tuple[str, bool, bool]]:
    """(call, granted, denied) of every notification in the journal."""
    told = [
        e["payload"]["payload"]
        for e in server.events(workspace)
        if e["type"] == "permission_notification"
    ]
    return [(each["tool_call_id"], each["granted"], each["denied"]) for each in told]


def test_two_clients_answer_two_sessions_in_any_order_and_one_of_them_reconnects(
    server: Server, project: Path, model: str
) -> None:
    """R68, R72, G8: the mode is `ask` over the API; who comes later finds what waits."""
    w = server.workspace(project)
    first, second = server.session(w), server.session(w)
    runs = [server.prompt(w, each, "go", model=model)["run_id"] for each in (first, second)]
    one, two = sorted(pending(server, w, 2), key=lambda item: runs.index(item["run_id"]))
    assert server.record(runs[0])["waiting_on"] == "permission"
    assert (one["workspace_id"], 0 <= one["age_s"] < 60, one["deadline_s"] > 500) == (w, True, True)
    with server.stream(w, "after=now"):
        pass  # this client goes away and comes back
    snapshot = server.get(f"/v1/workspaces/{w}/snapshot")
    assert {p["request"]["id"] for p in snapshot["permissions"]} == {
        one["request"]["id"],
        two["request"]["id"],
    }
    session = server.get(f"/v1/workspaces/{w}/sessions/{second}/snapshot")
    assert [p["run_id"] for p in session["permissions"]] == [runs[1]]
    assert len(server.get("/v1/permissions")) == 2
    with server.stream(w, "after=start") as back:
        seen = back.until(lambda f: f["type"] == "replayed")
        assert len([f for f in seen if f["type"] == "permission_request"]) == 2
        assert grant(server, w, two["request"], "allow")["resolved"]
        late = grant(server, w, two["request"], "deny")
        assert (late["resolved"], late["ending"], late["decided_by"]) == (False, "allowed", "local")
        back.until_end_of(runs[1])
        assert server.ended(runs[1])["outcome"] == "completed"
        assert grant(server, w, one["request"], "deny")["resolved"]
        back.until_end_of(runs[0])
    assert (server.ended(runs[0])["outcome"], server.ended(runs[0])["denied"]) == ("denied", 1)
    assert (project / "made").exists()
    assert "local: request" in (server.data / "server.log").read_text()


@pytest.mark.parametrize("by", ["run", "session"])
def test_any_client_cancels_a_run_that_waits_for_a_permission(
    server: Server, project: Path, model: str, by: str
) -> None:
    """G4, R69: at once, with one notification, and a late answer is told so."""
    w = server.workspace(project)
    s = server.session(w)
    run = server.prompt(w, s, "go", model=model)["run_id"]
    [item] = pending(server, w)
    path = {
        "run": f"/v1/runs/{run}/cancel",
        "session": f"/v1/workspaces/{w}/agent/sessions/{s}/cancel",
    }
    began = time.monotonic()
    server.post(path[by])
    assert server.ended(run)["outcome"] == "cancelled"
    assert time.monotonic() - began < 3
    assert grant(server, w, item["request"], "allow")["ending"] == "withdrawn"
    assert notices(server, w) == [(item["request"]["tool_call_id"], False, True)]
    assert not (project / "made").exists()


def test_a_kill_withdraws_what_waited_and_loses_the_run(
    home: Path, project: Path, model: str, curious: str
) -> None:
    """G1, G7, I25: in the commit that ends the run; exactly one notification each."""
    server = Server(home).start()
    w = server.workspace(project)
    runs = [
        server.prompt(w, server.session(w), "go", model=each)["run_id"] for each in (model, curious)
    ]
    [item] = pending(server, w)
    eventually(lambda: bool(server.get(f"/v1/workspaces/{w}/questions")))
    server.kill()
    server.start()
    try:
        assert [server.ended(run)["outcome"] for run in runs] == ["lost", "lost"]
        assert notices(server, w) == [(item["request"]["tool_call_id"], False, True)]
        told = [e for e in server.events(w) if e["type"] == "question_batch_notification"]
        assert len(told) == 1
        late = grant(server, w, item["request"], "allow")
        assert (late["resolved"], late["ending"]) == (False, "withdrawn")
        assert (server.get(f"/v1/workspaces/{w}/permissions"), server.get("/v1/questions")) == (
            [],
            [],
        )
        assert not (project / "made").exists()
    finally:
        assert server.stop() == 0


def test_a_shutdown_cancels_and_withdraws(home: Path, project: Path, model: str) -> None:
    """G11."""
    server = Server(home).start()
    w = server.workspace(project)
    run = server.prompt(w, server.session(w), "go", model=model)["run_id"]
    pending(server, w)
    assert server.stop(signal.SIGTERM) == 0
    server.start()
    try:
        record = server.ended(run)
        assert (record["outcome"], record["cancelled_by"]["reason"]) == ("cancelled", "shutdown")
        assert [told[1:] for told in notices(server, w)] == [(False, True)]
    finally:
        assert server.stop() == 0


def test_a_tool_cannot_answer(server: Server, home: Path, project: Path, model: str) -> None:
    """G12: 403 `from_tool`, and the request still waits."""
    w = server.workspace(project)
    run = server.prompt(w, server.session(w), "go", model=model)["run_id"]
    [item] = pending(server, w)
    body = json.dumps({"permission": item["request"], "action": "allow"})
    (home / "grant.py").write_text(
        "import http.client, socket\n"
        "c = http.client.HTTPConnection('localhost')\n"
        "c.sock = socket.socket(socket.AF_UNIX)\n"
        f"c.sock.connect({server.socket_path!r})\n"
        f"c.request('POST', '/v1/workspaces/{w}/permissions/grant', {body!r})\n"
        "a = c.getresponse(); print(a.status, a.read().decode())\n"
    )
    command = {"command": f"{sys.executable} {home / 'grant.py'}", "description": "d"}
    evil = script(home / "evil.json", [{"tool": "bash", "input": command}], [{"text": "ok"}])
    other = server.session(w)
    tried = server.prompt(w, other, "go", model=evil, permission_mode="allow")["run_id"]
    server.ended(tried)
    said = json.dumps(server.get(f"/v1/workspaces/{w}/sessions/{other}/messages"))
    assert "403" in said
    assert "from_tool" in said
    assert [each["run_id"] for each in pending(server, w)] == [run]
    server.post(f"/v1/runs/{run}/cancel")
    server.ended(run)


def test_questions_are_answered_over_http(server: Server, project: Path, curious: str) -> None:
    w = server.workspace(project)
    s = server.session(w)
    run = server.prompt(w, s, "go", model=curious)["run_id"]
    path = f"/v1/workspaces/{w}/questions"
    eventually(lambda: len(server.get(path)) == 1)
    [item] = server.get(path)
    snapshot = server.get(f"/v1/workspaces/{w}/sessions/{s}/snapshot")
    assert snapshot["questions"][0]["request"] == item["request"]
    first, second = item["request"]["questions"]
    wrong = {"batch_request_id": "", "responses": [{"request_id": "nobody"}]}
    assert server.call("POST", f"{path}/answer", wrong)[0] == 400
    said = [
        {"request_id": first["id"], "selected_ids": [first["choices"][1]["id"]]},
        {"request_id": second["id"], "yes": None, "notes": {"_question": "later"}},
    ]
    assert server.post(f"{path}/answer", {"batch_request_id": "", "responses": said})["resolved"]
    assert server.ended(run)["text"] == "thank you"
    told = json.dumps(server.get(f"/v1/workspaces/{w}/sessions/{s}/messages"))
    assert "User selected: [CSV]" in told
    assert "User note: later" in told


# --- the command line ---------------------------------------------------------------------


@contextmanager
def running(server: Server, project: Path, *arguments: str, **more: Any) -> Iterator[Any]:
    """A ``run`` in mode ask."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "crush_trio",
            "run",
            "--permission-mode",
            "ask",
            *arguments,
            "--data-dir",
            str(server.data),
            "go",
        ],
        cwd=project,
        env=server.env | {"TERM": "dumb"},
        text=True,
        stdout=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE} | more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("action", "ended", "code", "out"),
    [
        (("allow",), "allowed", 0, "made it\n"),
        (("allow", "--session"), "allowed session", 0, "made it\n"),
        (("deny", "--message", "not now"), "denied", 3, ""),
    ],
    ids=["allow", "session", "deny"],
)
def test_approvals_answer_a_run_that_has_no_terminal(
    server: Server,
    project: Path,
    model: str,
    action: tuple[str, ...],
    ended: str,
    code: int,
    out: str,
) -> None:
    """G13: `run` says where to answer; its exit code tells how it was answered."""
    with running(server, project, "-m", model) as process:
        w = server.workspace(project)
        [item] = pending(server, w)
        name = item["request"]["id"]
        listed = server.cli("approvals", cwd=project).stdout
        assert name in listed
        assert "touch made" in listed
        assert (
            json.loads(server.cli("approvals", "--all", "--json").stdout)[0]["request"]
            == (item["request"])
        )
        whole = server.cli("approvals", "show", name[:6]).stdout
        assert "    touch made\n" in whole
        assert f"would cover exactly this command in {project}\n" in whole
        word, *more = action
        answered = server.cli("approvals", word, name[:6], *more)
        assert (answered.returncode, answered.stdout) == (0, f"{name} {ended}\n"), answered.stderr
        said, told = process.communicate(timeout=30)
        assert (process.returncode, said) == (code, out)
        assert told.count(f"crush-trio approvals show {name}\n") == 1
        late = server.cli("approvals", "allow", name)
        assert late.returncode == 1
        assert late.stderr == f"crush-trio: too late: It has ended: {ended} by local.\n"
    if ended == "denied":
        messages = json.dumps(server.get(f"/v1/workspaces/{w}/messages/user"))
        assert messages
        session = server.get(f"/v1/workspaces/{w}/sessions")[0]["id"]
        told = json.dumps(server.get(f"/v1/workspaces/{w}/sessions/{session}/messages"))
        assert "User denied permission: not now" in told


def test_approvals_answer_questions_and_watch_shows_them(
    server: Server, project: Path, curious: str
) -> None:
    w = server.workspace(project)
    watch = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "crush_trio",
            "approvals",
            "--watch",
            "--data-dir",
            str(server.data),
        ],
        cwd=project,
        env=server.env,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert watch.stdout is not None
    try:
        eventually(lambda: server.get("/v1/health")["subscribers"] == 1)
        run = server.prompt(w, server.session(w), "go", model=curious)["run_id"]
        line = watch.stdout.readline()
        assert "Which format?" in line
        name = line.split()[0]
        wrong = server.cli("approvals", "answer", name, "7")
        assert (wrong.returncode, "a number" in wrong.stderr) == (2, True)
        done = server.cli("approvals", "answer", name, "2", "y")
        assert (done.returncode, done.stdout) == (0, f"{name} answered\n")
        assert server.ended(run)["text"] == "thank you"
        rest = ""
        while "──" not in rest:
            rest = watch.stdout.readline()
        assert rest == f"── {name} answered by local\n"
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130
    finally:
        watch.kill()
        watch.communicate()


@attrs.define
class Terminal:
    """The other end of a pseudo terminal, and what was shown on it."""

    fd: int
    shown: str = ""

    def expect(self, wanted: str, timeout: float = 20) -> None:
        """Read until it was shown."""
        deadline = time.monotonic() + timeout
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.fd], [], [], 0.1)[0]:
                self.shown += os.read(self.fd, 65536).decode("utf-8", "replace")

    def type(self, line: str) -> None:
        """A person's line; what was shown before does not count any more."""
        self.shown = ""
        os.write(self.fd, f"{line}\n".encode())


@contextmanager
def on_a_terminal(server: Server, project: Path, *arguments: str) -> Iterator[tuple[Any, Terminal]]:
    """A ``run`` whose stdin and stderr are a terminal."""
    ours, theirs = pty.openpty()
    try:
        with running(server, project, *arguments, stdin=theirs, stderr=theirs) as process:
            os.close(theirs)
            yield process, Terminal(ours)
    finally:
        with suppress(OSError):
            os.close(ours)


@pytest.mark.parametrize(
    ("said", "code"),
    [(("y",), 0), (("s", "y"), 0), (("n not today",), 3), (("d", "not today"), 3)],
    ids=["yes", "session", "no", "why"],
)
def test_a_person_at_the_terminal_is_asked_there(
    server: Server, project: Path, model: str, said: tuple[str, ...], code: int
) -> None:
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        assert "bash (execute) in" in terminal.shown
        assert "touch made" in terminal.shown
        terminal.type("?")
        terminal.expect("rest of this session exactly this command in")
        terminal.expect("allow?")
        for line, asked in zip(said, ("", "tell the model" if code else "back:"), strict=False):
            if asked:
                terminal.expect(asked)
            terminal.type(line)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (code, "" if code else "made it\n")
    assert (project / "made").exists() is (code == 0)
    assert "crush-trio approvals" not in terminal.shown


def test_a_request_answered_elsewhere_is_not_asked_about_any_more(
    server: Server, project: Path, model: str
) -> None:
    """R68."""
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        w = server.workspace(project)
        [item] = pending(server, w)
        assert grant(server, w, item["request"], "allow")["resolved"]
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "made it\n")


def test_questions_are_asked_at_the_terminal(server: Server, project: Path, curious: str) -> None:
    with on_a_terminal(server, project, "-m", curious) as (process, terminal):
        terminal.expect("Which format?")
        terminal.expect("empty skips")
        assert "2. CSV" in terminal.shown
        terminal.type("2")
        terminal.expect("y or n")
        terminal.type("")
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "thank you\n")
