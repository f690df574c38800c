"""Two clients and one run: cancelled by the other, one gone, both gone (G4, G6)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.e2e.kit import Server, eventually, script

TEXT = {"text": "word ", "tokens": 40, "every_ms": 10}


def prompter(server: Server, project: Path, model: str, run: str) -> subprocess.Popen[str]:
    """The real command, waiting for its run; begun once the run is."""
    process = forked.Popen(
        [
            *(sys.executable, "-m", "crush_trio", "run", "--data-dir", str(server.data)),
            *("--json", "--run-id", run, "-m", model, "go"),
        ],
        cwd=project,
        env=server.env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    eventually(lambda: server.call("GET", f"/v1/runs/{run}")[0] == 200)
    eventually(lambda: server.record(run)["state"] != "queued")
    return process


def test_a_run_cancelled_by_another_client_ends_for_both_at_once(
    server: Server, project: Path
) -> None:
    """G4, contract 6: the prompter leaves with 5 and says who it was not."""
    model = script(project / "m.json", [{"text": "so far"}, {"silence": True}])
    process = prompter(server, project, model, "shared")
    workspace = server.record("shared")["workspace_id"]
    with server.stream(workspace, "after=start") as stream:
        stream.until(lambda frame: frame["type"] == "run")
        other = server.cli("cancel", "shared", cwd=project)
        assert other.returncode == 0, other.stderr
        end = stream.until_end_of("shared")[-1]["payload"]["payload"]
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 5, errors
    assert (end["outcome"], end["error"]) == ("cancelled", "context canceled")
    result = json.loads(out.splitlines()[-1])
    assert (result["type"], result["outcome"]) == ("result", "cancelled")


def test_when_the_prompter_is_killed_the_other_client_sees_its_run_through(
    server: Server, project: Path
) -> None:
    """G6: the end reaches whoever still follows."""
    process = prompter(server, project, script(project / "m.json", [TEXT]), "orphan")
    workspace = server.record("orphan")["workspace_id"]
    with server.stream(workspace, "after=start") as stream:
        process.kill()
        process.communicate(timeout=20)
        end = stream.until_end_of("orphan")[-1]["payload"]["payload"]
    assert (end["outcome"], end["text"]) == ("completed", "word " * 40)


def test_when_all_clients_are_gone_the_run_goes_on_and_is_found_by_its_id(
    server: Server, project: Path
) -> None:
    """G6: nobody listens any more, and nothing changes."""
    process = prompter(server, project, script(project / "m.json", [TEXT]), "alone")
    workspace = server.record("alone")["workspace_id"]
    with server.stream(workspace, "after=now") as stream:
        stream.connection.socket.close()
    process.kill()
    process.communicate(timeout=20)
    eventually(lambda: server.get("/v1/health")["subscribers"] == 0)
    waited = server.cli("wait", "alone", cwd=project)
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout == "word " * 40 + "\n"
    assert server.record("alone")["outcome"] == "completed"


@pytest.mark.parametrize("first", ["run", "session"])
def test_two_clients_that_cancel_the_same_run_get_the_same_promise(
    server: Server, project: Path, first: str
) -> None:
    """G4: repeating a cancel is harmless; once it has ended there is nothing more to cancel."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "so far"}, {"silence": True}])
    run = server.prompt(workspace, session, "go", model=model)["run_id"]
    eventually(lambda: server.record(run)["state"] == "running")
    paths = [
        f"/v1/runs/{run}/cancel",
        f"/v1/workspaces/{workspace}/agent/sessions/{session}/cancel",
    ]
    if first == "session":
        paths.reverse()
    receipts = [server.post(path, {}) for path in paths]
    assert receipts[0]["runs"] == [{"run_id": run, "was": "running"}]
    assert receipts[1]["runs"] in ([{"run_id": run, "was": "running"}], [])
    assert server.ended(run)["outcome"] == "cancelled"
    assert server.post(paths[0], {})["runs"] == []
