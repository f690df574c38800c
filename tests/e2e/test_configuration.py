"""Configuration that changes while a server runs: by hand, by trust, and over HTTP."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, Stream, cli, script

CHANGED = "after=now&kinds=config_changed"


@pytest.fixture
def work(home: Path) -> Path:
    """A repository that brings a provider of its own."""
    work = home / "work"
    work.mkdir()
    (work / "crush.json").write_text(
        '{"providers": {"mine": {"base_url": "https://mine.example"}},'
        ' "options": {"progress": false}}'
    )
    return work


def next_change(stream: Stream) -> Json:
    """The payload of the next ``config_changed``."""
    found = stream.until(lambda frame: frame["type"] == "config_changed")[-1]
    assert found["payload"]["type"] == "updated"
    payload: Json = found["payload"]["payload"]
    return payload


def test_trust_counts_at_once_in_a_server_that_runs_and_ends_with_a_change(
    server: Server, work: Path
) -> None:
    """R18: a client hears of each change, and what it fetches then is what counts."""
    workspace = server.workspace(work)
    base = f"/v1/workspaces/{workspace}"

    def state() -> tuple[bool, list[str]]:
        found = server.get(base)
        return "mine" in found["config"]["providers"], found["notices"]

    [untrusted] = state()[1]
    assert untrusted.startswith("crush.json: providers have no effect: this directory is not")
    with server.stream(workspace, CHANGED) as stream:
        done = server_cli(server, "config", "trust", "--yes", str(work))
        assert "https://mine.example" in done
        assert next_change(stream) == {"workspace_id": workspace}
        assert state() == (True, [])
        (work / "crush.json").write_text('{"providers": {"mine": {}}, "mcp": {}}')
        assert next_change(stream) == {"workspace_id": workspace}
        counts, [changed] = state()
        assert (counts, "they changed after this directory was trusted" in changed) == (False, True)


def server_cli(server: Server, *arguments: str) -> str:
    """What a command without ``--data-dir`` prints, beside a server."""
    done = cli(server.env, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_breaks_is_told_and_hits_new_prompts_alone(
    server: Server, home: Path, project: Path
) -> None:
    """G14; a run that has begun goes on with the configuration it has."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    slow = script(home / "slow.json", [{"text": "begun"}, {"wait_ms": 3000}, {"text": " and done"}])
    file = project / ".crush-trio.json"
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=slow)["run_id"]
        stream.until(lambda frame: frame["type"] == "message_delta")
        file.write_text('{"options": {"progress": "yes"}}')
        told = next_change(stream)
        sentence = f"{file}: $.options.progress: expected true or false, not a string."
        assert told == {"workspace_id": workspace, "error": sentence}
        body = {"session_id": session, "prompt": "list"}
        refusal = server.post(f"/v1/workspaces/{workspace}/agent", body, expect=400)
        assert (refusal["code"], refusal["message"]) == ("config_invalid", sentence)
        assert server.ended(run)["text"] == "begun and done"
        file.write_text('{"options": {"progress": true}}')
        assert next_change(stream) == {"workspace_id": workspace}
    assert server.ended(server.prompt(workspace, session, "list")["run_id"])["outcome"] == (
        "completed"
    )


def test_a_change_over_http_is_told_once_to_every_workspace_it_concerns(
    server: Server, home: Path, project: Path
) -> None:
    """R18."""
    one, other = server.workspace(project), server.workspace(home / "other")
    with server.stream(one, CHANGED) as here, server.stream(other, CHANGED) as there:
        body = {"scope": 0, "key": "options.progress", "value": False}
        server.post(f"/v1/workspaces/{one}/config/set", body)
        assert next_change(here) == {"workspace_id": one}
        assert next_change(there) == {"workspace_id": other}
        body = {"scope": 1, "key": "options.progress", "value": True}
        server.post(f"/v1/workspaces/{one}/config/set", body)
        assert next_change(here) == {"workspace_id": one}
        body = {"scope": 0, "key": "options.debug", "value": True}
        server.post(f"/v1/workspaces/{other}/config/set", body)
        assert next_change(there) == {"workspace_id": other}
    assert len(server.events(one, "after=start&kinds=config_changed")) == 3
    assert len(server.events(other, "after=start&kinds=config_changed")) == 2
    user = home / ".config" / "crush-trio" / "config.json"
    assert json.loads(user.read_text()) == {"options": {"progress": False, "debug": True}}
    server.stop()
    server.start()  # both files are still there
    assert server.get(f"/v1/workspaces/{one}")["config"]["options"]["progress"] is True
    assert server.get(f"/v1/workspaces/{other}")["config"]["options"]["progress"] is False


def test_certificates_of_the_users_own_file_count_in_a_server_that_starts(home: Path) -> None:
    """G14; here a file that holds none, so that the refusal names it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        added = home / "ca.pem"
        added.write_text("not a certificate\n")
        user = home / ".config" / "crush-trio" / "config.json"
        user.parent.mkdir(parents=True)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        provider = {"type": "openai-compat", "base_url": url, "models": [{"id": "m"}]}
        user.write_text(
            json.dumps({"options": {"ca_file": str(added)}, "providers": {"mine": provider}})
        )
        server = Server(home).start()
        try:
            workspace = server.workspace(home / "work")
            session = server.session(workspace)
            run = server.prompt(workspace, session, "hello", model="mine/m")["run_id"]
            error = server.ended(run)["error"]
        finally:
            server.kill()
    assert error["code"] == "provider_tls"
    assert error["message"] == f"{added} (options.ca_file) holds no certificates in PEM format."
