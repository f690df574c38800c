"""Crush's event stream, byte by byte: what is in it, and that its body always ends properly."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crush_trio.limits import SEND_BLOCKED_S
from crush_trio.protocol.events import CRUSH_KINDS
from tests.e2e.kit import Server, eventually, script
from tests.e2e.sse_kit import Events, Wire, events

CLIENT = "6f1f0a0e-5b8e-4f6e-9a55-1f0f3a0b7c11"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it running."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


@pytest.fixture
def fresh(home: Path) -> Iterator[Server]:
    """A server of the test's own."""
    server = Server(home).start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


@pytest.fixture
def workspace(server: Server, project: Path) -> Iterator[str]:
    """An open workspace, which nobody follows any more at the end."""
    workspace = server.workspace(project)
    yield workspace
    eventually(lambda: subscribers(server) == 0)


@pytest.fixture
def session(server: Server, workspace: str) -> str:
    """A session of it."""
    return server.session(workspace)


def subscribers(server: Server) -> int:
    """How many there are."""
    return int(server.get("/v1/health")["subscribers"])


def ended_run(server: Server, workspace: str, session: str) -> str:
    """A run that has ended."""
    run = str(server.prompt(workspace, session, "list")["run_id"])
    server.ended(run)
    return run


def test_a_run_comes_in_crushs_kinds_and_envelope_and_nothing_else(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """R1: the head comes at once, before any event; what is published from then on is there."""
    tool = {"tool": "bash", "input": {"command": "echo hello"}}
    model = script(project / "m.json", [{"text": "Looking. "}, tool], [{"text": "Done."}])
    with events(server, workspace, f"client_id={CLIENT}") as stream:
        run = server.prompt(
            workspace, session, "go", model=model, permission_mode="allow", run_id="mine"
        )["run_id"]
        blocks = stream.until_end_of(run)
    assert all(block.event and block.id is None and not block.comment for block in blocks)
    assert {block.type for block in blocks} <= set(CRUSH_KINDS)
    assert {"message", "session", "agent_event", "run_complete"} <= {b.type for b in blocks}
    end = blocks[-1].payload
    assert (end["session_id"], end["text"], end["outcome"]) == (session, "Done.", "completed")
    states = {b.payload["id"]: b.payload for b in blocks if b.type == "message"}
    assert list(states.values()) == server.get(
        f"/v1/workspaces/{workspace}/sessions/{session}/messages"
    )


def test_open_messages_come_whole_and_at_most_every_33_ms(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """CW 3.4: never deltas; each state begins with the one before."""
    model = script(project / "m.json", [{"text": "größe 🦫 ", "tokens": 400, "every_ms": 1}])
    with events(server, workspace) as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        began = time.monotonic()
        blocks = stream.until_end_of(run)
        took = time.monotonic() - began
    texts = [
        part["data"]["text"]
        for block in blocks
        if block.type == "message" and block.payload["role"] == "assistant"
        for part in block.payload["parts"]
        if part["type"] == "text"
    ]
    assert texts[-1] == "größe 🦫 " * 400
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert 3 < len(texts) <= took / 0.033 + 3


def test_who_names_no_cursor_gets_nothing_at_the_start(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """CW 3.1: no snapshot, also not of a message that stands half written."""
    ended_run(server, workspace, session)
    model = script(project / "m.json", [{"text": "half "}, {"wait_ms": 60_000}])
    run = server.prompt(workspace, session, "go", model=model)["run_id"]
    eventually(lambda: "half" in str(server.get(messages_of(workspace, session))))
    with events(server, workspace) as plain, events(server, workspace, "after=now") as resumable:
        first = resumable.next()
        assert first is not None
        assert first.id is None
        assert first.payload["parts"][0]["data"]["text"] == "half "
        server.post(f"/v1/workspaces/{workspace}/permissions/skip", {"skip": True})
        only = plain.next()
        assert only is not None
        assert only.type == "config_changed"
        server.post(f"/v1/runs/{run}/cancel")
        assert [b.type for b in plain.until_end_of(run)][-1] == "run_complete"


def messages_of(workspace: str, session: str) -> str:
    """The path of a transcript."""
    return f"/v1/workspaces/{workspace}/sessions/{session}/messages"


def test_a_cursor_gives_every_later_event_once_with_its_id(fresh: Server, project: Path) -> None:
    """G8: by `after` and by `Last-Event-ID`, which wins; across a restart."""
    server, workspace = fresh, fresh.workspace(project)
    session = server.session(workspace)
    run = ended_run(server, workspace, session)
    journal = [e["seq"] for e in server.events(workspace) if e["type"] in CRUSH_KINDS]
    with events(server, workspace, "after=start") as stream:
        blocks = stream.until_end_of(run)
    assert [block.id for block in blocks] == journal
    server.stop()
    server.start()
    with events(server, workspace, "after=0", f"Last-Event-ID: {journal[2]}") as stream:
        assert [block.id for block in stream.until_end_of(run)] == journal[3:]
    with events(server, workspace, "", f"Last-Event-ID: {journal[-2]}") as stream:
        assert [block.id for block in stream.until_end_of(run)] == journal[-1:]


@pytest.mark.parametrize(
    ("query", "header", "reason"),
    [
        ("after=999999", "", "cursor_ahead"),
        ("", "Last-Event-ID: 999999", "cursor_ahead"),
        ("after=1&epoch=another", "", "epoch"),
    ],
)
def test_a_cursor_that_cannot_be_served_is_refused_before_the_head(
    server: Server, workspace: str, session: str, query: str, header: str, reason: str
) -> None:
    """G8, G14: 409, which is not the 404 that tells a client to create the workspace again."""
    ended_run(server, workspace, session)
    wire = Wire(server.socket_path)
    target = f"/v1/workspaces/{workspace}/events?{query}"
    assert wire.request(target, *[header] if header else []) == 409
    answer = json.loads(wire.exactly(int(wire.headers["content-length"])))
    assert answer["code"] == "resync_required"
    assert reason in answer["message"]
    assert wire.request("/v1/health") == 200, "the connection can still be used"
    wire.close()
    eventually(lambda: subscribers(server) == 0)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("client_id=editor-1", "bad_request"),
        ("kinds=run", "bad_request"),
        ("after=-1", "bad_cursor"),
        ("after=soon", "bad_cursor"),
    ],
)
def test_bad_parameters_are_400_even_for_an_unknown_workspace(
    server: Server, workspace: str, query: str, code: str
) -> None:
    """G14: one sentence; R20: the client's id is checked before the workspace is looked up."""
    for each in (workspace, "nowhere"):
        status, answer = server.call("GET", f"/v1/workspaces/{each}/events?{query}")
        assert (status, answer["code"]) == (400, code)


def test_only_an_unknown_workspace_is_404_and_a_known_one_is_opened(
    server: Server, workspace: str
) -> None:
    """R16: 404 tells a client that its workspace is gone, and creating it again cures that."""
    server.post(f"/v1/workspaces/{workspace}/close")
    assert not server.get(f"/v1/workspaces/{workspace}")["open"]
    with events(server, workspace, f"client_id={CLIENT}"):
        assert server.get(f"/v1/workspaces/{workspace}")["open"]
    path = server.get(f"/v1/workspaces/{workspace}")["path"]
    server.call("DELETE", f"/v1/workspaces/{workspace}?purge=true")
    status, answer = server.call("GET", f"/v1/workspaces/{workspace}/events?client_id={CLIENT}")
    assert (status, answer["code"]) == (404, "workspace_not_found")
    again = server.post("/v1/workspaces", {"path": path, "client_id": CLIENT})["id"]
    with events(server, again, f"client_id={CLIENT}") as stream:
        session = server.session(again)
        run = server.prompt(again, session, "list")["run_id"]
        stream.until_end_of(run)


def test_the_gate_stands_in_front_of_the_stream(server: Server, workspace: str) -> None:
    """G12: a browser's page does not get at the unix socket."""
    wire = Wire(server.socket_path)
    target = f"/v1/workspaces/{workspace}/events"
    assert wire.request(target, "Origin: https://evil.example") == 403
    wire.close()


def test_over_tcp_it_takes_a_token_and_is_the_same(home: Path, project: Path) -> None:
    """G12, R1: 401 without one; the head comes at once, though nothing happens."""
    tcp = Server(home, "--host", "tcp://127.0.0.1:0")
    tcp.env["CRUSH_TRIO_TOKEN"] = token = "correct-horse-battery-staple"
    tcp.start()
    port = int(tcp.url.rpartition(":")[2])
    head = {"Authorization": f"Bearer {token}"}
    with contextlib.ExitStack() as stack:
        stack.callback(tcp.kill)
        calls, stream = (http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in "12")
        stack.callback(calls.close)
        stack.callback(stream.close)
        body = json.dumps({"path": str(project)})
        calls.request("POST", "/v1/workspaces", body, {**head, "Content-Type": "application/json"})
        workspace = f"/v1/workspaces/{json.loads(calls.getresponse().read())['id']}"
        calls.request("GET", f"{workspace}/events")
        refused = calls.getresponse()
        assert (refused.status, json.loads(refused.read())["code"]) == (401, "unauthorized")
        stream.request("GET", f"{workspace}/events?after=now", headers=head)
        answer = stream.getresponse()
        assert answer.status == 200
        calls.request("POST", f"{workspace}/close", headers=head)
        assert calls.getresponse().read() == b""
        assert answer.read() == b"", "ended properly: IncompleteRead otherwise"


# --- the end of the body ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "purge"])
def test_the_body_ends_with_the_last_chunk_when_the_workspace_does(
    server: Server, project: Path, workspace: str, session: str, end: str
) -> None:
    """R2: after the last events of what was ended; the connection is used again."""
    model = script(project / "m.json", [{"text": "x"}, {"wait_ms": 60_000}])
    target = f"/v1/workspaces/{workspace}"
    with events(server, workspace) as stream, events(server, workspace, "after=start") as other:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        stream.until(lambda b: b.type == "message" and b.payload["role"] == "assistant")
        if end == "close":
            server.post(f"{target}/close")
        else:
            server.post(f"/v1/runs/{run}/cancel")
            server.ended(run)
            assert server.call("DELETE", f"{target}?purge=true")[0] == 200
        check_proper_ends(stream, other)
        assert stream.wire.request("/v1/health") == 200


def test_the_body_ends_with_the_last_chunk_when_the_server_stops(
    fresh: Server, project: Path
) -> None:
    """R2, G11: after the last events; one that is stuck meanwhile does not hold that up."""
    workspace = fresh.workspace(project)
    session = fresh.session(workspace)
    model = script(project / "m.json", [{"text": "x" * 65536, "tokens": 7}, {"wait_ms": 60_000}])
    with events(fresh, workspace) as stream, events(fresh, workspace, "after=start") as other:
        stuck = Wire(fresh.socket_path)
        assert stuck.request(f"/v1/workspaces/{workspace}/events?after=start") == 200
        fresh.prompt(workspace, session, "go", model=model)
        stream.until(lambda b: b.type == "message" and len(str(b.payload)) > 7 * 65536)
        assert fresh.process is not None
        fresh.process.send_signal(signal.SIGTERM)
        check_proper_ends(stream, other)
        assert stream.wire.to_the_end() == b""
        assert fresh.wait_exit() == 0
        stuck.close()


def check_proper_ends(*streams: Events) -> None:
    """Each ends by itself, after a run's terminal event."""
    with ThreadPoolExecutor() as readers:
        for blocks in readers.map(Events.rest, streams):
            assert [block.type for block in blocks if block.type][-1] == "run_complete"
    assert all(stream.ended for stream in streams)


def test_a_client_without_chunks_gets_the_plain_body_and_then_the_end(
    server: Server, workspace: str, session: str
) -> None:
    """R2: HTTP/1.0; the end of the connection is the end of the body."""
    wire = Wire(server.socket_path)
    assert wire.request(f"/v1/workspaces/{workspace}/events", version="1.0") == 200
    assert "transfer-encoding" not in wire.headers
    assert wire.headers["connection"] == "close"
    ended_run(server, workspace, session)
    server.post(f"/v1/workspaces/{workspace}/close")
    text = wire.to_the_end()
    wire.close()
    assert text.startswith(b'data: {"type":"')
    assert text.endswith(b"\n\n")
    assert b'"run_complete"' in text


def test_head_has_the_head_alone_and_other_methods_are_refused(
    server: Server, workspace: str
) -> None:
    """Contract 3: HEAD subscribes nobody; there is no answer to a preflight."""
    wire = Wire(server.socket_path)
    target = f"/v1/workspaces/{workspace}/events"
    assert wire.request(target, method="HEAD") == 200
    assert wire.headers["content-type"] == "text/event-stream"
    assert wire.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in wire.headers
    assert subscribers(server) == 0
    assert wire.request("/v1/version") == 200, "no body follows a HEAD"
    assert json.loads(wire.exactly(int(wire.headers["content-length"])))["protocol"] == 1
    assert wire.request(target, method="OPTIONS") == 405
    wire.close()
    eventually(lambda: subscribers(server) == 0)


# --- subscribers --------------------------------------------------------------------------


@pytest.mark.parametrize("talks", [False, True])
def test_a_subscriber_that_hangs_up_is_noticed_though_nothing_is_sent(
    server: Server, workspace: str, talks: bool
) -> None:
    """G9: also one that has already sent something behind its request."""
    wire = Wire(server.socket_path)
    assert wire.request(f"/v1/workspaces/{workspace}/events") == 200
    if talks:
        wire.sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert subscribers(server) == 1
    assert subscribers(server) == 1
    wire.close()
    eventually(lambda: subscribers(server) == 0)


def test_one_of_twenty_subscribers_that_stalls_delays_nobody_and_is_cut_off(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """G9: a clean end is impossible there; the others get everything, and each the same."""
    big = "0123456789abcdef" * 4096
    model = script(project / "m.json", [{"text": big, "tokens": 6, "every_ms": 60}])
    with contextlib.ExitStack() as stack:
        stalled = Wire(server.socket_path)
        stack.callback(stalled.close)
        stalled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert stalled.request(f"/v1/workspaces/{workspace}/events") == 200
        streams: list[Events] = [stack.enter_context(events(server, workspace)) for _ in range(19)]
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        ends = [stream.until_end_of(run)[-1].payload for stream in streams]
        assert all(end == ends[0] for end in ends)
        assert len(ends[0]["text"]) == len(big) * 6
        eventually(lambda: subscribers(server) == 19, timeout=SEND_BLOCKED_S + 5)
        server.post(f"/v1/workspaces/{workspace}/close")
        for stream in streams:
            stream.rest()
            assert stream.ended


def test_too_long_strings_are_cut_so_that_an_event_fits_a_frame(
    server: Server, project: Path, workspace: str, session: str
) -> None:
    """Contract 4: 512 KiB; Crush's envelope has no place for what was cut."""
    model = script(project / "m.json", [{"text": "a" * 65536, "tokens": 20}])
    with events(server, workspace) as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        blocks = stream.until_end_of(run)
    assert all(len(json.dumps(block.event)) <= 512 * 1024 for block in blocks)
    assert len(server.record(run)["text"]) == 20 * 65536
    assert 0 < len(blocks[-1].payload["text"]) < 512 * 1024


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_follows_the_stream_to_its_proper_end(
    server: Server, workspace: str, session: str
) -> None:
    """R2: curl fails with 18 on a body that is cut short."""
    url = f"http://localhost/v1/workspaces/{workspace}/events"
    curl = subprocess.Popen(
        ["curl", "-sSN", "--unix-socket", server.socket_path, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: subscribers(server) == 1)
    run = ended_run(server, workspace, session)
    server.post(f"/v1/workspaces/{workspace}/close")
    out, err = curl.communicate(timeout=20)
    assert (curl.returncode, err) == (0, "")
    assert [run in line for line in out.splitlines() if '"run_complete"' in line] == [True]
