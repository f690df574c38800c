"""Real runs against a chat server on loopback: from configuration and keys to the last word."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Server, eventually
from tests.e2e.model_server import ModelServer, calls, fails, model_server, says

KEY = "sk-test-0123456789"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: each begins with the configuration it writes."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared server, without configuration, and commands without keys."""
    env = shared.env
    write(shared.home, {})
    yield shared
    shared.env = env


@pytest.fixture
def models() -> Iterator[ModelServer]:
    """A chat server."""
    with model_server() as server:
        yield server


def configure(home: Path, models: ModelServer, **more: Any) -> None:
    """Make the chat server the provider ``den`` of the user's configuration."""
    den: dict[str, Any] = {"type": "openai-compat", "name": "Den", "base_url": models.url}
    den |= {"models": [{"id": "tiny", "cost_per_1m_in": 2, "cost_per_1m_out": 4}]}
    write(home, {"providers": {"den": den | more}})


def write(home: Path, config: dict[str, Any]) -> None:
    """The user's configuration."""
    path = home / ".config" / "crush-trio" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def test_an_answer_comes_with_its_usage_and_its_price(
    server: Server, project: Path, models: ModelServer
) -> None:
    configure(server.home, models)
    models.answers = [says("Two ", "marmots.", usage=(100, 20))]
    run = server.cli("run", "--json", "-m", "den/tiny", "How many?", cwd=project)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["text"] == "Two marmots."
    record = server.record(result["run_id"])
    assert (record["provider"], record["model"]) == ("den", "tiny")
    assert record["usage"]["input_tokens"] == 100
    assert record["cost_usd"] == pytest.approx((100 * 2 + 20 * 4) / 1e6)


def test_a_tool_is_called_and_its_result_goes_back(
    server: Server, project: Path, models: ModelServer
) -> None:
    configure(server.home, models)
    models.answers = [calls("view", {"file_path": "README.md"}), says("It counts marmots.")]
    run = server.cli("run", "What is this?", cwd=project)
    assert (run.returncode, run.stdout) == (0, "It counts marmots.\n"), run.stderr
    assert run.stderr == ""  # the only configured provider: nothing to explain
    result = models.prompts[1].last
    assert result["role"] == "tool"
    assert "Counts marmots." in json.dumps(result["content"])


def test_an_overloaded_server_is_asked_again_and_the_wait_is_an_event(
    server: Server, project: Path, models: ModelServer
) -> None:
    """G8: a retry is seen by whoever follows; a provider may say how soon."""
    configure(server.home, models)
    models.answers = [lambda _: (503, {"error": {"message": "busy"}}), says("Now.")]
    workspace = server.workspace(project)
    session = server.session(workspace)
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "Well?")["run_id"]
        retry = stream.until(lambda frame: frame["type"] == "retry")[-1]["payload"]["payload"]
        assert (retry["run_id"], retry["attempt"]) == (run, 1)
        server.post(f"/v1/runs/{run}/cancel")
        stream.until_end_of(run)
    assert server.record(run)["outcome"] == "cancelled"
    assert len(models.prompts) == 1


def test_a_wrong_key_is_one_sentence_and_exit_4(
    server: Server, project: Path, models: ModelServer
) -> None:
    models.key = KEY
    configure(server.home, models, api_key="sk-wrong-987654")
    run = server.cli("run", "--json", "Hi", cwd=project)
    error = json.loads(run.stdout.splitlines()[-1])["error"]
    assert (run.returncode, error["code"], error["retryable"]) == (4, "provider_auth", False)
    assert "Den" in error["message"]
    assert "987654" not in run.stdout + run.stderr


def test_a_key_may_come_from_the_callers_environment_alone(
    server: Server, project: Path, models: ModelServer
) -> None:
    """Contract 7: it is looked up at the client first, and neither stored nor answered."""
    models.key = KEY
    configure(server.home, models, api_key="$DEN_KEY")
    missing = server.cli("run", "Hi", cwd=project)
    assert missing.returncode == 4
    assert "set the variable DEN_KEY" in missing.stderr
    alone, server.env = server.env, {**server.env, "DEN_KEY": KEY}  # of the commands from now on
    run = server.cli("run", "--run-id", "hi", "Hi", cwd=project)
    assert (run.returncode, run.stdout) == (0, "Hello.\n"), run.stderr
    server.env = alone
    again = server.cli("run", "--run-id", "hi", "Hi", cwd=project)  # the same, whoever asks (G3)
    assert (again.returncode, again.stdout) == (0, "Hello.\n"), again.stderr
    assert [each.key for each in models.prompts] == [KEY]
    workspace = server.workspace(project)
    assert server.get(f"/v1/workspaces/{workspace}")["env"] == []
    assert server.call("GET", f"/v1/workspaces/{workspace}/agent")[1]["is_ready"] is False
    for file in server.data.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_prompt_that_names_no_client_uses_what_the_first_one_brought(
    server: Server, project: Path, models: ModelServer
) -> None:
    """R21, as far as we keep it: Crush's own client does not say who it is with a prompt."""
    models.key = KEY
    configure(server.home, models, api_key="$DEN_KEY")
    client = "6f1f0a0e-5b8e-4f6e-9a55-1f0f3a0b7c11"
    body = {"path": str(project), "client_id": client, "env": ["X=1", f"DEN_KEY={KEY}", "odd"]}
    workspace = server.post("/v1/workspaces", body)["id"]
    session = server.session(workspace)
    run = server.prompt(workspace, session, "Hi")["run_id"]
    assert server.ended(run)["text"] == "Hello."
    status, error = server.call(
        "POST",
        f"/v1/workspaces/{workspace}/agent",
        {"session_id": session, "prompt": "Hi", "client_id": "somebody-else"},
    )
    assert (status, error["code"]) == (400, "key_missing")


def test_after_a_restart_only_the_servers_own_environment_is_there(
    home: Path, project: Path, models: ModelServer
) -> None:
    """A queued run keeps what it was accepted with as long as the server lives; then it fails."""
    models.key = KEY
    server = Server(home).start()
    try:
        configure(home, models, api_key="$DEN_KEY")
        client = "6f1f0a0e-5b8e-4f6e-9a55-1f0f3a0b7c11"
        env = [f"DEN_KEY={KEY}"]
        body = {"path": str(project), "client_id": client, "env": env}
        workspace = server.post("/v1/workspaces", body)["id"]
        session = server.session(workspace)
        gone = threading.Event()
        models.answers = [lambda _: says("Late.") if gone.wait(30) else fails(500, "stuck")]
        server.prompt(workspace, session, "Wait", run_id="r1", client_id=client)
        eventually(lambda: bool(models.prompts))
        server.prompt(workspace, session, "Then", run_id="r2", client_id=client)
        server.kill()
        gone.set()
        server.start()
        error = server.ended("r2")["error"]
        assert error["code"] == "key_missing"
        assert "DEN_KEY" in error["message"]
    finally:
        server.kill()


def test_an_ambiguous_name_lists_what_it_may_mean(
    server: Server, project: Path, models: ModelServer
) -> None:
    den = {"type": "openai-compat", "base_url": models.url, "models": [{"id": "tiny"}]}
    write(server.home, {"providers": {"den": den, "lair": den}})
    run = server.cli("run", "-m", "tiny", "Hi", cwd=project)
    assert run.returncode == 4
    assert "'tiny' may mean den/tiny, lair/tiny: name one of them in full." in run.stderr
    run = server.cli("run", "-m", "lair/tinny", "Hi", cwd=project)
    assert "lair/tinny is not in the list of models" in run.stderr
    assert "did you mean tiny?" in run.stderr
    assert models.prompts[-1].body["model"] == "tinny"


def test_a_key_that_a_client_brings_chooses_its_provider(server: Server, project: Path) -> None:
    """Contract 9, without a prompt: the answers name the model that would be used (CW 10.5)."""
    client = "0d9a4c1e-3f1b-4a54-9a2e-4c5f7f0d2b10"
    body = {"path": str(project), "client_id": client, "env": ["GROQ_API_KEY=sk"]}
    created = server.post("/v1/workspaces", body)
    large = {"provider": "groq", "model": "openai/gpt-oss-120b"}
    assert created["config"]["models"]["large"] == large
    groq = created["config"]["providers"]["groq"]["models"]
    assert {each["id"] for each in groq} == {"openai/gpt-oss-120b", "openai/gpt-oss-20b"}
    agent = server.get(f"/v1/workspaces/{created['id']}/agent?client_id={client}")
    assert (agent["is_ready"], agent["model_cfg"]) == (True, large)
    assert agent["model"]["context_window"] > 0
    server.call("DELETE", f"/v1/workspaces/{created['id']}?client_id={client}")
    agent = server.get(f"/v1/workspaces/{created['id']}/agent")
    assert agent["model_cfg"] == {"provider": "offline", "model": "scout"}


def test_a_server_of_this_machine_is_used_when_nothing_is_configured(
    home: Path, project: Path
) -> None:
    """Contract 9: its socket is ours, so it may be asked; what is used is named on stderr."""
    with model_server() as models:
        server = Server(home)
        server.env["OLLAMA_HOST"] = f"127.0.0.1:{models.port}"
        models.answers = [says("Locally.")]
        models.others = {
            "/api/tags": {"models": [{"name": "qwen:tiny"}]},
            "/api/show": {"capabilities": ["completion", "tools"]},
        }
        server.start()
        try:
            run = server.cli("run", "Hi", cwd=project)
            assert (run.returncode, run.stdout) == (0, "Locally.\n"), run.stderr
            assert f"using ollama/qwen:tiny on 127.0.0.1:{models.port}" in run.stderr
            workspace = server.workspace(project)
            session = server.session(workspace)
            named = server.prompt(workspace, session, "Hi", model="ollama/qwen:tiny")
            assert named["notices"] == []
            assert server.ended(named["run_id"])["outcome"] == "completed"
            body = {"session_id": session, "prompt": "Hi", "model": "ollama/qwen:tinny"}
            wrong = server.post(f"/v1/workspaces/{workspace}/agent", body, expect=400)
            words = "ollama has no model 'qwen:tinny'; did you mean qwen:tiny?"
            assert (wrong["code"], wrong["message"]) == ("unknown_model", words)
            agent = server.get(f"/v1/workspaces/{workspace}/agent")
            assert agent["model_cfg"] == {"model": "qwen:tiny", "provider": "ollama"}
        finally:
            server.kill()


def test_the_small_model_gives_the_title(
    server: Server, project: Path, models: ModelServer
) -> None:
    """CW 5.12."""
    den: dict[str, Any] = {"type": "openai-compat", "base_url": models.url}
    den |= {"models": [{"id": "tiny"}, {"id": "little"}]}
    chosen = {"large": {"provider": "den", "model": "tiny"}}
    chosen |= {"small": {"provider": "den", "model": "little"}}
    write(server.home, {"providers": {"den": den}, "models": chosen})
    workspace = server.workspace(project)
    session = server.session(workspace, "New Session")
    server.ended(server.prompt(workspace, session, "How many marmots?")["run_id"])
    path = f"/v1/workspaces/{workspace}/sessions/{session}"
    eventually(lambda: server.get(path)["title"] == models.title)
    assert [each.body["model"] for each in models.titles] == ["little"]
    assert [each.body["model"] for each in models.prompts] == ["tiny"]


def test_a_recorded_run_plays_again_without_the_provider_and_without_its_key(
    server: Server, project: Path, models: ModelServer, tmp_path: Path
) -> None:
    models.key = KEY
    configure(server.home, models, api_key=KEY)
    models.answers = [
        calls("view", {"file_path": "README.md"}),
        lambda asked: says(f"The key is {asked.key}."),
    ]
    record = tmp_path / "made.json"
    first = server.cli("run", "--record", str(record), "What is this?", cwd=project)
    assert first.returncode == 0, first.stderr
    assert KEY not in record.read_text()
    seen = len(models.asked)
    again = server.cli("run", "-m", f"script/{record}", "What is this?", cwd=project)
    assert (again.returncode, again.stdout) == (0, "The key is ***.\n"), again.stderr
    assert len(models.asked) == seen


def test_a_provider_that_is_not_spoken_or_not_there_is_one_sentence(
    server: Server, project: Path
) -> None:
    write(server.home, {"providers": {"cloud": {"type": "bedrock", "models": [{"id": "m"}]}}})
    run = server.cli("run", "Hi", cwd=project)
    assert run.returncode == 4
    assert "'cloud' is of type bedrock, which this version does not speak" in run.stderr
    workspace = server.workspace(project)
    session = server.session(workspace)
    for name, words in (
        ("nobody/tiny", "There is no provider 'nobody'"),
        ("claude-sonnet-5-5", "The provider 'anthropic' has no key: set the variable"),
        ("ollama/x", "Ollama does not answer at http://127.0.0.1:11434/v1: start it"),
    ):
        body = {"session_id": session, "prompt": "Hi", "model": name}
        refused = server.post(f"/v1/workspaces/{workspace}/agent", body, expect=400)
        assert refused["message"].startswith(words)


def test_a_refused_request_of_the_provider_is_told_in_its_words(
    server: Server, project: Path, models: ModelServer
) -> None:
    configure(server.home, models)
    models.answers = [fails(404, "The model `tiny` does not exist", code="model_not_found")]
    run = server.cli("run", "Hi", cwd=project)
    assert run.returncode == 4
    assert "does not exist" in run.stderr
