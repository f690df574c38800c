"""Waiting for a person through real processes: clients, kills, tools, and the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crush_trio.protocol.digests import request_digest
from tests import forked
from tests.e2e.asking_kit import grant, notices, pending, running, wants, wonders
from tests.e2e.kit import Json, Server, Stream, eventually, script


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of this file that do not end theirs."""
    server = Server(tmp_path_factory.mktemp("s")).start()
    yield server
    server.kill()


@pytest.fixture
def model(home: Path) -> str:
    """A model that wants to make a file."""
    return wants(home, "touch made")


@pytest.fixture
def curious(home: Path) -> str:
    """A model that asks two questions."""
    return wonders(home)


def test_three_sessions_are_answered_by_two_clients_and_one_of_them_reconnects(
    server: Server, project: Path, model: str
) -> None:
    """R68, R72, G8: the mode is `ask` over the API; who comes back misses and repeats nothing."""
    w = server.workspace(project)
    sessions = [server.session(w) for _ in range(3)]
    with server.stream(w, "after=now") as ana:
        with server.stream(w, "after=now") as ben:
            runs = [server.prompt(w, each, "go", model=model)["run_id"] for each in sessions]
            ben.until(lambda _: len(told(ben, "permission_request")) == 3)
            cursor = max(frame["seq"] for frame in ben.seen if "seq" in frame)
            before = told(ben, "permission_notification")
            ben.connection.socket.close()  # cut, without a word
        items = sorted(pending(server, w, 3), key=lambda item: runs.index(item["run_id"]))
        one, two, three = (item["request"] for item in items)
        assert server.record(runs[0])["waiting_on"] == "permission"
        first = items[0]
        assert (first["workspace_id"], 0 <= first["age_s"] < 60) == (w, True)
        assert first["deadline_s"] > 500
        assert server.get(f"/v1/workspaces/{w}/permissions/{one['id']}")["request"] == one
        assert grant(server, w, two, "allow")["resolved"]
        assert server.ended(runs[1])["outcome"] == "completed"
        snapshot = server.get(f"/v1/workspaces/{w}/snapshot")
        assert [p["request"]["id"] for p in snapshot["permissions"]] == [one["id"], three["id"]]
        session = server.get(f"/v1/workspaces/{w}/sessions/{sessions[2]}/snapshot")
        assert [p["request"] for p in session["permissions"]] == [three]
        with server.stream(w, f"after={cursor}") as again:
            again.until(lambda f: f["type"] == "replayed")
            assert grant(server, w, three, "allow_session")["resolved"]
            late = grant(server, w, two, "deny")
            assert (late["resolved"], late["ending"], late["decided_by"]) == (
                False,
                "allowed",
                "local",
            )
            assert grant(server, w, one, "deny")["resolved"]
            ends = ("allowed", "allowed_session", "denied")
            for client, seen in ((again, before), (ana, [])):
                client.until_end_of(runs[0])
                seen = seen + told(client, "permission_notification")
                assert [n["request_id"] for n in seen] == [two["id"], three["id"], one["id"]]
                assert tuple(n["ending"] for n in seen) == ends
            assert told(again, "permission_request") == []
    assert (server.ended(runs[0])["outcome"], server.ended(runs[0])["denied"]) == ("denied", 1)
    assert (project / "made").exists()
    assert "local: request" in (server.data / "server.log").read_text()
    path = f"/v1/workspaces/{w}/sessions/{sessions[2]}/grants"
    [given] = server.get(path)["grants"]
    assert (given["scope"], given["granted_by"]) == ("command:touch made", "local")
    assert server.call("DELETE", f"{path}/nothing")[0] == 404
    assert server.call("DELETE", path)[:1] == (200,)
    assert server.get(path) == {"grants": []}


def told(stream: Stream, kind: str) -> list[Json]:
    """The payloads of this kind that a client was sent."""
    return [f["payload"]["payload"] for f in stream.seen if f["type"] == kind]


def test_an_answer_to_what_was_cut_is_refused_and_the_whole_can_be_fetched(
    server: Server, home: Path, project: Path
) -> None:
    """T20, T21: a frame has 512 KiB; the digest of what it shows is another one."""
    w = server.workspace(project)
    content = "marmot\n" * 100_000
    write = {"tool": "write", "input": {"file_path": "big.txt", "content": content}}
    run = server.prompt(
        w, server.session(w), "go", model=script(home / "big.json", [write], [{"text": "ok"}])
    )["run_id"]
    [item] = pending(server, w)
    with server.stream(w, "after=start") as stream:
        frame = stream.until(lambda f: f["type"] == "permission_request")[-1]
    cut = frame["payload"]["payload"]
    assert frame["truncated"] == {"payload.payload.params.new_content": f"permissions/{cut['id']}"}
    body = {"permission": {"id": cut["id"]}, "action": "allow", "digest": request_digest(cut)}
    status, refused = server.call("POST", f"/v1/workspaces/{w}/permissions/grant", body)
    assert (status, refused["code"]) == (409, "permission_changed")
    assert not (project / "big.txt").exists()
    whole = server.get(f"/v1/workspaces/{w}/permissions/{cut['id']}")["request"]
    assert whole == item["request"]
    body["digest"] = request_digest(whole)
    assert server.post(f"/v1/workspaces/{w}/permissions/grant", body)["resolved"]
    assert server.ended(run)["outcome"] == "completed"
    assert (project / "big.txt").read_text() == content


def test_the_configuration_says_what_is_forbidden_and_what_a_denial_does(
    home: Path, project: Path, model: str
) -> None:
    """T26: patterns, the deadline, and going on after a denial; nothing of it from a repository."""
    (project / "crush.json").write_text(json.dumps({"permissions": {"allowed_tools": ["bash"]}}))
    user = home / ".config" / "crush-trio" / "config.json"
    user.parent.mkdir(parents=True)
    rules: Json = {"on_deny": "continue", "deadline_s": 1, "denied_tools": ["bash(rm)"]}
    user.write_text(json.dumps({"permissions": rules}))
    server = Server(home).start()
    try:
        w = server.workspace(project)
        run = server.prompt(w, server.session(w), "go", model=model)["run_id"]
        [item] = pending(server, w)
        assert item["deadline_s"] <= 1
        record = server.ended(run)
        assert (record["outcome"], record["text"], record["denied"]) == ("denied", "made it", 1)
        removes = wants(home, "rm -r .")
        run = server.prompt(w, server.session(w), "go", model=removes, permission_mode="allow")
        assert server.ended(run["run_id"])["denied"] == 1
        assert (project / "marmot.py").exists()
        user.write_text(json.dumps({"permissions": {"denied_tools": ["bash(rm"]}}))
        body = {"session_id": server.session(w), "prompt": "go"}
        status, refused = server.call("POST", f"/v1/workspaces/{w}/agent", body)
        assert (status, refused["code"]) == (400, "config_invalid")
        assert refused["message"].startswith(f"{user}: $.permissions.denied_tools: ")
    finally:
        server.stop()


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
            json.loads(server.cli("approvals", "list", "--all", "--json").stdout)[0]["request"]
            == (item["request"])
        )
        for short in (name[:3], ""):
            refused = server.cli("approvals", "show", short)
            assert (refused.returncode, "4 characters" in refused.stderr) == (2, True)
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
    grants = ("approvals", "grants", "-C", str(project))
    listed = server.cli(*grants).stdout
    said = f"local  exactly this command in {project}: touch made\n"
    assert listed.endswith(said) == (ended == "allowed session")
    if listed:
        assert server.cli(*grants, "--forget", listed.splitlines()[1].split()[0]).stdout == ""
        assert server.cli(*grants, "--json").stdout == "[]\n"
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
    watch = forked.Popen(
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


def test_a_run_that_may_ask_nobody_looks_around_and_changes_nothing(
    server: Server, home: Path, project: Path
) -> None:
    """Contract 7: in `deny` mode reading needs no permission, and the refusal says why."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    looks = "ls && git status --short | head -5"
    lines: list[Json] = [{"command": looks}, {"command": "cat *.md > made"}]
    lines.append({"command": "ls", "run_in_background": True})
    calls = [{"tool": "bash", "input": {"description": "look", **line}} for line in lines]
    played = script(home / "looks.json", [calls[0]], [{"text": "looked"}])
    done = server.cli("run", "-m", played, "look", cwd=project)
    assert (done.returncode, done.stdout) == (0, "looked\n"), done.stderr
    played = script(home / "tries.json", calls, [{"text": "tried"}])
    done = server.cli("run", "-m", played, "--json", "look", cwd=project)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout.split("\n")[-2])["denied"] == 2
    assert "marmot.py" in done.stdout
    assert "in it is the character '*'" in done.stdout
    assert not (project / "made").exists()
