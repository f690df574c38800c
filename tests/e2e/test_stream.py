"""The event stream as a client that was not written here sees it (G8, G9)."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.kit import Json, Server, eventually, script


def rebuilt_text(frames: list[Json], message: str) -> str:
    """The text of a message from its deltas, checking each offset."""
    text = ""
    for frame in frames:
        if frame["type"] == "message_delta" and frame["message_id"] == message:
            assert frame["offset"] == len(text), frame
            text += frame["text"]
    return text


def test_deltas_rebuild_the_stored_text_and_carry_at_most_160_fixed_bytes(
    server: Server, project: Path
) -> None:
    """G8, contract 4: offsets are code points; the whole message comes at its end."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "größe 🦫 ", "tokens": 300, "every_ms": 1}])
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        frames = stream.until_end_of(run)
    record = server.record(run)
    assert rebuilt_text(frames, record["message_id"]) == record["text"] == "größe 🦫 " * 300
    deltas = [frame for frame in frames if frame["type"] == "message_delta"]
    for delta in deltas:
        fixed = len(json.dumps({**delta, "text": ""}, separators=(",", ":")))
        assert fixed <= 160
    assert stream.frames <= len(frames)


def test_a_subscriber_that_joins_in_the_middle_gets_the_present_state_first(
    server: Server, project: Path
) -> None:
    """G8: the open message whole, then its deltas, and nothing is missing or doubled."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(
        project / "m.json", [{"text": "first "}, {"wait_ms": 400}, {"text": "x", "tokens": 50}]
    )
    run = server.prompt(workspace, session, "go", model=model)["run_id"]
    eventually(lambda: "first" in str(_snapshot(server, workspace, session)["messages"]))
    with server.stream(workspace, "after=now") as stream:
        frames = stream.until_end_of(run)
    present = next(f for f in frames if f["type"] == "message" and "seq" not in f)
    text = present["payload"]["payload"]["parts"][0]["data"]["text"]
    for delta in (f for f in frames if f["type"] == "message_delta"):
        assert delta["offset"] == len(text)
        text += delta["text"]
    assert text == server.record(run)["text"]


def test_a_cursor_gives_every_later_event_once_and_start_gives_all(
    server: Server, project: Path
) -> None:
    """G8: gap-free from any cursor; `replayed` marks where the live part begins."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    run = server.prompt(workspace, session, "list")["run_id"]
    server.ended(run)
    everything = server.events(workspace)
    last = everything[-1]["seq"]
    assert [e["seq"] for e in everything] == list(range(1, last + 1))
    for cursor in (1, last // 2, last):
        later = server.events(workspace, f"after={cursor}")
        assert [e["seq"] for e in later] == list(range(cursor + 1, last + 1))


@pytest.mark.parametrize(
    ("query", "reason"),
    [("after=999999", "cursor_ahead"), ("after=1&epoch=another", "epoch")],
)
def test_a_cursor_that_cannot_be_served_gets_exactly_one_resync(
    server: Server, project: Path, query: str, reason: str
) -> None:
    """G8: and the stream goes on behind it."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    server.ended(server.prompt(workspace, session, "list")["run_id"])
    with server.stream(workspace, query) as stream:
        run = server.prompt(workspace, session, "list")["run_id"]
        frames = stream.until_end_of(run)
    resyncs = [frame for frame in frames if frame["type"] == "resync"]
    assert [frame["reason"] for frame in resyncs] == [reason]


def test_filters_select_kinds_and_sessions(server: Server, project: Path) -> None:
    """Contract 4: `kinds` and `session_id`."""
    workspace = server.workspace(project)
    one, two = server.session(workspace), server.session(workspace)
    for session in (one, two):
        server.ended(server.prompt(workspace, session, "list")["run_id"])
    kinds = {e["type"] for e in server.events(workspace, "after=start&kinds=run,run_complete")}
    assert kinds == {"run", "run_complete"}
    of_one = server.events(workspace, f"after=start&session_id={one}")
    assert of_one
    assert two not in str(of_one)


def test_detail_snapshot_sends_whole_states_and_no_deltas(server: Server, project: Path) -> None:
    """Contract 4: at most one state of an open message every 33 ms."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "word ", "tokens": 100, "every_ms": 3}])
    with server.stream(workspace, "after=now&detail=snapshot") as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        frames = stream.until_end_of(run)
    assert not [f for f in frames if f["type"] == "message_delta"]
    states = [f for f in frames if f["type"] == "message" and "seq" not in f]
    assert 1 <= len(states) < 40


def test_applying_all_events_gives_the_state_of_a_snapshot(server: Server, project: Path) -> None:
    """G8: sessions, messages and runs, from the events alone."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    for prompt in ("list", "show README.md"):
        server.ended(server.prompt(workspace, session, prompt)["run_id"])
    state: dict[str, dict[str, Any]] = {"message": {}, "session": {}, "run": {}}
    for event in server.events(workspace):
        inner = event["payload"]
        if event["type"] in state:
            state[event["type"]][inner["payload"]["id"]] = inner["payload"]
    snapshot = _snapshot(server, workspace, session)
    assert {m["id"]: m for m in snapshot["messages"]} == state["message"]
    assert snapshot["session"] == state["session"][session]
    records = {r["id"]: {**r, "text": ""} for r in server.get("/v1/runs")["runs"]}
    assert records == state["run"]


def test_a_subscriber_that_stops_reading_delays_nobody(server: Server, project: Path) -> None:
    """G9: neither the run, nor the other subscriber, nor the shutdown."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "word " * 20, "tokens": 20_000}])
    stalled = socket.socket(socket.AF_UNIX)
    stalled.connect(server.socket_path)
    stalled.sendall(
        f"GET /v1/workspaces/{workspace}/ws?after=start HTTP/1.1\r\nHost: x\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert stalled.recv(12) == b"HTTP/1.1 101"
    with server.stream(workspace, "after=now&kinds=run_complete") as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        stream.until_end_of(run)
    assert server.ended(run)["outcome"] == "completed"
    assert server.stop(timeout=12) == 0
    stalled.close()


def test_a_shutdown_says_bye_and_closes_with_1001(server: Server, project: Path) -> None:
    """G11, contract 4: subscribers get the last events first."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"silence": True}])
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=hold, run_id="held")["run_id"]
        stream.until(lambda f: f["type"] == "run" and "model" in str(f))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        frames = stream.until(lambda f: f["type"] == "bye")
        with pytest.raises(ConnectionClosed) as closed:
            stream.next()
    ends = [f["payload"]["payload"] for f in frames if f["type"] == "run_complete"]
    assert [(e["run_id"], e["outcome"]) for e in ends] == [(run, "cancelled")]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert server.wait_exit() == 0


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("after=soon", 400, "bad_cursor"),
        ("after=-1", 400, "bad_cursor"),
        ("kinds=weather", 400, "bad_request"),
        ("detail=all", 400, "bad_request"),
        ("colour=red", 400, "bad_request"),
        ("session_id=nobody", 400, "bad_request"),
    ],
)
def test_a_bad_stream_request_is_refused_before_the_upgrade_with_json(
    server: Server, project: Path, query: str, status: int, code: str
) -> None:
    """G14: one sentence, a code, and no websocket."""
    workspace = server.workspace(project)
    with pytest.raises(InvalidStatus) as refused, server.stream(workspace, query):
        pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["code"] == code


def test_an_unknown_workspace_is_refused_before_the_upgrade(server: Server) -> None:
    """G14: 404, which a client takes to mean "create it again" (CW 2.1)."""
    with pytest.raises(InvalidStatus) as refused, server.stream("nowhere"):
        pass
    assert refused.value.response.status_code == 404


def _snapshot(server: Server, workspace: str, session: str) -> Any:
    return server.get(f"/v1/workspaces/{workspace}/sessions/{session}/snapshot")
