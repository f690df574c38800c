"""Single sentences of contract 3 and 7, held against the answers of a real server."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, cli


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for tests that each use a directory of their own."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


@pytest.fixture
def place(shared: Server, tmp_path: Path) -> tuple[str, str, Path]:
    """A workspace, a session in it, and its directory."""
    workspace = shared.workspace(tmp_path)
    return workspace, shared.session(workspace), tmp_path


def test_every_file_of_the_data_directory_is_private(shared: Server) -> None:
    """Contract 7: logs tell paths and prompts' ids; they are nobody else's."""
    found = {path.name: path.stat() for path in shared.data.rglob("*")}
    assert {"server.log", "access.log", "crush.db"} <= set(found)
    wide = {name for name, status in found.items() if stat.S_IMODE(status.st_mode) & 0o077}
    assert wide == set()


def test_a_log_left_open_to_others_is_closed_to_them(home: Path) -> None:
    """An older version made it 0644."""
    server = Server(home)
    server.data.mkdir(mode=0o700)
    (server.data / "server.log").touch(mode=0o644)
    server.start()
    mode = stat.S_IMODE((server.data / "server.log").stat().st_mode)
    server.kill()
    assert mode == 0o600


def test_a_snapshot_leaves_out_what_it_is_not_about(
    shared: Server, place: tuple[str, str, Path]
) -> None:
    """Contract 3: `messages?` is absent, a list is `[]`, nothing is null."""
    workspace, session, _ = place
    whole = shared.get(f"/v1/workspaces/{workspace}/snapshot")
    lists = {"runs", "permissions", "questions", "jobs"}
    assert set(whole) == {"seq", "epoch", "sessions"} | lists
    one = shared.get(f"/v1/workspaces/{workspace}/sessions/{session}/snapshot")
    assert set(one) == {"seq", "epoch", "session", "messages"} | lists
    assert None not in (*whole.values(), *one.values())


def test_unknown_keys_are_named_wherever_a_body_is_taken(
    shared: Server, place: tuple[str, str, Path]
) -> None:
    """Contract 3: accepted, and named in `ignored`."""
    workspace, session, path = place
    made = shared.post("/v1/workspaces", {"path": str(path), "zz": 1, "aa": 2})
    assert made["ignored"] == ["aa", "zz"]
    named = shared.post(f"/v1/workspaces/{workspace}/sessions", {"title": "t", "zz": 1})
    assert named["ignored"] == ["zz"]
    plain = shared.post(f"/v1/workspaces/{workspace}/sessions", {"title": "t"})
    assert "ignored" not in plain
    receipt = shared.prompt(workspace, session, "list", zz=1)
    assert receipt["ignored"] == ["zz"]


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("GET", "", None),
        ("POST", "/cancel", {}),
        ("PATCH", "", {"prompt": "b"}),
        ("DELETE", "", None),
    ],
)
def test_a_run_is_found_below_its_own_workspace_only(
    shared: Server, place: tuple[str, str, Path], tmp_path: Path, method: str, tail: str, body: Json
) -> None:
    """Contract 3: the workspace in a path is looked up, and an unknown one is 404."""
    workspace, session, _ = place
    other = shared.workspace(tmp_path / "other")
    run = shared.prompt(workspace, session, "list")["run_id"]
    shared.ended(run)
    for owner, code in (("nowhere", "workspace_not_found"), (other, "run_not_found")):
        status, answer = shared.call(method, f"/v1/workspaces/{owner}/runs/{run}{tail}", body)
        assert (status, answer["code"]) == (404, code)
    status, _ = shared.call(method, f"/v1/workspaces/{workspace}/runs/{run}{tail}", body)
    assert status in (200, 409)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"on_disconnect": "cancel"}, "client_id"),
        ({"attachments": [{"content": "%%%"}]}, "attachments[0].content"),
        ({"attachments": [{"content": "größe"}]}, "attachments[0].content"),
    ],
)
def test_a_prompt_that_cannot_mean_what_it_says_is_400(
    shared: Server, place: tuple[str, str, Path], more: Json, named: str
) -> None:
    """G14: a wish that could never come true is refused, and nothing is accepted."""
    workspace, session, _ = place
    body = {"session_id": session, "prompt": "list", **more}
    status, answer = shared.call("POST", f"/v1/workspaces/{workspace}/agent", body)
    assert (status, answer["code"]) == (400, "bad_request")
    assert named in answer["message"]
    assert shared.get(f"/v1/workspaces/{workspace}/runs")["runs"] == []


def test_a_list_cannot_go_on_before_a_run_that_never_was(shared: Server) -> None:
    """G14: a mistyped cursor is no empty list."""
    status, answer = shared.call("GET", "/v1/runs?before=nobody")
    assert (status, answer["code"]) == (400, "bad_request")


def test_a_broken_configuration_is_one_sentence_and_exit_4(
    shared: Server, place: tuple[str, str, Path]
) -> None:
    """Contract 8, G14: it names file and path, and hides no other workspace."""
    workspace, session, path = place
    (path / "crush.json").write_text('{"models": {"large": 3}}')
    status, answer = shared.call(
        "POST", f"/v1/workspaces/{workspace}/agent", {"session_id": session, "prompt": "list"}
    )
    assert (status, answer["code"]) == (400, "config_invalid")
    assert "crush.json: $.models.large" in answer["message"]
    assert shared.call("GET", f"/v1/workspaces/{workspace}/config")[0] == 400
    listed = {each["id"]: each for each in shared.get("/v1/workspaces?known=true")}
    assert listed[workspace]["notices"] == [answer["message"]]
    assert listed[workspace]["config"]["options"]["tui"] == {}
    done = shared.cli("run", "-C", str(path), "list")
    assert done.returncode == 4
    assert "$.models.large" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_an_untrusted_directory_may_not_say_is_inert_and_named_once(
    shared: Server, place: tuple[str, str, Path]
) -> None:
    """Contract 7: in the log once per change, and to whoever runs something there."""
    workspace, _, path = place
    (path / "crush.json").write_text(
        json.dumps({"permissions": {"allowed_tools": ["bash"]}, "mcp": {"x": {"command": "x"}}})
    )
    for _ in range(3):
        shown = shared.get(f"/v1/workspaces/{workspace}")
    assert len(shown["notices"]) == 1
    assert "permissions" in shown["notices"][0]
    assert "mcp" in shown["notices"][0]
    lines = (shared.data / "server.log").read_text().splitlines()
    assert len([line for line in lines if str(path) in line and "not trusted" in line]) == 1
    done = shared.cli("run", "-C", str(path), "list")
    assert done.returncode == 0
    assert done.stderr.count("not trusted") == 1
    assert "not trusted" not in shared.cli("run", "-q", "-C", str(path), "list").stderr


def test_config_check_says_the_same_without_a_server(home: Path, project: Path) -> None:
    """Contract 6: exit code 4 if it cannot be used."""
    (project / "crush.json").write_text("{")
    env = {**Server(home).env, "PYTHONPATH": os.getcwd()}
    assert cli(env, "config", "check", cwd=project).returncode == 4
