"""Hooks through the real server and command line: whose run, what they decide, what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, eventually, script

GUARD = """case "$CRUSH_TOOL_INPUT_COMMAND" in
  *rm*) echo "nothing is removed here" >&2; exit 2 ;;
  *ask*) echo '{"updated_input": {"command": "echo rewritten >asked"}}' ;;
  *) echo '{"decision": "allow", "context": "checked"}' ;;
esac"""


@pytest.fixture
def ended(home: Path) -> Path:
    """Where the hook at a run's end writes; the user's configuration names it."""
    ended = home / "ended"
    hooks = {
        "PreToolUse": [{"name": "guard", "matcher": "^bash$", "command": GUARD}],
        "Stop": [{"name": "note", "command": f"cat >{ended}.new; mv {ended}.new {ended}"}],
    }
    file = home / ".config" / "crush-trio" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"hooks": hooks}))
    return ended


def bash(command: str) -> Json:
    return {"tool": "bash", "input": {"command": command, "description": "d"}}


def results(server: Server, project: Path, session: str) -> list[Json]:
    base = f"/v1/workspaces/{server.workspace(project)}/sessions/{session}"
    parts = [part for message in server.get(f"{base}/messages") for part in message["parts"]]
    return [part["data"] for part in parts if part["type"] == "tool_result"]


def test_the_users_hooks_decide_and_those_of_a_repository_are_never_run(
    ended: Path, server: Server, project: Path, home: Path
) -> None:
    """T29: what a repository brings is named once; a rule that denies beats a hook that allows."""
    touch = f"touch {home}/theirs"
    server_of_tools = {"type": "stdio", "command": "sh", "args": ["-c", touch]}
    theirs = {
        "hooks": {event: [{"command": touch}] for event in ("PreToolUse", "PostToolUse", "Stop")},
        "mcp": {"m": server_of_tools},
        "lsp": {"l": server_of_tools},
        "providers": {"p": {"base_url": f"$({touch})", "api_key": f"$({touch})"}},
        "env": {"BASH_ENV": f"{project}/.env", "PATH": str(project)},
    }
    (project / "crush.json").write_text(json.dumps(theirs))
    for name in (".env", ".envrc", ".bashrc", "git", "rg"):
        (project / name).write_text(f"#!/bin/sh\n{touch}\n")
        (project / name).chmod(0o700)
    model = script(home / "m.json", [bash("rm -f README.md"), bash("echo >made")], [{"text": "ok"}])
    arguments = ("run", "-m", model, "--json", "go")
    done = server.cli(*arguments, cwd=project)
    assert done.returncode == 3, done.stderr
    named = "crush.json: hooks, mcp, lsp, providers, env have no effect: this directory is not"
    assert done.stderr.count(named) == 1
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["outcome"], result["processes"]["left"]) == ("denied", [])
    first, second = results(server, project, result["session_id"])
    assert first["content"] == "Tool call blocked by hook. Reason: nothing is removed here"
    assert json.loads(first["metadata"])["hook"] == {
        "hook_count": 1,
        "decision": "deny",
        "reason": "nothing is removed here",
        "hooks": [
            {
                "name": "guard",
                "matcher": "^bash$",
                "decision": "deny",
                "reason": "nothing is removed here",
            }
        ],
    }
    assert second["content"].endswith("\nchecked")
    assert (project / "made").exists()
    told = json.loads(ended.read_text())
    assert (told["event"], told["outcome"], told["text"]) == ("Stop", "denied", "ok")
    assert told["run_id"] == result["run_id"]
    (project / "made").unlink()
    server.cli(*arguments, "--deny-tool", "bash(echo)", cwd=project)
    assert not (project / "made").exists()
    assert not (home / "theirs").exists()


def test_a_person_is_shown_what_a_hook_has_made_of_the_call(
    ended: Path, server: Server, project: Path, home: Path
) -> None:
    """T25: the request, its answer and what is run are the rewritten command."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(home / "m.json", [bash("ask something else >else")], [{"text": "ok"}])
    run = server.prompt(workspace, session, "go", model=model, permission_mode="ask")["run_id"]
    pending = f"/v1/workspaces/{workspace}/permissions"
    eventually(lambda: bool(server.get(pending)))
    request = server.get(pending)[0]["request"]
    assert request["params"]["command"] == "echo rewritten >asked"
    server.post(f"{pending}/grant", {"permission": request, "action": "allow"})
    assert server.ended(run)["outcome"] == "completed"
    assert (project / "asked").read_text() == "rewritten\n"
    assert not (project / "else").exists()
    assert json.loads(ended.read_text())["outcome"] == "completed"
