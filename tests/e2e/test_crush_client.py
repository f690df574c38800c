"""Crush's own client, request by request as it makes them, against the real server (CW 11).

The client below is plain: it sends what Crush's sends (a foreign ``Host``, bodies without any
``Content-Type``), and takes apart what Crush's dereferences without a check.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Json, Server, UnixHTTP, eventually, script
from tests.e2e.sse_kit import Events, Wire

ZERO_TIME = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: each has a directory and a client of its own."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


class Client:
    """One client process of Crush: an id, keep-alive requests, and maybe a stream."""

    def __init__(self, server: Server, path: Path) -> None:
        self.id = str(uuid.uuid4())
        self.path = path
        self.workspace = ""
        self._server = server
        self._connection = UnixHTTP(server.socket_path)

    def send(self, method: str, target: str, body: Any = None) -> tuple[int, bytes, HTTPResponse]:
        """One request as Go's client writes it; the status, the body, and the head."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Host": "api.crush.localhost", "User-Agent": "Go-http-client/1.1"}
        if method == "POST" and data is None:
            headers["Content-Length"] = "0"
        self._connection.request(method, f"/v1{target}", data, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer

    def get(self, target: str) -> Any:
        """The JSON answer to a GET below the workspace."""
        status, text, answer = self.send("GET", f"/workspaces/{self.workspace}{target}")
        assert (status, answer.headers["Content-Type"]) == (200, "application/json"), text
        assert text.endswith(b"\n")
        return json.loads(text)

    def post(self, target: str, body: Any = None) -> Any:
        """The answer to a POST below the workspace, ``None`` if it is empty."""
        status, text, _ = self.send("POST", f"/workspaces/{self.workspace}{target}", body)
        assert status in (200, 202), (status, text)
        return json.loads(text) if text else None

    def start(self) -> Json:
        """Steps 2 to 5 of both sequences: find a server that is in use, and join it."""
        status, text, _ = self.send("GET", "/version")
        version = json.loads(text)
        assert all(isinstance(version[key], str) for key in ("version", "build_id", "platform"))
        # Another version than ours; so it asks the server to make room, which it must not.
        status, text, _ = self.send("POST", "/control", {"command": "shutdown_if_idle"})
        assert (status, set(json.loads(text))) == (409, {"message", "code", "retryable"})
        assert self.send("GET", "/health")[0] == 200
        body = {
            "id": "",
            "path": str(self.path),
            "data_dir": "",
            "debug": False,
            "version": "v0.86.0",
            "client_id": self.id,
            "env": ["PATH=/usr/bin", "SECRET_KEY=hush"],
            "channels": None,
        }
        status, text, _ = self.send("POST", "/workspaces", body)
        assert status == 200, text
        assert b"hush" not in text
        workspace: Json = json.loads(text)
        check_workspace(workspace, self.path)
        self.workspace = workspace["id"]
        return workspace

    def follow(self) -> Events:
        """The event stream, on a connection of its own."""
        wire = Wire(self._server.socket_path)
        target = f"/v1/workspaces/{self.workspace}/events?client_id={self.id}"
        headers = ("Accept: text/event-stream", "Cache-Control: no-cache", "Connection: keep-alive")
        assert wire.request(target, *headers) == 200
        return Events(wire)

    def retire(self) -> None:
        """The last step."""
        assert self.send("DELETE", f"/clients/{self.id}")[:2] == (200, b"")
        self._connection.close()


def check_workspace(workspace: Json, path: Path) -> None:
    """CW 10.5: what is dereferenced without a check, and what makes a usable client."""
    assert workspace["path"] == str(path)
    assert "client_id" not in workspace
    assert not workspace.get("env")
    config = workspace["config"]
    assert isinstance(config["options"]["tui"], dict)
    assert Path(config["options"]["data_directory"]).is_absolute()
    providers = config["providers"]
    for slot in ("large", "small"):
        chosen = config["models"][slot]
        provider = providers[chosen["provider"]]
        assert not provider.get("disable")
        assert chosen["model"] in {model["id"] for model in provider["models"]}


def check_session(session: Json) -> None:
    """CW 13.2: every field that is always there."""
    assert {"id", "parent_session_id", "title", "message_count", "prompt_tokens"} <= set(session)
    assert {"completion_tokens", "summary_message_id", "cost"} <= set(session)
    assert {"created_at", "updated_at", "is_busy", "attached_clients"} <= set(session)


def check_message(message: Json) -> None:
    """CW 13.3 and 3.5: a missing ``parts`` or an unknown part would fail Crush's decoder."""
    assert {"id", "role", "session_id", "model", "provider", "created_at"} <= set(message)
    assert message["role"] in ("user", "assistant", "system", "tool")
    for part in message["parts"]:
        assert set(part) == {"type", "data"}
        needed = {
            "text": {"text"},
            "reasoning": {"thinking", "signature"},
            "tool_call": {"id", "name", "input"},
            "tool_result": {"tool_call_id", "name", "content", "metadata", "is_error"},
            "finish": {"reason", "time"},
        }[part["type"]]
        assert needed <= set(part["data"])


def check_agent(info: Json) -> None:
    """CW 13.4: always ready, with a model that can be shown."""
    assert info["is_ready"] is True
    assert isinstance(info["is_busy"], bool)
    assert {"id", "name", "context_window", "options"} <= set(info["model"])
    assert {"model", "provider"} <= set(info["model_cfg"])


def test_the_exact_sequence_of_crush_run(server: Server, project: Path) -> None:
    """CW 11.1, R19, R27: from the version to the retirement, with the answer on the stream."""
    client = Client(server, project)
    client.start()
    assert client.post("/agent/init", {"interactive": False}) is None
    check_agent(client.get("/agent"))
    client.post("/agent/update")
    title = {"title": "non-interactive", "parent_session_id": "", "message_count": 0}
    session = client.post("/sessions", title)
    check_session(session)
    stream = client.follow()
    prompt = {"session_id": session["id"], "run_id": str(uuid.uuid4()), "prompt": "list"}
    receipt = client.post("/agent", prompt)
    assert receipt["run_id"] == prompt["run_id"]
    blocks = stream.until_end_of(prompt["run_id"])
    for block in blocks:
        if block.type == "message":
            check_message(block.payload)
        if block.type == "session":
            check_session(block.payload)
    end = blocks[-1].payload
    assert end["session_id"] == session["id"]
    assert end["message_id"]
    assert "README.md" in end["text"]
    assert not end.get("error")
    last = [b.payload for b in blocks if b.type == "message" and b.payload["role"] == "assistant"]
    assert last[-1]["id"] == end["message_id"]
    # It goes on a session by `-s` and `-C`: by id, from the list, with its messages.
    assert client.get(f"/sessions/{session['id']}")["title"]
    assert [each["id"] for each in client.get("/sessions")] == [session["id"]]
    for message in client.get(f"/sessions/{session['id']}/messages"):
        check_message(message)
    stream.wire.close()
    client.retire()
    late = {"path": str(project), "client_id": client.id}
    assert server.call("POST", "/v1/workspaces", late)[1]["code"] == "client_retired"
    released = server.call("DELETE", f"/v1/workspaces/{client.workspace}?client_id={client.id}")
    assert released == (200, None), "its way of leaving a server without retirement"


def test_crush_run_hears_of_a_failure_and_of_a_cancel(server: Server, project: Path) -> None:
    """CW 9.2: both are on the stream, under the run's id."""
    client = Client(server, project)
    client.start()
    session = client.post("/sessions", {"title": "non-interactive"})["id"]
    stream = client.follow()
    bad = script(project / "bad.json", [{"error": "The model is on fire.", "code": "provider"}])
    slow = script(project / "slow.json", [{"text": "so "}, {"wait_ms": 60_000}])
    client.post("/agent", {"session_id": session, "run_id": "f1", "prompt": "x", "model": bad})
    blocks = stream.until_end_of("f1")
    assert "on fire" in blocks[-1].payload["error"]
    notice = next(b.payload for b in blocks if b.type == "agent_event")
    assert (notice["type"], notice["run_id"]) == ("error", "f1")
    assert notice.get("message", {}) is not None
    client.post("/agent", {"session_id": session, "run_id": "c1", "prompt": "x", "model": slow})
    stream.until(lambda b: b.type == "message" and "so " in str(b.payload["parts"]))
    client.post(f"/agent/sessions/{session}/cancel")
    end = stream.until_end_of("c1")[-1].payload
    assert (end["error"], end["cancelled"]) == ("context canceled", True)
    stream.wire.close()
    client.retire()


def test_the_exact_sequence_of_crushs_terminal(server: Server, project: Path) -> None:
    """CW 11.2, R30: start, a session, a prompt, Esc, and what is asked meanwhile."""
    client = Client(server, project)
    client.start()
    client.post("/agent/init", {"interactive": True})
    assert set(client.get("/permissions/skip")) == {"skip"}
    check_agent(client.get("/agent"))
    check_agent(client.get("/agent"))
    assert client.get("/project/needs-init") == {"needs_init": False}
    empty_lists = ("/skills", "/messages/user", "/mcp/pending-auth", "/mcp/prompts")
    assert [client.get(target) for target in empty_lists] == [[], [], [], []]
    assert [client.get("/lsps"), client.get("/mcp/states")] == [{}, {}]
    stream = client.follow()
    assert client.get("/sessions") == []
    session = client.post("/sessions", {"title": "New Session"})["id"]
    base = f"/sessions/{session}"
    created = stream.until(lambda b: b.type == "session")[-1]
    assert created.payload["id"] == session
    assert [client.get(base + each) for each in ("/history", "/messages")] == [[], []]
    assert client.get(f"{base}/filetracker/files") == []
    client.post(f"/current-session?client_id={client.id}", {"session_id": session})
    assert client.get("/sessions")[0]["attached_clients"] == 1
    assert client.get(f"/agent/sessions/{session}")["attached_clients"] == 1
    # A prompt with a file, without a run id; one more waits behind it, and Esc empties the queue.
    readme = str(project / "README.md")
    query = f"/filetracker/lastread?session_id={session}&path={readme}"
    assert client.get(query) == ZERO_TIME
    client.post("/filetracker/read", {"session_id": session, "path": readme})
    client.post("/lsps/start", {"path": readme})
    assert client.get(query).startswith("20")
    assert client.get(f"{base}/filetracker/files") == [readme]
    slow = script(project / "slow.json", [{"text": "so "}, {"wait_ms": 60_000}])
    run = client.post("/agent", {"session_id": session, "prompt": "be slow", "model": slow})
    stream.until(lambda b: b.type == "message" and "so " in str(b.payload["parts"]))
    assert client.get(f"/agent/sessions/{session}")["is_busy"]
    assert client.get("/agent")["is_busy"]
    client.post("/agent", {"session_id": session, "prompt": "and then", "if_busy": "enqueue"})
    assert client.get(f"/agent/sessions/{session}/prompts/queued") == 1
    assert client.get(f"/agent/sessions/{session}/prompts/list") == ["and then"]
    client.post(f"/agent/sessions/{session}/prompts/clear")
    client.post(f"/agent/sessions/{session}/cancel")
    stream.until_end_of(run["run_id"])
    assert not client.get(f"/agent/sessions/{session}")["is_busy"]
    assert client.get(f"/agent/sessions/{session}/prompts/list") == []
    for message in client.get(f"{base}/messages"):
        check_message(message)
        finish = message["parts"][-1]
        assert finish["type"] == "finish", "an animation without an end otherwise"
    assert len(client.get("/messages/user")) == len(client.get(f"{base}/messages/user")) >= 1
    stream.wire.close()
    gone = f"/current-session?client_id={client.id}"
    eventually(lambda: attempt(client, gone, session) == 409)
    client.retire()


def attempt(client: Client, target: str, session: str) -> int:
    """The status of naming a session."""
    path = f"/workspaces/{client.workspace}{target}"
    return client.send("POST", path, {"session_id": session})[0]


def test_the_routes_of_the_choice_of_a_model_that_exist(server: Server, project: Path) -> None:
    """CW 11.1 step 8: what can be chosen, and the small model."""
    client = Client(server, project)
    client.start()
    config = client.get("/config")
    for provider in client.get("/providers"):
        assert {"id", "name", "models"} <= set(provider)
        assert "api_key" not in provider
        assert config["providers"][provider["id"]]["models"] == provider["models"]
    small = client.get("/agent/default-small-model?provider_id=offline")
    assert small == config["models"]["small"]
    other = client.get("/agent/default-small-model?provider_id=another")
    assert other == config["models"]["large"]
    client.retire()


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("POST", "/workspaces", {"path": "/tmp", "client_id": "editor-1"}, 400, "bad_request"),
        ("POST", "/workspaces", {"path": "tmp", "client_id": "editor-1"}, 400, "path_relative"),
        ("DELETE", "/workspaces/{w}", None, 400, "bad_request"),
        ("DELETE", "/workspaces/{w}?client_id=me", None, 400, "bad_request"),
        ("DELETE", "/clients/me", None, 400, "bad_request"),
        ("POST", "/workspaces/{w}/current-session", {}, 400, "bad_request"),
        ("POST", "/workspaces/{w}/current-session?client_id={c}", {}, 409, "client_not_attached"),
        ("POST", "/workspaces/no/current-session?client_id={c}", {}, 404, "workspace_not_found"),
        ("POST", "/workspaces/{w}/filetracker/read", {"path": "a"}, 400, "bad_request"),
        ("POST", "/workspaces/{w}/filetracker/read", {"path": "/a"}, 404, "session_not_found"),
        ("GET", "/workspaces/no/skills", None, 404, "workspace_not_found"),
        ("GET", "/workspaces/no/providers", None, 404, "workspace_not_found"),
    ],
)
def test_what_a_client_gets_wrong_is_refused_with_a_sentence(
    server: Server, project: Path, method: str, target: str, body: Any, status: int, code: str
) -> None:
    """R20, R30, G14: and nothing is changed."""
    workspace = server.workspace(project)
    path = target.format(w=workspace, c=uuid.uuid4())
    got, answer = server.call(method, f"/v1{path}", body)
    assert (got, answer["code"]) == (status, code)
    assert answer["message"].endswith(".")


def test_a_release_of_an_unknown_workspace_is_fine(server: Server) -> None:
    """R25: CW 2.3."""
    assert server.call("DELETE", f"/v1/workspaces/no?client_id={uuid.uuid4()}") == (200, None)
