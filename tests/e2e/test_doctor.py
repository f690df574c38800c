"""``crush-trio doctor`` and its route against a real server and providers with one fault each."""

from __future__ import annotations

import datetime
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from crush_trio.protocol.checks import NAMES
from tests.e2e.kit import Json, Server, UnixHTTP, cli
from tests.e2e.model_server import Answer, Asked, ModelServer, calls, chunk, fails, says

KEY = "sk-test-0123456789abcdef"
TEN = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COUNTS = says(*(f"{word} " for word in TEN), usage=(40, 20))
CALLS = calls("report_word", {"word": "marmot"})


@attrs.define(eq=False)
class Patient(ModelServer):
    """A provider that answers the two requests of a checkup as it is told.

    ``words`` answers the one without tools, ``call`` the one with a tool; ``whole`` sends an
    answer as one JSON object, whatever was asked for.
    """

    words: Answer = COUNTS
    call: Answer = CALLS
    tls: ssl.SSLContext | None = None
    hold: threading.Event | None = None
    """Answers are held back until it is set."""

    @property
    def url(self) -> str:
        """What a configuration calls ``base_url``."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    def _speak(self, peer: socket.socket) -> None:
        if self.tls is not None:
            try:
                peer = self.tls.wrap_socket(peer, server_side=True)
            except OSError:  # they do not trust us
                peer.close()
                return
        super()._speak(peer)

    def _answer(self, asked: Asked) -> Answer:
        if self.key and asked.key != self.key:
            return super()._answer(asked)
        if asked.body and asked.path not in self.others:
            if self.hold is not None:
                assert self.hold.wait(20)
            return self.call if "tools" in asked.body else self.words
        return super()._answer(asked)


@contextmanager
def provider(**more: Any) -> Iterator[Patient]:
    """A provider that answers for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        patient = Patient(listener, **more)
        thread = threading.Thread(target=patient.serve, daemon=True)
        thread.start()
        try:
            yield patient
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of these: a checkup leaves nothing behind. It trusts `AUTHORITY`."""
    server = Server(tmp_path_factory.mktemp("h"))
    trusted = server.home / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    server.env["SSL_CERT_FILE"] = str(trusted)
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def work(server: Server) -> Path:
    """The directory in which all of these work."""
    work = server.home / "work"
    work.mkdir()
    return work


def configure(server: Server, url: str, **more: Any) -> None:
    """Make ``url`` the provider ``den`` of the user's configuration, and the only one."""
    model = {"id": "tiny", "context_window": 32_000, **more.pop("model", {})}
    den = {"type": "openai-compat", "base_url": url, "api_key": "$DEN_KEY", "models": [model]}
    write(server, {"providers": {"den": den | more}})


def write(server: Server, config: Json) -> None:
    """The user's configuration."""
    path = server.home / ".config" / "crush-trio" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


CLIENT = "6f1f0a0e-5b8e-4f6e-9a55-1f0f3a0b7c11"


def asked(server: Server, work: Path, key: str = KEY, **body: Any) -> dict[str, Json]:
    """The checks that the server makes, by name, with the last line as ``done``."""
    create = {"path": str(work), "client_id": CLIENT, "env": [f"DEN_KEY={key}"]}
    workspace = server.post("/v1/workspaces", create)["id"]
    text = raw(server, f"/v1/workspaces/{workspace}/doctor?client_id={CLIENT}", body)
    found = [json.loads(line) for line in text.splitlines()]
    assert KEY not in text
    done = found.pop()
    assert done["done"] is True
    assert done["checks"] == len(found)
    assert done["ok"] is all(each["status"] != "fail" for each in found)
    names = [each["name"] for each in found]
    assert names == [name for name in NAMES if name in names]  # each once, and in order
    return {each["name"]: each for each in found}


def raw(server: Server, path: str, body: Json) -> str:
    """The whole answer to a POST that must succeed."""
    with opened(server, path, body) as answer:
        return answer.read().decode()


@contextmanager
def opened(server: Server, path: str, body: Json) -> Iterator[http.client.HTTPResponse]:
    """An answer that begins well, to be read as it comes; its end hangs up."""
    connection = UnixHTTP(server.socket_path)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body).encode(), headers)
    answer = connection.getresponse()
    try:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        yield answer
    finally:
        answer.close()
        connection.close()


def states(checks: dict[str, Json]) -> dict[str, str]:
    """The status of each check."""
    return {name: each["status"] for name, each in checks.items()}


MADE = ("model", "key", "connection", "model_list", "answer", "streaming", "usage", "tools")
ALL = dict.fromkeys((*MADE, "context", "small_model"), "ok")


# --- the command line ---------------------------------------------------------------------


def test_all_is_well_and_every_check_says_what_it_saw(server: Server, work: Path) -> None:
    with provider(key=KEY) as den:
        configure(server, den.url)
        server.env["DEN_KEY"] = KEY
        done = server.cli("doctor", cwd=work)
        del server.env["DEN_KEY"]
        paid = [each for each in den.asked if each.body]
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0] for line in lines] == [
        f"ok    {name.replace('_', ' ')}" for name in NAMES if name not in ("workspace", "checkup")
    ]
    assert "DEN_KEY of this command's environment" in done.stdout
    assert "40 tokens in, 20 out" in done.stdout
    assert KEY not in done.stdout
    assert len(paid) == 2
    assert [each.body["max_tokens"] for each in paid] == [32, 256]


def test_a_wrong_key_is_exit_4_and_is_never_shown(server: Server, work: Path) -> None:
    with provider(key="another") as den:
        configure(server, den.url, api_key="sk-wrong-98765432")
        done = server.cli("doctor", "--json", cwd=work)
    assert done.returncode == 4, done.stderr
    told = json.loads(done.stdout)
    checks = {each["name"]: each for each in told["checks"]}
    assert told["ok"] is False
    assert checks["answer"]["status"] == "fail"
    assert checks["answer"]["code"] == "provider_auth"
    assert checks["answer"]["advice"].startswith("Set a key")
    assert checks["model_list"]["status"] == "warn"
    assert "tools" not in checks  # nothing more was asked
    assert "sk-wrong-98765432" not in done.stdout


def test_nobody_at_the_address_is_exit_1_at_once(server: Server, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configure(server, f"http://127.0.0.1:{port}/v1", api_key="")
    done = server.cli("doctor", cwd=work)
    assert done.returncode == 1, done.stderr
    assert f"FAIL  connection: Nothing listens on 127.0.0.1:{port}" in done.stdout
    assert "whether the server runs" in done.stdout
    assert "answer:" not in done.stdout


def test_the_planner_is_a_warning_unless_a_model_is_required(server: Server, work: Path) -> None:
    write(server, {})
    told = asked(server, work)
    assert states(told) == {"model": "warn"}
    assert told["model"]["code"] == "no_language_model"
    done = server.cli("doctor", "--require-model", cwd=work)
    assert done.returncode == 4
    assert "FAIL  model: offline/scout, which is no language model" in done.stdout


def test_without_a_server_it_is_exit_7_after_what_can_be_seen_here(server: Server) -> None:
    elsewhere = server.home / "elsewhere"
    write(server, {})
    done = cli(server.env, "doctor", "--no-autostart", "--data-dir", str(elsewhere))
    assert done.returncode == 7
    seen = [line[:4] for line in done.stdout.splitlines()]
    assert (seen[:4], seen[-2:]) == (["ok  "] * 4, ["FAIL", "    "])
    assert " sandbox: off unless a run asks for another; " in done.stdout
    assert "FAIL  server: no server answers at unix://" in done.stdout


# --- the route ----------------------------------------------------------------------------


def test_a_model_that_the_provider_does_not_have_fails_with_its_code(
    server: Server, work: Path
) -> None:
    missing = fails(404, "The model `tiny` does not exist", code="model_not_found")
    with provider(models=("little",), words=missing) as den:
        configure(server, den.url)
        told = asked(server, work)
    assert told["model_list"]["seen"] == "tiny is none of the models that it lists: little"
    assert (told["answer"]["status"], told["answer"]["code"]) == ("fail", "model_not_found")
    assert "tools" not in told


def test_a_name_that_means_nothing_is_refused_before_anything_is_asked(
    server: Server, work: Path
) -> None:
    with provider() as den:
        configure(server, den.url)
        told = asked(server, work, model="nobody/knows")
    assert states(told) == {"model": "fail"}
    assert told["model"]["code"] == "unknown_provider"
    assert den.asked == []


def test_a_key_that_is_missing_is_named_by_its_variable(server: Server, work: Path) -> None:
    configure(server, "http://127.0.0.1:9/v1", api_key="$NOWHERE_SET")
    told = asked(server, work)
    assert states(told) == {"model": "fail"}
    assert told["model"]["code"] == "key_missing"
    assert "NOWHERE_SET" in told["model"]["seen"]


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        (says("I can not do that."), "warn", ""),
        (fails(400, "This model does not support tools"), "fail", "tools_unsupported"),
        (says('<tool_call>{"name":"report_word","arguments":{"word":"marmot"}}</tool_call>'),
         "fail", "tools_unsupported"),
    ],
    ids=["words", "refused", "as text"],
)  # fmt: skip
def test_a_model_without_tools_is_told_from_one_with(
    server: Server, work: Path, call: Answer, status: str, code: str
) -> None:
    with provider(call=call) as den:
        configure(server, den.url)
        told = asked(server, work)
    assert (told["tools"]["status"], told["tools"]["code"]) == (status, code)
    assert told["tools"]["advice"]
    assert states(told) == ALL | {"tools": status}


def test_a_provider_that_does_not_count_is_a_warning(server: Server, work: Path) -> None:
    words = (200, [*(chunk(content=f"{word} ") for word in TEN), chunk("stop")])
    with provider(words=words) as den:
        configure(server, den.url)
        told = asked(server, work)
    assert told["usage"]["data"] == {"reported": False}
    assert states(told) == ALL | {"usage": "warn"}


def test_an_answer_in_one_piece_is_a_warning(server: Server, work: Path) -> None:
    with provider(words=says(" ".join(TEN))) as den:
        configure(server, den.url)
        told = asked(server, work)
    assert told["streaming"]["data"]["streams"] is False
    assert "proxy_buffering" in told["streaming"]["advice"]
    assert states(told) == ALL | {"streaming": "warn"}


def tls_until(days: int) -> ssl.SSLContext:
    """What a provider shows whose certificate ends so many days from now."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = AUTHORITY.issue_cert(
        "127.0.0.1", not_before=until - datetime.timedelta(days=9), not_after=until
    )
    certificate.configure_cert(context)
    return context


def test_over_tls_it_says_which_version_and_who_was_believed(server: Server, work: Path) -> None:
    with provider(tls=tls_until(5)) as den:
        configure(server, den.url)
        told = asked(server, work)
    assert states(told) == ALL
    assert told["connection"]["data"]["tls"] == "TLSv1.3"
    assert "authority.pem (SSL_CERT_FILE)" in told["connection"]["seen"]


def test_an_expired_certificate_is_named_with_what_it_was_checked_with(
    server: Server, work: Path
) -> None:
    with provider(tls=tls_until(-3)) as den:
        configure(server, den.url)
        told = asked(server, work)
    connection = told["connection"]
    assert (connection["status"], connection["code"]) == ("fail", "provider_tls")
    assert "its certificate has expired" in connection["seen"]
    assert "the system's certificates" in connection["seen"]
    assert list(told) == ["model", "key", "connection"]


def test_offline_nothing_is_sent(server: Server, work: Path) -> None:
    with provider() as den:
        configure(server, den.url)
        told = asked(server, work, offline=True)
    assert list(told) == ["model", "key", "context", "small_model"]
    assert den.asked == []


def test_a_window_that_nobody_knows_is_a_warning_with_the_key_to_set(
    server: Server, work: Path
) -> None:
    with provider() as den:
        configure(server, den.url, model={"context_window": 0})
        told = asked(server, work)
    assert told["context"]["status"] == "warn"
    assert "providers.den.models" in told["context"]["advice"]


def test_the_window_that_ollama_uses_is_told_from_the_one_that_is_possible(
    server: Server, work: Path
) -> None:
    running = {"models": [{"name": "tiny", "context_length": 4096}]}
    shown = {"model_info": {"tiny.context_length": 131_072}}
    with provider(others={"/api/ps": running, "/api/show": shown}) as den:
        configure(server, den.url, type="ollama")
        told = asked(server, work)
    assert told["context"]["status"] == "warn"
    assert "Ollama uses 4096 tokens of the 131072" in told["context"]["seen"]
    assert "OLLAMA_CONTEXT_LENGTH=32768" in told["context"]["advice"]


def test_a_wrong_body_is_refused_and_an_unknown_workspace_is_not_found(
    server: Server, work: Path
) -> None:
    workspace = server.workspace(work)
    status, error = server.call("POST", f"/v1/workspaces/{workspace}/doctor", {"offline": "no"})
    assert (status, error["code"]) == (400, "bad_request")
    status, error = server.call("POST", "/v1/workspaces/nope/doctor", {})
    assert (status, error["code"]) == (404, "workspace_not_found")


def test_each_check_is_told_when_it_is_made(server: Server, work: Path) -> None:
    with provider(hold=threading.Event()) as den:
        configure(server, den.url, api_key="")
        workspace = server.workspace(work)
        with opened(server, f"/v1/workspaces/{workspace}/doctor", {}) as answer:
            early = [json.loads(answer.readline())["name"] for _ in range(4)]
            assert den.hold is not None
            den.hold.set()
            rest = answer.read().splitlines()
    assert early == ["model", "key", "connection", "model_list"]
    assert json.loads(rest[-1])["ok"] is True


def test_who_hangs_up_ends_the_request_to_the_provider_with_it(server: Server, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        configure(server, f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key="")
        workspace = server.workspace(work)
        with opened(server, f"/v1/workspaces/{workspace}/doctor", {}):
            listener.accept()[0].close()  # a connection, and no more
            listing = listener.accept()[0]
            assert listing.recv(65_536).startswith(b"GET /v1/models ")
            listing.sendall(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            listing.close()
            asking = listener.accept()[0]
            asking.settimeout(10)
            assert asking.recv(65_536).startswith(b"POST /v1/chat/completions ")
        with asking:
            assert asking.recv(65_536) == b""
