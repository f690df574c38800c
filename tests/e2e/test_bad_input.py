"""Bad input: one sentence that says what to do, the right status or exit code, nothing changed
(G12, G13, G14)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.e2e.kit import Server, cli, environment, eventually, script

AGENT = "/v1/workspaces/{w}/agent"
ASK = {"session_id": "{s}", "prompt": "x"}
REQUESTS: list[tuple[str, str, str, Any, int, str]] = [
    ("no prompt", "POST", AGENT, {"session_id": "{s}"}, 400, "prompt_empty"),
    ("blank prompt", "POST", AGENT, {"session_id": "{s}", "prompt": " "}, 400, "prompt_empty"),
    ("no session", "POST", AGENT, {"prompt": "x"}, 400, "session_required"),
    ("lost session", "POST", AGENT, {"session_id": "no", "prompt": "x"}, 404, "session_not_found"),
    ("wrong type", "POST", AGENT, {"session_id": 5, "prompt": "x"}, 400, "bad_request"),
    ("bad id", "POST", AGENT, {**ASK, "run_id": "a b"}, 400, "bad_run_id"),
    ("policy", "POST", AGENT, {**ASK, "if_busy": "no"}, 400, "bad_request"),
    ("mode", "POST", AGENT, {**ASK, "permission_mode": "maybe"}, 400, "bad_request"),
    ("grant", "POST", "/v1/workspaces/{w}/permissions/grant",
     {"permission": {"id": "x"}, "action": "maybe"}, 400, "bad_request"),
    ("no grant", "POST", "/v1/workspaces/{w}/permissions/grant", {"action": "allow"}, 400,
     "bad_request"),
    ("limit", "POST", AGENT, {**ASK, "limits": {"colour": 1}}, 400, "bad_request"),
    ("zero limit", "POST", AGENT, {**ASK, "limits": {"max_steps": 0}}, 400,
     "bad_request"),
    ("pattern", "POST", AGENT, {**ASK, "allow_tools": ["bash("]}, 400, "bad_request"),
    ("model", "POST", AGENT, {**ASK, "model": "no-such-model"}, 400, "unknown_model"),
    ("provider", "POST", AGENT, {**ASK, "model": "no-such/model"}, 400, "unknown_provider"),
    ("key", "POST", AGENT, {**ASK, "model": "openai/gpt"}, 400, "key_missing"),
    ("script", "POST", AGENT, {**ASK, "model": "script//no.json"}, 400, "unknown_model"),
    ("no path", "POST", "/v1/workspaces", {}, 400, "path_required"),
    ("relative", "POST", "/v1/workspaces", {"path": "here"}, 400, "path_relative"),
    ("missing", "POST", "/v1/workspaces", {"path": "/no/such/place"}, 400, "path_missing"),
    ("workspace", "GET", "/v1/workspaces/nowhere/sessions", None, 404, "workspace_not_found"),
    ("session", "GET", "/v1/workspaces/{w}/sessions/no/messages", None, 404, "session_not_found"),
    ("run", "GET", "/v1/runs/no", None, 404, "run_not_found"),
    ("cancel", "POST", "/v1/runs/no/cancel", {}, 404, "run_not_found"),
    ("wait", "GET", "/v1/runs/no?wait=soon", None, 400, "bad_request"),
    ("big limit", "GET", "/v1/runs?limit=100000", None, 400, "bad_request"),
    ("state", "GET", "/v1/runs?state=tired", None, 400, "bad_request"),
    ("route", "GET", "/v1/nothing", None, 404, "not_found"),
    ("method", "DELETE", "/v1/health", None, 405, "method_not_allowed"),
    ("command", "POST", "/v1/control", {"command": "dance"}, 400, "bad_request"),
    ("foreign stop", "POST", "/v1/control", {"command": "shutdown"}, 409, "server_in_use"),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server with one session for requests that change nothing."""
    home = tmp_path_factory.mktemp("h")
    server = Server(home).start()
    workspace = server.workspace(home / "project")
    yield server, workspace, server.session(workspace)
    server.kill()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [row[1:] for row in REQUESTS],
    ids=[row[0] for row in REQUESTS],
)
def test_a_bad_request_gets_a_sentence_a_code_and_changes_nothing(
    shared: tuple[Server, str, str], method: str, path: str, body: Any, status: int, code: str
) -> None:
    """G14, R32."""
    server, workspace, session = shared
    before = server.get(f"/v1/workspaces/{workspace}/snapshot")
    raw = None if body is None else json.dumps(body).replace("{s}", session).encode()
    answer, error = server.call(method, path.replace("{w}", workspace), raw=raw)
    assert (answer, error["code"]) == (status, code)
    assert len(error["message"]) > 10
    assert error["message"].rstrip().endswith((".", ")", "$", ":-")) or ":" in error["message"]
    assert isinstance(error["retryable"], bool)
    assert server.get(f"/v1/workspaces/{workspace}/snapshot") == before


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff\xfe", b'"x"', b'{"prompt": NaN}'])
def test_a_body_that_is_not_a_json_object_is_400(
    shared: tuple[Server, str, str], raw: bytes
) -> None:
    """G14: bad JSON names the place of the mistake."""
    server, workspace, _ = shared
    status, error = server.call("POST", f"/v1/workspaces/{workspace}/agent", raw=raw)
    assert (status, error["code"]) == (400, "bad_request")


def test_a_huge_body_is_413_and_the_server_goes_on(shared: tuple[Server, str, str]) -> None:
    """Contract 3: 1 MiB for most routes, 32 MiB for prompts."""
    server, workspace, session = shared
    big = json.dumps({"title": "x" * 2_000_000}).encode()
    status, error = server.call("POST", f"/v1/workspaces/{workspace}/sessions", raw=big)
    assert (status, error["code"]) == (413, "body_too_large")
    assert server.get(f"/v1/workspaces/{workspace}/sessions/{session}")["id"] == session


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Forwarded-For", "1.2.3.4"),
    ],
)
def test_a_browser_or_proxy_is_refused_on_the_unix_socket(
    shared: tuple[Server, str, str], header: str, value: str
) -> None:
    """G12."""
    from tests.e2e.kit import UnixHTTP

    server, _, _ = shared
    connection = UnixHTTP(server.socket_path)
    connection.request("GET", "/v1/health", headers={header: value})
    assert connection.getresponse().status == 403
    connection.close()


def test_tcp_wants_a_token_a_known_host_and_no_foreign_origin(home: Path) -> None:
    """G12: Host 421, Origin 403, token 401, content type 415; loopback too."""
    server = Server(home, "--host", "tcp://127.0.0.1:0").start()
    port = int(server.url.rpartition(":")[2])
    token = (server.data / "token").read_text().strip()
    good = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def status(method: str = "GET", path: str = "/v1/health", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        sent = {**good, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, b"{}" if method == "POST" else None, sent)
        answer = connection.getresponse().status
        connection.close()
        return answer

    assert status() == 200
    assert status(Authorization="Bearer wrong-token-wrong-token-wrong") == 401
    assert status(Authorization="") == 401
    assert status(Host="evil.example") == 421
    assert status(Origin="https://evil.example") == 403
    assert status("POST", "/v1/workspaces", Content_Type="text/plain") == 415
    assert (server.data / "token").stat().st_mode & 0o777 == 0o600
    run = cli(
        server.env, "run", "--server", server.url, "-C", str(home), "list",
        "--token-file", str(server.data / "token"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    refused = cli(server.env, "ps", "--server", server.url)
    assert refused.returncode == 4
    assert server.stop() == 0


# --- starting -----------------------------------------------------------------------------


def serve(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A `serve` that is expected not to start."""
    return cli(env, "serve", *arguments, timeout=30)


def test_a_locked_data_directory_says_who_holds_it(server: Server) -> None:
    """Contract 5, 6: exit 4; the running server is not disturbed."""
    second = serve(server.env, "--data-dir", str(server.data), "--host", "tcp://127.0.0.1:0")
    assert second.returncode == 4
    assert f"pid {server.pid}" in second.stderr
    assert server.get("/v1/health")["status"] == "ok"


def test_a_corrupt_database_is_named_and_not_overwritten(home: Path) -> None:
    """Contract 5."""
    data = home / "data"
    data.mkdir(mode=0o700)
    (data / "crush.db").write_bytes(b"this is not a database at all" * 100)
    before = (data / "crush.db").read_bytes()
    failed = serve(environment(home), "--data-dir", str(data))
    assert failed.returncode == 4
    assert "crush.db" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert (data / "crush.db").read_bytes() == before


def test_a_port_in_use_is_one_sentence(home: Path) -> None:
    """G14: exit 4."""
    first = Server(home / "one", "--host", "tcp://127.0.0.1:0").start()
    second = serve(
        environment(home / "two"), "--data-dir", str(home / "two" / "data"), "--host", first.url
    )
    assert second.returncode == 4
    assert "in use" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    first.kill()


@pytest.mark.parametrize(
    "url", ["tcp://0.0.0.0:0", "ftp://x", "unix://relative", "tcp://127.0.0.1:x"]
)
def test_a_bad_address_is_one_sentence(home: Path, url: str) -> None:
    """G12, G14: an open address needs to be asked for; exit 4."""
    failed = serve(environment(home), "--data-dir", str(home / "data"), "--host", url)
    assert failed.returncode == 4
    assert len(failed.stderr.splitlines()) == 1


def test_two_servers_live_side_by_side_on_two_data_directories(home: Path) -> None:
    """Contract 5: one data directory is one server."""
    one, two = Server(home / "one").start(), Server(home / "two").start()
    assert one.get("/v1/version")["server_id"] != two.get("/v1/version")["server_id"]
    assert (one.stop(), two.stop()) == (0, 0)


# --- the command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "prompt"),
        (["run", "--colour", "x"], 2, "--colour"),
        (["run", "-C"], 2, "-c"),
        (["run", "-s", "nobody", "x"], 2, "nobody"),
        (["run", "-m", "openai/gpt", "x"], 4, "openai"),
        (["run", "-m", "script/none.json", "x"], 4, "none.json"),
        (["run", "--permission-mode", "maybe", "x"], 2, "permission"),
        (["wait", "no-such-run"], 2, "no-such-run"),
        (["cancel", "no-such-run"], 2, "no-such-run"),
        (["session", "show", "nobody"], 2, "nobody"),
        (["dance"], 2, "dance"),
        (["run", "write me a poem"], 4, "language model"),
        (["run", "--require-model", "list"], 4, "model"),
    ],
)
def test_a_bad_command_line_says_what_is_wrong(
    server: Server, project: Path, arguments: list[str], code: int, says: str
) -> None:
    """G13, G14."""
    directory = [] if arguments[0] == "dance" else ["--data-dir", str(server.data)]
    if arguments == ["run", "-C"]:
        directory = []
    done = cli(server.env, *arguments, *directory, cwd=project)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_a_server_and_without_autostart_it_is_exit_7(home: Path) -> None:
    """G13."""
    done = cli(
        environment(home), "run", "--no-autostart", "--data-dir", str(home / "data"), "list",
        "--reconnect-timeout", "0.5",
    )  # fmt: skip
    assert done.returncode == 7
    assert len(done.stderr.splitlines()) <= 2


def test_without_a_home_it_says_so_and_with_a_data_dir_it_works(home: Path, project: Path) -> None:
    """G14: no HOME; then a HOME that cannot be written, with --data-dir."""
    env = environment(home)
    del env["HOME"]
    lost = cli({**env, "HOME": ""}, "run", "list", cwd=project)
    assert lost.returncode == 4
    assert "--data-dir" in lost.stderr
    works = cli(
        {**env, "HOME": "/proc/1"}, "run", "--data-dir", str(home / "d"), "list", cwd=project
    )
    assert works.returncode == 0, works.stderr
    assert cli(env, "stop", "--data-dir", str(home / "d")).returncode == 0


def test_a_closed_pipe_is_exit_141_and_no_traceback(server: Server, project: Path) -> None:
    """G13: as in `crush-trio run … | head -1`."""
    model = script(project / "long.json", [{"text": "line\n", "tokens": 20_000}])
    command = [
        sys.executable, "-m", "crush_trio", "run", "--data-dir", str(server.data),
        "-m", model, "go",
    ]  # fmt: skip
    process = forked.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=server.env, cwd=project
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_an_open_stdin_that_nobody_writes_to_is_not_read(server: Server, project: Path) -> None:
    """Contract 6: with a prompt, stdin is left alone."""
    reading, writing = os.pipe()
    done = server.cli("run", "list", cwd=project, stdin=reading, timeout=20)
    os.close(reading)
    os.close(writing)
    assert done.returncode == 0


def test_ctrl_c_cancels_the_run_and_exits_130(server: Server, project: Path) -> None:
    """G13, contract 6: the run ends cancelled, by us."""
    hold = script(project / "hold.json", [{"text": "x"}, {"silence": True}])
    command = [
        sys.executable, "-m", "crush_trio", "run", "--data-dir", str(server.data), "-m", hold,
        "--run-id", "held", "go",
    ]  # fmt: skip
    process = forked.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=server.env, cwd=project
    )
    eventually(lambda: "held" in str(server.get("/v1/runs?state=running")))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert server.ended("held")["outcome"] == "cancelled"


def test_a_lost_server_is_started_again_and_the_run_is_exit_9(home: Path, project: Path) -> None:
    """G2, G13: the client reconnects, reads the record, and tells the truth."""
    env = environment(home)
    data = str(home / "data")
    hold = script(project / "hold.json", [{"text": "x"}, {"silence": True}])
    process = forked.Popen(
        [sys.executable, "-m", "crush_trio", "run", "--data-dir", data, "-m", hold, "--run-id", "h",
         "go"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=project, text=True,
    )  # fmt: skip
    eventually(lambda: '"running"' in cli(env, "ps", "--data-dir", data, "--json").stdout)
    pid = int(json.loads((home / "data" / "lock").read_text().splitlines()[0])["pid"])
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 9, errors
    assert cli(env, "stop", "--data-dir", data).returncode == 0
    eventually(lambda: not (home / "data" / "crush.db-shm").exists())
