"""Several workspaces on one socket, to a client that was not written here (contract 3, 4)."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import unix_connect

from crush_trio import limits
from tests.e2e.kit import Json, Server, eventually, is_end_of, script
from tests.e2e.streams import Many, ended, is_event, many, with_limits

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it running."""
    with ended(Server(tmp_path_factory.mktemp("h"))) as server:
        yield server


@pytest.fixture
def two(shared: Server, tmp_path: Path) -> tuple[str, str]:
    """Two new workspaces."""
    return shared.workspace(tmp_path / "one"), shared.workspace(tmp_path / "two")


def gap_free(events: list[Json], after: int = 0) -> bool:
    """Whether these are all events after ``after``, in order."""
    return [e["seq"] for e in events] == list(range(after + 1, after + 1 + len(events)))


def close_code(stream: Many) -> int:
    """The code with which the server closes, once all frames before it are read."""
    with pytest.raises(ConnectionClosed) as closed:
        stream.until(lambda _: False)
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def test_two_busy_workspaces_share_a_socket_and_neither_misses_anything(
    shared: Server, tmp_path: Path, two: tuple[str, str]
) -> None:
    """G8: each has its own gap-free numbering, its own hello and its own replayed."""
    model = script(tmp_path / "m.json", [{"text": "word ", "tokens": 400, "every_ms": 1}])
    with many(shared) as stream:
        for workspace in two:
            assert stream.subscribe(workspace, after="start")["type"] == "subscribed"
        runs = [
            shared.prompt(workspace, shared.session(workspace), "go", model=model)["run_id"]
            for workspace in two
        ]
        open_ones = set(runs)
        while open_ones:
            frame = stream.next()
            open_ones -= {run for run in open_ones if is_end_of(frame, run)}
    for workspace, run in zip(two, runs, strict=True):
        mine = stream.events_of(workspace)
        assert gap_free(mine)
        assert is_end_of(mine[-1], run)
        controls = [f for f in stream.seen if not is_event(f) and f.get("workspace_id")]
        of_it = [f["type"] for f in controls if f["workspace_id"] == workspace]
        assert [kind for kind in of_it if kind != "message"] == ["subscribed", "hello", "replayed"]
        record = shared.record(run)
        session = record["session_id"]
        deltas = [f for f in stream.seen if f["type"] == "message_delta"]
        text = "".join(f["text"] for f in deltas if f["session_id"] == session)
        assert text == record["text"] == "word " * 400


def test_after_a_dropped_connection_each_workspace_goes_on_from_its_own_cursor(
    shared: Server, tmp_path: Path, two: tuple[str, str]
) -> None:
    """G8: every event once across connections."""
    model = script(tmp_path / "m.json", [{"tool": "ls", "input": {}}], [{"text": "done"}])
    events: dict[str, list[Json]] = {workspace: [] for workspace in two}
    runs: list[str] = []
    for drop_after in (1, 3, 7, 12):
        runs += [
            shared.prompt(w, shared.session(w), "go", model=model, permission_mode="allow")[
                "run_id"
            ]
            for w in two
        ]
        with many(shared) as stream:
            for workspace, seen in events.items():
                cursor = seen[-1]["seq"] if seen else 0
                stream.subscribe(workspace, after=cursor)
            stream.until(is_event)
            for _ in range(drop_after):
                stream.next()
            stream.connection.socket.close()  # no goodbye
            for workspace, seen in events.items():
                seen += stream.events_of(workspace)
    for run in runs:
        shared.ended(run)
    with many(shared) as stream:
        for workspace, seen in events.items():
            stream.subscribe(workspace, after=seen[-1]["seq"] if seen else 0)
            stream.until_control(workspace, "replayed")
        for workspace, seen in events.items():
            seen += stream.events_of(workspace)
    for workspace, seen in events.items():
        assert gap_free(seen)
        assert seen == shared.events(workspace)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"after": "soon"}, "bad_cursor"),
        ({"after": -1}, "bad_cursor"),
        ({"after": 1.5}, "bad_cursor"),
        ({"after": True}, "bad_cursor"),
        ({"kinds": "weather"}, "bad_request"),
        ({"kinds": ["run"]}, "bad_request"),
        ({"detail": "all"}, "bad_request"),
        ({"colour": "red"}, "bad_request"),
        ({"session_id": "nobody"}, "bad_request"),
    ],
)
def test_a_wrong_parameter_is_an_error_object_and_changes_nothing(
    shared: Server, two: tuple[str, str], more: dict[str, Any], code: str
) -> None:
    """G14: the socket stays, and so does the subscription that was there."""
    workspace = two[0]
    with many(shared) as stream:
        assert stream.subscribe(workspace, after="start")["type"] == "subscribed"
        refused = stream.subscribe(workspace, **more)
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", code, False)
        assert refused["message"].endswith(".")
        run = shared.prompt(workspace, shared.session(workspace), "list")["run_id"]
        stream.until_end_of(run)
        assert gap_free(stream.events_of(workspace))


def test_an_unknown_workspace_and_the_65th_are_error_objects(
    shared: Server, tmp_path: Path
) -> None:
    """Contract 3: at most 64 on one socket; a replaced one does not count twice."""
    every = [shared.workspace(tmp_path / f"w{number}") for number in range(65)]
    with many(shared) as stream:
        assert stream.subscribe("nowhere")["code"] == "workspace_not_found"
        for workspace in every[:64]:
            assert stream.subscribe(workspace)["type"] == "subscribed"
        assert stream.subscribe(every[64])["code"] == "too_many_streams"
        assert stream.subscribe(every[0])["type"] == "subscribed"
        stream.send({"type": "unsubscribe", "workspace_id": every[0]})
        assert stream.subscribe(every[64])["type"] == "subscribed"


def test_a_second_subscribe_replaces_the_first_and_unsubscribe_ends_it(
    shared: Server, two: tuple[str, str]
) -> None:
    """Contract 3: after the answer everything of this workspace belongs to the newest order."""
    one, other = two
    with many(shared) as stream:
        stream.subscribe(one, after="start")
        shared.ended(shared.prompt(one, shared.session(one), "list")["run_id"])
        stream.subscribe(one, after="start", kinds="run_complete")
        stream.until(lambda f: f["type"] == "replayed" and f["seq"] > 0)
        last = max(n for n, f in enumerate(stream.seen) if f["type"] == "subscribed")
        assert {f["type"] for f in stream.seen[last:] if is_event(f)} == {"run_complete"}
        for _ in range(2):  # the second finds nothing to end
            stream.send({"type": "unsubscribe", "workspace_id": one})
            stream.until_control(one, "unsubscribed")
        stream.subscribe(other, after="now")
        shared.ended(shared.prompt(one, shared.session(one), "list")["run_id"])
        run = shared.prompt(other, shared.session(other), "list")["run_id"]
        frames = stream.until_end_of(run)
        assert not [f for f in frames if f.get("workspace_id") == one]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not json", 4400),
        ("[1]", 4400),
        ('{"workspace_id": "w"}', 4400),
        ('{"type": "subscribe"}', 4400),
        ('{"type": "unsubscribe", "workspace_id": 1}', 4400),
        (b"\x00\xff", 4400),
        (json.dumps({"type": "x" * limits.FRAME_IN_BYTES}), 1009),
    ],
)
def test_a_frame_that_cannot_be_understood_ends_the_socket(
    shared: Server, frame: str | bytes, code: int
) -> None:
    """Contract 4: 4400; 1009 for more than 64 KiB."""
    with many(shared) as stream:
        stream.connection.send(frame)
        assert close_code(stream) == code


def test_pings_are_answered_and_unknown_types_are_ignored(shared: Server) -> None:
    """Contract 4: also on a socket that carries nothing."""
    with many(shared) as stream:
        stream.send({"type": "weather"}, {"type": "pong"}, {"type": "ping"})
        assert stream.next() == {"type": "pong"}


def test_a_query_on_this_socket_is_refused_before_the_upgrade(shared: Server) -> None:
    """G14: its parameters go into ``subscribe``."""
    with (
        pytest.raises(InvalidStatus) as refused,
        unix_connect(shared.socket_path, uri="ws://localhost/v1/ws?after=1", compression=None),
    ):
        pass
    assert refused.value.response.status_code == 400


def test_a_workspace_that_is_closed_or_purged_says_bye_and_the_socket_goes_on(
    shared: Server, two: tuple[str, str]
) -> None:
    """Contract 3: the other streams are not touched; a closed one can be asked for again."""
    one, other = two
    with many(shared) as stream:
        for workspace in two:
            stream.subscribe(workspace)
        shared.post(f"/v1/workspaces/{one}/close")
        assert stream.until_control(one, "bye")[-1]["reason"] == "closed"
        assert stream.subscribe(one)["type"] == "subscribed"
        assert shared.call("DELETE", f"/v1/workspaces/{one}?purge=true")[0] == 200
        assert stream.until_control(one, "bye")[-1]["reason"] == "purged"
        assert stream.subscribe(one)["code"] == "workspace_not_found"
        run = shared.prompt(other, shared.session(other), "list")["run_id"]
        stream.until_end_of(run)


def test_a_shutdown_says_bye_for_each_workspace_and_then_for_the_socket(
    server: Server, home: Path
) -> None:
    """G11: the last events first; a socket that carries nothing gets its last word, too."""
    two = server.workspace(home / "one"), server.workspace(home / "two")
    hold = script(home / "hold.json", [{"silence": True}])
    with many(server) as stream, many(server) as bare:
        runs = []
        for workspace in two:
            stream.subscribe(workspace)
            session = server.session(workspace)
            runs.append(server.prompt(workspace, session, "go", model=hold)["run_id"])
            stream.until(lambda f: f["type"] == "run" and "model" in str(f))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert close_code(stream) == close_code(bare) == 1001
        assert stream.seen[-1] == bare.seen[-1] == {"type": "bye", "reason": "shutdown"}
        byes = [f["workspace_id"] for f in stream.seen[:-1] if f["type"] == "bye"]
        assert sorted(byes) == sorted(two)
        for run in runs:
            assert [f for f in stream.seen if is_end_of(f, run)]
    assert server.wait_exit() == 0


def test_a_busy_workspace_does_not_starve_a_quiet_one(
    shared: Server, tmp_path: Path, two: tuple[str, str]
) -> None:
    """G9: they take turns, a frame each, however much waits for the busy one."""
    busy, quiet = two
    model = script(tmp_path / "m.json", [{"text": "x" * 1_500, "tokens": 4_000}])
    with many(shared) as stream:
        for workspace in two:
            stream.subscribe(workspace)
        run = shared.prompt(busy, shared.session(busy), "go", model=model)["run_id"]
        shared.ended(run)  # nobody reads: its deltas wait in the ring
        said = shared.session(quiet)
        before = stream.until(lambda f: f["type"] == "session" and said in str(f))
        after = stream.until_end_of(run)
    sizes = [sum(len(f.get("text", "")) for f in frames) for frames in (before, after)]
    assert sizes[0] < 1_500_000 < sizes[1]


def tell(peer: socket.socket, value: Json) -> None:
    """Send an object as a client does, masked, with the mask that changes nothing."""
    data = json.dumps(value).encode()
    peer.sendall(bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data)


def whole_frames(data: bytes) -> Iterator[bytes]:
    """The texts of a server's frames; each begins where the one before it ended."""
    while len(data) >= 10:
        assert data[0] == 0x81, "no frame begins here"
        length, start = data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        if start + length > len(data):
            return
        yield data[start : start + length]
        data = data[start + length :]


def test_a_slow_reader_of_many_workspaces_is_not_taken_for_one_that_stopped(home: Path) -> None:
    """G9: what is bounded is one send, not the wait of 16 workspaces for their turn."""
    with ended(with_limits(home, SEND_BLOCKED_S=1.5)) as server:
        every = [server.workspace(home / f"w{number}") for number in range(16)]
        model = script(home / "m.json", [{"text": "x" * 200_000}])
        runs = [server.prompt(w, server.session(w), "go", model=model)["run_id"] for w in every]
        for run in runs:
            server.ended(run)
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        peer.connect(server.socket_path)
        peer.sendall(UPGRADE)
        assert peer.recv(4096).startswith(b"HTTP/1.1 101")
        for workspace in every:
            tell(peer, {"type": "subscribe", "workspace_id": workspace, "after": "start"})
        taken = b""
        for _ in range(45):
            time.sleep(0.1)  # this is how it reads: a frame takes 0.3 s, all of them take 5 s
            tell(peer, {"type": "ping"})  # the answer must not get into the middle of a frame
            data = peer.recv(64 * 1024)
            assert data, "it was cut off"
            taken += data
        peer.close()
    kinds = {item["type"] for frame in whole_frames(taken) for item in json.loads(frame)}
    assert {"subscribed", "pong", "run_complete"} <= kinds


def test_a_subscribed_workspace_stays_open_until_it_is_given_up(home: Path) -> None:
    """Contract 3: one that nobody follows closes meanwhile."""
    with ended(Server(home, "--idle-timeout", "0.3")) as server, many(server) as stream:
        followed, other = server.workspace(home / "one"), server.workspace(home / "two")
        stream.subscribe(followed)

        def open_ones() -> set[str]:
            return {each["id"] for each in server.get("/v1/workspaces")}

        eventually(lambda: other not in open_ones())
        assert open_ones() == {followed}
        stream.send({"type": "unsubscribe", "workspace_id": followed})
        eventually(lambda: not open_ones())


def test_every_subscription_has_progress_in_pings_of_its_own(home: Path) -> None:
    """Contract 4: also past events that its filter left out; without one the socket is pinged."""
    with ended(with_limits(home, PING_INTERVAL_S=0.3)) as server, many(server) as stream:
        assert stream.until(lambda f: f["type"] == "ping") == [{"type": "ping"}]
        one, other = server.workspace(home / "one"), server.workspace(home / "two")
        for workspace in (one, other):
            server.ended(server.prompt(workspace, server.session(workspace), "list")["run_id"])
        stream.subscribe(one, after="start", kinds="retry")
        stream.subscribe(other, after="start")
        for workspace in (one, other):
            ping = stream.until_control(workspace, "ping")[-1]
            assert ping["seq"] == server.events(workspace)[-1]["seq"]
        assert not stream.events_of(one)


def test_a_peer_that_pinged_once_and_fell_silent_is_closed(home: Path) -> None:
    """Contract 4: 4408; who never pinged is left alone."""
    with (
        ended(with_limits(home, PEER_SILENT_S=0.5, PING_INTERVAL_S=0.2)) as server,
        many(server) as passive,
        many(server) as stream,
    ):
        stream.subscribe(server.workspace(home / "one"))
        stream.send({"type": "ping"})
        assert close_code(stream) == 4408
        passive.send({"type": "weather"})
        assert passive.until(lambda f: f["type"] == "ping")
