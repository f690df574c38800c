"""A stream that is cut again and again, and a server that is killed under it (G8)."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.e2e.kit import Json, Server, script
from tests.e2e.streams import Holding, ended, is_event, with_limits

QUERIES = {
    "delta": "detail=delta",
    "snapshot": "detail=snapshot",
    "session": "session_id={session}",
    "kinds": "kinds=run,run_complete",
}


@attrs.define
class Wanderer:
    """A subscriber that loses its connection at random and comes back with its cursor.

    ``goal`` says up to which event it must read once everything has happened.
    """

    server: Server
    workspace: str
    query: str
    random: random.Random
    goal: int | None = None
    connections: int = 0
    holding: Holding = attrs.field(factory=Holding)
    epochs: set[str] = attrs.field(factory=set)
    failure: Exception | None = None

    def roam(self) -> None:
        """Follow until the goal is reached; for a thread of its own."""
        try:
            while not self._follow_for(self.random.randrange(1, 120)):
                self.connections += 1
        except Exception as exc:  # told to the test by `failure`, which it looks at
            self.failure = exc

    def _follow_for(self, objects: int) -> bool:
        """One connection, cut after so many objects; whether the goal was reached."""
        # A cursor of 0 is known from the first hello on: everything is wanted.
        query = f"after={self.progress}&{self.query}"
        try:
            with self.server.stream(self.workspace, query) as stream:
                for _ in range(objects):
                    self._take(stream.next(timeout=5))
                    if self.goal is not None and self.progress >= self.goal:
                        return True
                stream.connection.socket.close()
        except (OSError, ConnectionClosed, InvalidMessage):
            pass  # the server was killed, or nothing more comes until it is
        return False

    progress: int = 0

    def _take(self, frame: Json) -> None:
        self.holding.take(frame)
        if frame["type"] == "hello":
            self.epochs.add(frame["epoch"])
        elif is_event(frame) or frame["type"] in ("replayed", "ping"):
            self.progress = max(self.progress, frame["seq"])


@pytest.fixture
def quick_pings(home: Path) -> Iterator[Server]:
    """A server whose pings come soon enough to tell the progress of a filter."""
    with ended(with_limits(home, PING_INTERVAL_S=0.5)) as server:
        yield server


def _work(server: Server, workspace: str, sessions: list[str], model: str, name: str) -> list[str]:
    return [
        server.prompt(
            workspace, session, "go", model=model, run_id=f"{name}-{number}", if_busy="enqueue"
        )["run_id"]
        for number, session in enumerate(sessions * 2)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_cut_or_killed_the_union_of_what_came_is_the_state_of_the_server(
    quick_pings: Server, project: Path, seed: int
) -> None:
    """G8: four ways to follow, dropped at random points, across a kill and a restart."""
    server = quick_pings
    workspace = server.workspace(project)
    sessions = [server.session(workspace) for _ in range(3)]
    model = script(
        project / "m.json",
        [{"text": "größe ", "tokens": 60, "every_ms": 2}, {"tool": "ls", "input": {}}],
        [{"text": "🦫 done ", "tokens": 30, "every_ms": 2}],
    )
    dice = random.Random(seed)
    wanderers = {
        name: Wanderer(
            server, workspace, query.format(session=sessions[0]), random.Random(dice.random())
        )
        for name, query in QUERIES.items()
    }
    threads = [threading.Thread(target=each.roam) for each in wanderers.values()]
    for thread in threads:
        thread.start()
    _work(server, workspace, sessions, model, "first")
    with server.stream(workspace, "after=now") as stream:
        for _ in range(dice.randrange(40, 200)):
            stream.next()
    server.kill()
    server.start()
    for run in _work(server, workspace, sessions, model, "second"):
        server.ended(run)
    for run in [record["id"] for record in server.get("/v1/runs?limit=100")["runs"]]:
        server.ended(run)
    everything = server.events(workspace)
    for wanderer in wanderers.values():
        wanderer.goal = everything[-1]["seq"]
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()

    for name, wanderer in wanderers.items():
        assert wanderer.failure is None, (name, wanderer.failure)
        assert (wanderer.holding.resyncs, len(wanderer.epochs)) == ([], 1)
        assert wanderer.connections > 2, "it was never cut"
        selected = server.events(workspace, f"after=start&{wanderer.query}")
        assert wanderer.holding.seqs == [event["seq"] for event in selected], name
    assert [event["seq"] for event in everything] == list(range(1, len(everything) + 1))
    for name in ("delta", "snapshot"):
        _check_state(server, workspace, sessions, wanderers[name].holding)
    mine = _snapshot(server, workspace, sessions[0])["messages"]
    held = wanderers["session"].holding.messages.values()
    assert {m["id"]: m for m in held if m["session_id"]} == {m["id"]: m for m in mine}
    assert wanderers["kinds"].holding.runs == wanderers["delta"].holding.runs


def _check_state(server: Server, workspace: str, sessions: list[str], holding: Holding) -> None:
    """What is held is what a snapshot says (G8)."""
    for session in sessions:
        snapshot = _snapshot(server, workspace, session)
        held = {key: m for key, m in holding.messages.items() if m["session_id"] == session}
        assert held == {m["id"]: m for m in snapshot["messages"]}
        assert holding.sessions[session] == snapshot["session"]
    records = server.get("/v1/runs?limit=100")["runs"]
    assert {r["id"]: {**r, "text": ""} for r in records} == holding.runs


def _snapshot(server: Server, workspace: str, session: str) -> Any:
    return server.get(f"/v1/workspaces/{workspace}/sessions/{session}/snapshot?messages=1000")


def test_a_cursor_beyond_retention_gets_one_resync_and_then_every_event(home: Path) -> None:
    """G8: `too_old`; what follows is gap-free from the place the resync names."""
    limits = {"EVENT_RETENTION_COUNT": 40, "RETENTION_EVERY": 4}
    with ended(with_limits(home, **limits)) as server:
        workspace = server.workspace(home / "w")
        session = server.session(workspace)
        for _ in range(8):
            server.ended(server.prompt(workspace, session, "list")["run_id"])
        with server.stream(workspace, "after=1") as stream:
            run = server.prompt(workspace, session, "list")["run_id"]
            stream.until_end_of(run)
        resync = [frame for frame in stream.seen if frame["type"] == "resync"]
        assert [frame["reason"] for frame in resync] == ["too_old"]
        assert stream.seen[1] == resync[0]
        after = resync[0]["seq"]
        seqs = [frame["seq"] for frame in stream.seen if is_event(frame)]
        assert seqs == list(range(after + 1, after + 1 + len(seqs)))
        snapshot = _snapshot(server, workspace, session)
        assert (snapshot["epoch"], snapshot["seq"] >= after) == (resync[0]["epoch"], True)


def test_the_progress_of_a_filter_that_selects_nothing_is_told_by_pings(
    quick_pings: Server, project: Path
) -> None:
    """Contract 4: who comes back with a ping's `seq` is not sent through the table again."""
    server = quick_pings
    workspace = server.workspace(project)
    run = server.prompt(workspace, server.session(workspace), "list")["run_id"]
    with server.stream(workspace, "after=start&kinds=retry") as stream:
        server.ended(run)
        last = server.events(workspace)[-1]["seq"]
        stream.until(lambda frame: frame["type"] == "ping" and frame["seq"] == last)
    assert not [frame for frame in stream.seen if is_event(frame)]
