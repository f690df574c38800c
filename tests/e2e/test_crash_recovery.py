"""SIGKILL at each write of a recovery, of a deletion and of a purge (G1, G2, G7, G8)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import models
from tests.chaos.server import ChaosServer, Unanswered
from tests.chaos.shim import why_not
from tests.chaos.subscriber import replay
from tests.e2e.kit import eventually, script

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

MOST_CALLS = 300
"""A start, a deletion or a purge has fewer writes of one kind; else the loop would not end."""
STEPS = {"fdatasync": 1, "pwrite": 17, "send": 9, "unlink": 2}
"""Each commit is one sync; of the writes and answers in between, each so many-th is met."""


@pytest.fixture
def server(home: Path) -> Iterator[ChaosServer]:
    """A server that is started by forking, so that killing it often takes little time."""
    server = ChaosServer(home, fork=True)
    yield server
    if not server.dead:
        server.kill()
    assert server.zygote is not None
    server.zygote.close()


def start(server: ChaosServer) -> None:
    """Start it, and wait until it is ready."""
    server.spawn()
    assert server.wait_ready(), (server.home / "stderr").read_text()


def ok(answer: tuple[int, Any]) -> Any:
    """The value of an answer that must be good."""
    assert answer[0] in (200, 202), answer
    return answer[1]


def crowded(server: ChaosServer, workspace: str) -> dict[str, str]:
    """A session each with: a stubborn tool, partial text, a promised cancel; runs that wait."""
    names = models.write(server.home)
    sessions = {}
    for kind in ("hostile", "hold", "marked"):
        session = ok(server.call("POST", f"/v1/workspaces/{workspace}/sessions", {"title": kind}))
        sessions[kind] = session["id"]
        for run, model in ((kind, "hold" if kind == "marked" else kind), (f"{kind}-2", "quick")):
            body = {"session_id": session["id"], "prompt": run, "run_id": run}
            body |= {"model": names[model], "permission_mode": "allow"}
            ok(server.call("POST", f"/v1/workspaces/{workspace}/agent", body))
    pids = server.home / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    eventually(lambda: bool(_record(server, "hold")["waiting_on"] == "model"))
    ok(server.call("DELETE", "/v1/runs/marked-2"))
    return sessions


def _record(server: ChaosServer, run: str, wait_s: int = 0) -> Any:
    return ok(server.call("GET", f"/v1/runs/{run}?wait={wait_s}"))


def state_of(server: ChaosServer, workspace: str) -> Any:
    """Everything a client can see, without what differs from one recovery to the next."""
    for run in ("hostile-2", "hold-2"):
        assert _record(server, run, 20)["outcome"] == "completed"
    runs = ok(server.call("GET", f"/v1/runs?workspace_id={workspace}"))["runs"]
    messages = {
        session["id"]: [
            (message["role"], message["run_id"], [part["type"] for part in message["parts"]])
            for message in ok(
                server.call("GET", f"/v1/workspaces/{workspace}/sessions/{session['id']}/messages")
            )
        ]
        for session in ok(server.call("GET", f"/v1/workspaces/{workspace}/sessions"))
    }
    log = replay(server, workspace)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    ends = sorted(event.run_id for event in log if event.kind == "run_complete")
    assert ends == sorted({run["id"] for run in runs})
    return {run["id"]: (run["outcome"], run["text"]) for run in runs}, messages


def test_a_recovery_that_is_killed_at_any_of_its_writes_ends_as_one_that_is_not(
    server: ChaosServer,
) -> None:
    """G1, G2, G7, G10: it is idempotent, also across several deaths, and repeats nothing."""
    assert server.shim is not None
    start(server)
    workspace = ok(server.call("POST", "/v1/workspaces", {"path": str(server.home)}))["id"]
    crowded(server, workspace)
    server.kill()
    left = server.home / "left"
    eventually(lambda: not server.tool_processes(), timeout=6)
    shutil.copytree(server.data, left)
    start(server)
    expected = state_of(server, workspace)
    assert {run: outcome for run, (outcome, _) in expected[0].items()} == {
        "hostile": "lost",
        "hold": "lost",
        "marked": "lost",
        "marked-2": "cancelled",
        "hostile-2": "completed",
        "hold-2": "completed",
    }
    server.kill()
    deaths = 0
    for call in ("fdatasync", "pwrite"):
        for n in range(1, MOST_CALLS, STEPS[call]):
            shutil.rmtree(server.data)
            shutil.copytree(left, server.data)
            server.shim.arm("before" if n % 2 else "after", call, n)
            server.spawn()
            reached = server.wait_ready()
            server.shim.disarm()
            if reached:
                server.kill()
                break
            deaths += 1
            assert server.wait(5) == -9
            start(server)
            assert state_of(server, workspace) == expected, (call, n)
            server.kill()
        else:
            pytest.fail("a start does not come to its end")
    assert deaths > 5


@pytest.mark.parametrize("what", ["session", "workspace"])
def test_a_deletion_that_is_killed_at_any_write_is_whole_or_has_not_been(
    server: ChaosServer, what: str
) -> None:
    """Contract 3: messages, events, outputs and texts go together; after 200 they are gone."""
    assert server.shim is not None
    start(server)
    place = server.home / "project"
    place.mkdir()
    workspace = ok(server.call("POST", "/v1/workspaces", {"path": str(place)}))["id"]
    base = f"/v1/workspaces/{workspace}"
    session = ok(server.call("POST", f"{base}/sessions", {"title": "t"}))["id"]
    body = {"session_id": session, "prompt": "go", "run_id": "run", "permission_mode": "allow"}
    spilling = {"command": "yes | head -c 1000000", "description": "much"}
    body["model"] = script(
        server.home / "spill.json", [{"tool": "bash", "input": spilling}], [{"text": "done"}]
    )
    ok(server.call("POST", f"{base}/agent", body))
    assert ok(server.call("GET", "/v1/runs/run?wait=20"))["outcome"] == "completed"
    path = f"{base}/sessions/{session}" if what == "session" else f"{base}?purge=true"
    full = len(ok(server.call("GET", f"{base}/sessions/{session}/messages")))
    assert _deleted_state(server, base, session) == ("there", full)
    server.kill()
    left = server.home / "left"
    shutil.copytree(server.data, left)
    seen = set()
    for call in ("fdatasync", "pwrite", "send", "unlink"):
        for n in range(1, MOST_CALLS, STEPS[call]):
            shutil.rmtree(server.data)
            shutil.copytree(left, server.data)
            start(server)
            server.shim.arm("before" if n % 2 else "after", call, n)
            try:
                status = server.call("DELETE", path)[0]
            except Unanswered:
                status = 0
            server.shim.disarm()
            if status == 0:
                assert server.wait(5) == -9
            else:
                server.kill()
            start(server)
            state = _deleted_state(server, base, session)
            assert state in (("there", full), ("gone", 0)), (call, n)
            assert status != 200 or state[0] == "gone"
            seen.add(state[0])
            server.kill()
            if status:
                break
    assert seen == {"there", "gone"}


def _deleted_state(server: ChaosServer, base: str, session: str) -> tuple[str, int]:
    """Whether the session is there, and how many messages it has; asserts that all of it is so."""
    status, messages = server.call("GET", f"{base}/sessions/{session}/messages")
    run_status, record = server.call("GET", "/v1/runs/run")
    snapshot_status, snapshot = server.call("GET", f"{base}/sessions/{session}/snapshot")
    assert (snapshot_status == 200) == (status == 200)
    if status == 200:
        assert (run_status, record["deleted"], record["prompt"]) == (200, False, "go")
        assert len(snapshot["messages"]) == len(messages)
        assert [path.stat().st_size for path in _outputs(server, session)] == [1_000_000]
        return "there", len(messages)
    if run_status == 200:  # the tombstone; a purge takes that, too
        assert (record["deleted"], record["prompt"], record["text"]) == (True, "", "")
    eventually(lambda: not _outputs(server, session))
    return "gone", 0


def _outputs(server: ChaosServer, session: str) -> list[Path]:
    return list((server.data / "outputs").glob(f"*/{session}/*"))
