"""Fifty sessions at once through a real server, cancelled at random (G1, G4, G5, G7, G10)."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from crush_trio.agent.transcript import is_valid
from crush_trio.protocol import codec
from crush_trio.protocol.messages import Message
from tests.e2e.kit import Json, Server, Stream, alive, eventually, is_end_of, script
from tests.e2e.streams import is_event

SESSIONS = 50
PROMPTS = 3  # of each session: one is driven, the others wait
TREE = "(trap '' TERM; exec sleep 60) & sleep 0.2; echo done; kill -9 $!"


@attrs.define
class Load:
    """What was asked for, and what was promised."""

    server: Server
    workspace: str
    dice: random.Random
    runs: dict[str, str] = attrs.field(factory=dict)
    receipts: list[Json] = attrs.field(factory=list)
    of_sessions: list[tuple[str, Json, float]] = attrs.field(factory=list)
    ends: dict[str, Json] = attrs.field(factory=dict)

    def prompt(self, session: str, number: int, model: str) -> None:
        """Submit one prompt and note its run."""
        receipt = self.server.prompt(
            self.workspace,
            session,
            f"prompt {number}",
            run_id=f"{session}-{number}",
            if_busy="enqueue",
            model=model,
            permission_mode="allow",
        )
        self.runs[receipt["run_id"]] = session

    def cancel(self, run: str, *, whole_session: bool) -> None:
        """Cancel a run, or all that is open in its session; keeps the receipt."""
        path = f"/v1/runs/{run}/cancel"
        session = self.runs[run]
        if whole_session:
            path = f"/v1/workspaces/{self.workspace}/agent/sessions/{session}/cancel"
        receipt = self.server.post(path, {})
        self.receipts.append(receipt)
        if whole_session:
            self.of_sessions.append((session, receipt, time.time() * 1000))

    def follow(self, stream: Stream, pool: ThreadPoolExecutor) -> None:
        """Read until every run has ended; cancels at random objects what they are about."""
        cancels: list[Future[None]] = []
        while len(self.ends) < SESSIONS * PROMPTS:
            frame = stream.next(timeout=60)
            run = run_of(frame)
            if run is None:
                continue
            if is_end_of(frame, run):
                assert run not in self.ends, "a second ending"
                self.ends[run] = frame["payload"]["payload"]
            most = len(self.runs) // 2  # so that some come while others wait behind
            if len(cancels) < most and run in self.runs and self.dice.random() < 0.15:
                going_on = [each for each in self.runs if each not in self.ends] or [run]
                some = self.dice.choice([run, self.dice.choice(going_on)])
                whole = self.dice.random() < 0.5
                cancels.append(pool.submit(self.cancel, some, whole_session=whole))
        for cancel in cancels:
            cancel.result(timeout=30)


def run_of(frame: Json) -> str | None:
    """The run an object is about, if it is about one of ours."""
    if frame["type"] == "run":
        return str(frame["payload"]["payload"]["id"])
    if "run_id" in frame:
        return str(frame["run_id"])
    inner = frame.get("payload", {}).get("payload", {})
    return inner.get("run_id") or None


def models(home: Path) -> list[str]:
    """What runs may be doing when they are cancelled."""
    say: list[Json] = [{"text": "word ", "tokens": 30, "every_ms": 5}]
    tree: Json = {"tool": "bash", "input": {"command": TREE, "description": "d"}}
    return [
        script(home / "text.json", say),
        script(home / "calls.json", [{"text": "look"}, {"tool": "ls", "input": {}}], say),
        script(home / "tree.json", [tree], say),
        script(home / "slow.json", [{"text": "so "}, {"wait_ms": 400}, {"text": "far"}]),
    ]


@pytest.mark.parametrize("seed", [7])
def test_fifty_sessions_with_random_cancels_keep_every_promise(
    server: Server, project: Path, home: Path, seed: int
) -> None:
    """G1, G4, G5, G7, G8, G10: each run ends once, as its receipts say; nothing is left."""
    dice = random.Random(seed)
    load = Load(server, server.workspace(project), dice)
    plans = models(home)
    sessions = [server.session(load.workspace) for _ in range(SESSIONS)]
    with (
        server.stream(load.workspace, "after=start") as stream,
        ThreadPoolExecutor(max_workers=8) as pool,
        ThreadPoolExecutor(max_workers=4) as cancellers,
    ):
        prompts = [
            pool.submit(load.prompt, session, number, dice.choice(plans))
            for session in sessions
            for number in range(PROMPTS)
        ]
        load.follow(stream, cancellers)
        for prompt in prompts:
            prompt.result(timeout=60)
        events = [frame for frame in stream.seen if is_event(frame)]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))

    promised = Counter(
        (entry["run_id"], entry["was"]) for receipt in load.receipts for entry in receipt["runs"]
    )
    covered = {run for run, _ in promised}
    outcomes = {run: end["outcome"] for run, end in load.ends.items()}
    assert set(outcomes) == set(load.runs)
    assert {run for run, outcome in outcomes.items() if outcome == "cancelled"} == covered
    assert {outcomes[run] for run in set(outcomes) - covered} == {"completed"}
    assert len(covered) > 15, "hardly anything was cancelled"
    assert {was for _, was in promised} == {"queued", "running"}

    for session in sessions:
        check_session(server, load, session, outcomes)
    eventually(lambda: not children_of(server.pid))
    health = server.get("/v1/health")
    assert (health["open_runs"], health["subscribers"]) == (0, 0)


def check_session(server: Server, load: Load, session: str, outcomes: dict[str, str]) -> None:
    """Its runs went one at a time, in order, and left a valid transcript (G5, G7)."""
    mine = sorted((run for run, owner in load.runs.items() if owner == session), key=str)
    records = sorted((server.record(run) for run in mine), key=lambda r: r["accept_seq"])
    for record in records:
        assert (record["state"], record["outcome"]) == ("finished", outcomes[record["id"]])
        assert record["processes"]["left"] == []
    for owner, receipt, answered_ms in load.of_sessions:
        named = {entry["run_id"] for entry in receipt["runs"]} | set(receipt["too_late"])
        for record in records if owner == session else ():
            if record["accept_seq"] <= receipt["watermark"] and record["id"] not in named:
                assert record["finished_at_ms"] <= answered_ms, "it was open, and not covered"
    begun = [r for r in records if r["started_at_ms"] is not None]
    for earlier, later in itertools.pairwise(begun):
        assert earlier["finished_at_ms"] <= later["started_at_ms"]
    path = f"/v1/workspaces/{load.workspace}/sessions/{session}/messages"
    messages = codec.decode(json.dumps(server.get(path)), tuple[Message, ...])
    assert is_valid(messages)
    by_run = [message.run_id for message in messages]
    assert [run for n, run in enumerate(by_run) if run not in by_run[:n]] == [
        record["id"] for record in records
    ]
    for message in messages:
        assert message.finish() is not None, message


def children_of(pid: int) -> list[int]:
    """The processes directly below one, that are not zombies."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(each) for file in found for each in file.read_text().split()]
    return [each for each in pids if alive(each)]
