"""Subscribers that harm: they stop reading, pile up, ask for more than a frame holds (G9)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.kit import Server, eventually, script
from tests.e2e.streams import ended, is_event, stalled, with_limits


def rss_kb(pid: int) -> int:
    """Resident memory of a process, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")


def test_who_takes_nothing_for_too_long_is_cut_off_and_costs_no_memory_until_then(
    home: Path,
) -> None:
    """G9: forty that stopped reading, while their workspace streams tens of megabytes."""
    with ended(with_limits(home, SEND_BLOCKED_S=6.0)) as server:
        workspace = server.workspace(home / "w")
        model = script(home / "m.json", [{"text": "x" * 1_000, "tokens": 4_000}])

        def turn() -> int:
            run = server.prompt(workspace, server.session(workspace), "go", model=model)["run_id"]
            server.ended(run)
            return rss_kb(server.pid)

        peers = [stalled(server, workspace)]
        before = [turn() for _ in range(3)][-1]
        peers += [stalled(server, workspace) for _ in range(40)]
        assert server.get("/v1/health")["subscribers"] > 40
        with_them = [turn() for _ in range(3)]
        eventually(lambda: server.get("/v1/health")["subscribers"] == 0)
        for peer in peers:
            peer.close()
    assert with_them[-1] - before < 48 * 1024  # a frame in the making for each of them
    assert with_them[-1] - with_them[0] < 24 * 1024  # what comes later costs nothing


def test_a_reader_that_comes_back_to_life_gets_every_event_and_the_whole_text(
    server: Server, project: Path
) -> None:
    """G8, G9: it had stopped for so long that the ring moved past it."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "y" * 2_000, "tokens": 6_000}])
    with server.stream(workspace, "after=start") as stream:
        stream.until(lambda frame: frame["type"] == "replayed")
        for _ in range(2):
            run = server.prompt(workspace, session, "go", model=model)["run_id"]
            server.ended(run)
        stream.until_end_of(run)
    seqs = [frame["seq"] for frame in stream.seen if is_event(frame)]
    assert seqs == list(range(1, len(seqs) + 1))
    deltas = sum(len(f["text"]) for f in stream.seen if f["type"] == "message_delta")
    assert deltas < 2 * 2_000 * 6_000, "it read along, so nothing was shown"


def test_a_purge_tells_its_subscribers_that_the_workspace_is_gone(
    server: Server, project: Path
) -> None:
    """Contract 4: `bye`, then 4404; who comes back gets 404."""
    workspace = server.workspace(project)
    with server.stream(workspace) as stream:
        stream.until(lambda frame: frame["type"] == "replayed")
        assert server.call("DELETE", f"/v1/workspaces/{workspace}?purge=true")[0] == 200
        assert stream.next() == {"type": "bye", "reason": "purged"}
        with pytest.raises(ConnectionClosed) as closed:
            stream.next()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404
    assert server.call("GET", f"/v1/workspaces/{workspace}")[0] == 404


def test_what_was_cut_in_an_event_can_be_fetched_where_it_says(
    server: Server, project: Path
) -> None:
    """Contract 4: `truncated` names a route that gives the whole, for each kind that was cut."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    content = "ü" * 700_000
    model = script(
        project / "m.json",
        [{"tool": "write", "input": {"file_path": str(project / "big.txt"), "content": content}}],
        [{"text": "long " * 200_000}],
    )
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
        frames = stream.until_end_of(run["run_id"])
    cut = [frame for frame in frames if "truncated" in frame]
    assert {frame["type"] for frame in cut} == {"message", "file", "run_complete"}
    for frame in cut:
        for path, ref in frame["truncated"].items():
            whole = server.get(f"/v1/workspaces/{workspace}/{ref}")
            found, shown = whole, frame["payload"]["payload"]
            for key in path.split(".")[2:]:
                found, shown = (
                    value[int(key)] if isinstance(value, list) else value[key]
                    for value in (found, shown)
                )
            assert len(found) > len(shown) > 0
            assert found.startswith(shown)
    [made] = [f for f in cut if f["type"] == "file"]
    ref = made["truncated"]["payload.payload.content"]
    assert server.get(f"/v1/workspaces/{workspace}/{ref}")["content"] == content


def test_an_open_message_is_fetched_with_what_is_being_written_and_strangers_see_nothing(
    server: Server, project: Path, home: Path
) -> None:
    """Contract 4: the routes that `truncated` names; 404 for another workspace's things."""
    workspace, other = server.workspace(project), server.workspace(home / "other")
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "so far"}, {"silence": True}])
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        message = stream.until(lambda f: f["type"] == "message_delta")[-1]["message_id"]
    found = server.get(f"/v1/workspaces/{workspace}/messages/{message}")
    assert found["parts"] == [{"type": "text", "data": {"text": "so far"}}]
    for path in (f"{other}/messages/{message}", f"{workspace}/messages/x", f"{workspace}/files/x"):
        status, answer = server.call("GET", f"/v1/workspaces/{path}")
        assert (status, answer["code"].endswith("_not_found")) == (404, True), json.dumps(answer)
    server.post(f"/v1/runs/{run}/cancel", {})
    server.ended(run)
