"""What every route can rely on: bodies read and bounded, errors as JSON, lines in the log."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from quart import websocket
from quart_trio.wrappers import TrioResponse

from crush_trio.limits import BODY_AGENT_BYTES, BODY_BYTES
from crush_trio.protocol.errors import DecodeError, Refused, StoreError
from crush_trio.server.edge import access_log as access_log_module
from crush_trio.server.edge import app_base
from crush_trio.server.edge.access_log import Access, AccessLog
from crush_trio.server.edge.answers import empty_response, json_response
from crush_trio.server.edge.app_base import EdgeApp, create_quart_app
from crush_trio.server.edge.call import accept_websocket, current_call
from crush_trio.server.edge.gate import Gate
from tests.server.edge_kit import Wire, serving

SECRET = "hunter2-is-a-secret"


class Rows:
    """The lines of an access log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "access.log")


@pytest.fixture
def app(rows: Rows) -> Iterator[EdgeApp]:
    log = AccessLog(rows.path)
    app = create_quart_app(Gate(uid=os.getuid()), log)
    errors: dict[str, Any] = {
        "refused": lambda: Refused("queue_full", "Too many prompts wait; try again later."),
        "decode": lambda: DecodeError("expected int at $.limits.max_steps"),
        "store": lambda: StoreError("disk_full", "The disk of the database is full."),
        "bug": lambda: ValueError("a bug"),
        "group": lambda: ExceptionGroup("", [ExceptionGroup("", [Refused("open_runs", "Wait.")])]),
        "bugs": lambda: ExceptionGroup("", [Refused("open_runs", "Wait."), KeyError("two bugs")]),
    }

    @app.get("/raises/<kind>")
    async def raises(kind: str) -> TrioResponse:
        password = SECRET * len(kind)
        assert kind in password or kind
        raise errors[kind]()

    @app.post("/v1/workspaces/<w>/agent")
    @app.post("/v1/workspaces/<w>/permissions/grant")
    @app.post("/v1/workspaces/<w>/config/set")
    async def size(w: str) -> TrioResponse:
        return json_response(b"%d" % len(current_call().body))

    @app.get("/v1/runs/<run_id>")
    async def run(run_id: str) -> TrioResponse:
        return json_response(b"1")

    @app.post("/v1/prompt")
    async def prompt() -> TrioResponse:
        current_call().run_id = "run-7"
        return empty_response(202)

    @app.get("/v1/slow")
    async def slow() -> TrioResponse:
        await trio.Event().wait()
        return json_response(b"1")

    @app.websocket("/v1/ws/<kind>")
    async def ws(kind: str) -> None:
        if kind != "fine":
            raise errors[kind]()
        await accept_websocket()
        await websocket.receive()

    yield app
    log.close()


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "code", "retryable"),
    [
        ("GET /raises/refused", 429, "queue_full", True),
        ("GET /raises/decode", 400, "bad_request", False),
        ("GET /raises/store", 507, "disk_full", True),
        ("GET /raises/bug", 500, "internal", False),
        ("GET /raises/group", 409, "open_runs", False),
        ("GET /raises/bugs", 500, "internal", False),
        ("GET /raises/unknown", 500, "internal", False),
        ("GET /nowhere", 404, "not_found", False),
        ("GET //nowhere", 404, "not_found", False),
        ("DELETE /v1/slow", 405, "method_not_allowed", False),
        ("OPTIONS /v1/slow", 405, "method_not_allowed", False),
        ("PUT /v1/slow/", 405, "method_not_allowed", False),
        ("GET ?x=1", 400, "bad_request", False),
        ("OPTIONS *", 400, "bad_request", False),
    ],
)
async def test_every_error_is_json_with_message_code_and_retryable(
    app: EdgeApp, tmp_path: Path, target: str, status: int, code: str, retryable: bool
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        for _ in range(2):  # and the connection lives on
            method, path = target.split()
            answer = await wire.request(method, path)
            assert answer.status == status
            assert answer.json.keys() == {"message", "code", "retryable"}
            assert (answer.code, answer.json["retryable"]) == (code, retryable)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert ("allow" in answer.headers) == (status == 405)


async def test_an_unexpected_error_is_logged_without_what_variables_held(
    app: EdgeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app, tmp_path) as server:
        answer = await (await server.connect()).request("GET", "/raises/bugs")
    assert b"two bugs" not in answer.body
    assert "two bugs" in caplog.text
    assert "Traceback" in caplog.text
    assert f"'{SECRET}'" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("refused", 429, "queue_full"), ("decode", 400, "bad_request"), ("bug", 500, "internal")],
)
async def test_an_error_before_the_upgrade_is_the_same_json(
    app: EdgeApp, tmp_path: Path, kind: str, status: int, code: str
) -> None:
    async with serving(app, tmp_path) as server:
        answer = await upgrade(await server.connect(), f"/v1/ws/{kind}")
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["x-content-type-options"] == "nosniff"


async def upgrade(wire: Wire, target: str) -> Any:
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return await wire.request("GET", target, headers)


async def test_an_error_outside_of_any_handler_is_json_too(
    app: EdgeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: object) -> None:
        raise OSError("no adapter today")

    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        with monkeypatch.context() as patch:
            patch.setattr(app, "create_url_adapter", fail)
            answer = await wire.request("GET", "/v1/runs/r")
        assert (answer.status, answer.code) == (500, "internal")
        assert (await wire.request("GET", "/v1/runs/r")).status == 200
    assert "no adapter today" in caplog.text


async def test_a_stream_that_fails_is_cut_short_rather_than_ended(
    app: EdgeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/v1/stream")
    async def stream() -> TrioResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("half way")

        return TrioResponse(chunks())

    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(h11.RemoteProtocolError):
            await wire.answer()
    assert "half way" in caplog.text


@pytest.mark.parametrize("host", ["", "a b", "[", "x" * 3000, "\xff\xfe", "a@b", "evil.example:x"])
async def test_a_strange_host_on_the_unix_socket_does_not_matter(
    app: EdgeApp, tmp_path: Path, host: str
) -> None:
    async with serving(app, tmp_path) as server:
        answer = await (await server.connect()).request("GET", "/v1/runs/r", host=host)
        assert answer.status in (200, 400)
        assert answer.status == 200 or answer.code == "bad_request"


async def test_an_absolute_target_is_taken_on_the_unix_socket(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        target = "http://api.crush.localhost/v1/runs/r?x=1"
        assert (await (await server.connect()).request("GET", target)).status == 200


async def test_an_answer_without_a_body_has_no_content_type(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        answer = await (await server.connect()).request("POST", "/v1/prompt")
        assert (answer.status, answer.body) == (202, b"")
        assert "content-type" not in answer.headers


# --- bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/workspaces/w/agent", BODY_AGENT_BYTES),
        ("/v1/workspaces/w/permissions/grant", BODY_AGENT_BYTES),
        ("/v1/workspaces/w/config/set", BODY_BYTES),
    ],
)
async def test_a_body_as_large_as_its_route_takes_arrives_whole_and_one_byte_more_does_not(
    app: EdgeApp, tmp_path: Path, path: str, limit: int
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        assert (await wire.request("POST", path, body=b"x" * limit)).json == limit
        answer = await wire.request("POST", path, body=b"x" * (limit + 1))
        assert (answer.status, answer.code) == (413, "body_too_large")
        if "connection" in answer.headers:  # the last byte was still on its way
            assert await wire.seconds_to_eof(within=3) < 2
        else:
            assert (await wire.request("POST", path, body=b"x")).json == 1


async def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(
    app: EdgeApp, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("POST /v1/prompt HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
        with trio.fail_after(2):
            answer = await wire.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert await wire.seconds_to_eof(within=3) < 2


async def test_a_chunked_body_without_end_is_cut_at_the_limit(app: EdgeApp, tmp_path: Path) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("POST /v1/prompt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_BYTES // 65536 + 1):
            await wire.send(chunk)
        with trio.fail_after(2):
            answer = await wire.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"


async def test_a_client_that_sends_all_of_a_refused_body_can_still_read_the_answer(
    app: EdgeApp, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        answer = await wire.request("POST", "/v1/prompt", body=b"x" * (8 * BODY_BYTES))
        assert (answer.status, answer.code) == (413, "body_too_large")


async def test_a_body_that_does_not_arrive_is_not_waited_for(rows: Rows, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_base, "BODY_TIMEOUT_S", 0.3)
        app = create_quart_app(Gate(uid=os.getuid()))

    @app.post("/v1/prompt")
    async def prompt() -> TrioResponse:
        raise AssertionError("entered without its body")

    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        await wire.send("POST /v1/prompt HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        with trio.fail_after(3):
            answer = await wire.answer()
        assert (answer.status, answer.code) == (408, "request_timeout")


async def test_two_lengths_and_length_with_chunks_are_refused(app: EdgeApp, tmp_path: Path) -> None:
    pairs = [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length: -1",
        "Content-Length: 0x2",
        "X-Folded: a\r\n b",
        "X-Space : a",
    ]
    async with serving(app, tmp_path) as server:
        for pair in pairs:
            wire = await server.connect()
            await wire.send(f"POST /v1/prompt HTTP/1.1\r\nHost: x\r\n{pair}\r\n\r\n{{}}\r\n")
            answer = await wire.answer()
            # h11 unfolds a folded header; of two readings of a length it takes none.
            assert answer.status in ((202,) if "Folded" in pair else (400, 501)), pair


# --- the access log ------------------------------------------------------------------------


async def test_each_request_is_one_line_that_holds_no_header_query_or_path(
    app: EdgeApp, rows: Rows, tmp_path: Path
) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        secret = {"Authorization": f"Bearer {SECRET}", "X-Secret": SECRET}
        await wire.request("GET", f"/v1/runs/run-1?token={SECRET}", secret)
        await wire.request("POST", "/v1/prompt", secret, b'"%s"' % SECRET.encode())
        await wire.request("GET", f"/{SECRET}")
        await wire.request("GET", "/v1/runs/run-2", {"Origin": SECRET})
        gone = await server.connect()
        await gone.send("GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        gone.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
        refused = await upgrade(await server.connect(), "/v1/ws/refused")
        assert refused.status == 429
        talk = await server.connect()
        head = "GET /v1/ws/fine HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        await talk.send(f"{head}\r\n{key}\r\n\r\n")
        assert b" 101 " in await talk.stream.receive_some(4096)
        talk.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert SECRET not in rows.path.read_text()
    lines = rows.all()
    wanted = ("time", "peer", "principal", "method", "route", "status", "run_id", "duration_ms")
    assert all(tuple(line) == wanted for line in lines)
    assert all(line["peer"] == f"unix pid={os.getpid()} uid={os.getuid()}" for line in lines)
    assert [
        (line["principal"], line["route"], line["status"], line["run_id"]) for line in lines
    ] == [
        ("local", "/v1/runs/<run_id>", 200, "run-1"),
        ("local", "/v1/prompt", 202, "run-7"),
        ("local", None, 404, None),
        (None, "/v1/runs/<run_id>", 403, "run-2"),
        ("local", "/v1/slow", 499, None),
        ("local", "/v1/ws/<kind>", 429, None),
        ("local", "/v1/ws/<kind>", 101, None),
    ]
    assert all(line["duration_ms"] >= 0 for line in lines)


def test_the_log_is_private_bounded_and_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log_module, "ACCESS_LOG_BYTES", 2000)
    monkeypatch.setattr(access_log_module, "ACCESS_LOG_FILES", 2)
    (tmp_path / "access.log").touch(0o644)
    before = os.umask(0)
    try:
        log = AccessLog(tmp_path / "access.log")
        assert stat.S_IMODE((tmp_path / "access.log").stat().st_mode) == 0o600
        for number in range(100):
            log.write(Access("unix", "local", "GET", "/v1/x", 200, f"run-{number}", 1.0))
        log.close()
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["access.log", "access.log.1", "access.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert json.loads(files[0].read_text().splitlines()[-1])["run_id"] == "run-99"


def test_a_log_that_cannot_be_written_says_so_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log_module, "ACCESS_LOG_BYTES", 200)
    log = AccessLog(tmp_path / "access.log")
    (tmp_path / "access.log.1").mkdir()  # so that rotating fails
    for number in range(20):
        log.write(Access("unix", "local", "GET", "/v1/x", 200, f"run-{number}", 1.0))
    log.close()
    assert caplog.text.count("access.log cannot be written") == 1
