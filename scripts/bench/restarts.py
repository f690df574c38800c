"""How long a restart takes with many sessions stored, beside one with nothing stored.

    python scripts/bench/restarts.py [--sessions N] [--rounds N] [--json]

From the spawn of ``crush-trio serve`` to its ready line, alternating: an empty data directory; one
with so many sessions in twenty workspaces, each with a finished run, after an orderly end; the
same after a SIGKILL. In the first of these a hundred runs wait. Medians, in milliseconds, and how
much of it was processor time, which a loaded machine changes less. `goal`: at most 1,000.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from crush_trio.host import commits
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import Outcome, Receipt, RunRecord
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Commit, RunRow, Transaction, WorkspaceRow
from crush_trio.store.sqlite import open_store

WORKSPACES = 20
WAITING = 100
GOAL_MS = 1_000


def session_with_run(number: int, workspace: WorkspaceId, *, ends: bool) -> Commit[None]:
    """A commit that stores one session with one run."""

    def commit(tx: Transaction) -> None:
        session = SessionId(f"{workspace}-{number}")
        tx.put_session(Session(session, title=f"session {number}"))
        record = RunRecord(
            id=RunId(f"run-{session}"),
            workspace_id=workspace,
            session_id=session,
            prompt="what the prompt of a session says " * 5,
            accept_seq=number + 1,
            created_at_ms=0,
            model="scout",
            provider="offline",
        )
        request = PromptRequest(session_id=session, prompt=record.prompt, run_id=record.id)
        receipt = Receipt(record.id, session, 0, "queued", 0)
        commits.accept_run(tx, RunRow(record, request, "d" * 64, receipt, "local"))
        if ends:
            commits.end_unstarted(tx, record.id, Outcome.COMPLETED)

    return commit


async def fill(data: Path, sessions: int) -> None:
    """A database with so many sessions, a hundred of them with a run that waits."""
    async with open_store(data, durability="normal", publish=lambda *_: None) as store:
        for index in range(WORKSPACES):
            workspace = WorkspaceId(f"w{index}")
            place = data.parent / workspace
            place.mkdir()
            row = WorkspaceRow(workspace, str(place), 1)
            await store.commit_nowait(workspace, lambda tx, row=row: tx.put_workspace(row)).wait()
            tickets = []
            for number in range(sessions // WORKSPACES):
                ends = number >= WAITING // WORKSPACES
                tickets.append(
                    store.commit_nowait(workspace, session_with_run(number, workspace, ends=ends))
                )
            for ticket in tickets:
                await ticket.wait()


TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def restart(data: Path, *, kill: bool) -> tuple[float, float]:
    """Milliseconds to the ready line, and of the processor until then; then the server is ended."""
    command = [sys.executable, "-m", "crush_trio", "serve", "--data-dir", str(data)]
    env = {"PATH": os.environ["PATH"], "HOME": str(data.parent), "LANG": "C.UTF-8"}
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--host", f"unix://{data.parent}/s", "--requeue-within", "86400"],
        env=env,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        took = (time.perf_counter() - began) * 1000
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) * TICK_MS
        if kill:
            server.kill()
        else:
            server.terminate()
        server.wait(30)
    if not line.startswith("listening on"):
        raise RuntimeError("the server did not start")
    return took, used


def main() -> int:
    """0 if the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"empty": [], "stored": [], "stored, killed": []}
    with tempfile.TemporaryDirectory(prefix="ct") as name:
        homes = [Path(name) / "empty", Path(name) / "stored"]
        for home in homes:
            home.mkdir(mode=0o700)
        trio.run(fill, homes[1] / "data", arguments.sessions)
        restart(homes[1] / "data", kill=True)  # what waited begins; it is found open from now on
        for _ in range(arguments.rounds):
            times["empty"].append(restart(homes[0] / "data", kill=False))
            times["stored, killed"].append(restart(homes[1] / "data", kill=False))
            times["stored"].append(restart(homes[1] / "data", kill=True))
    found = {
        what: [statistics.median(kind) for kind in zip(*each, strict=True)]
        for what, each in times.items()
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        for what, value in found.items():
            print(f"{what:16} {value[0]:8.0f} ms, of the processor {value[1]:6.0f} ms")
    return 0 if max(took for took, _ in found.values()) <= GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
