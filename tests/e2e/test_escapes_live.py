"""Every way to outlive a run, tried in a real server, ended in two ways (T32)."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.e2e.kit import Server, eventually, script
from tests.tools.escapes import ENDINGS, ESCAPES, alive_with


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    assert server.stop() == 0


@attrs.frozen
class Tried:
    """One run: what marks its processes, the file that says that they have done their worst."""

    form: str
    ending: str
    number: str
    ready: Path
    model: str


def forms(server: Server, folder: Path) -> list[Tried]:
    """Each form with each ending it can have here, as a script that calls bash."""
    kept_by = server.get("/v1/version")["process_control"]
    found = []
    for form, escape in ESCAPES.items():
        if escape.by_cgroup and (kept_by != "cgroup" or "$GROUPS_AT" in escape.command):
            continue
        for ending in ENDINGS if escape.ends else ENDINGS[:1]:
            number = f"600.{secrets.randbelow(10**15):015}"
            ready = folder / f"ready-{number}"
            names = f"export N={number} READY={shlex.quote(str(ready))}; "
            call = {
                "tool": "bash",
                "input": {"description": form, "command": names + escape.line(ending)},
            }
            model = script(folder / f"{number}.json", [call], [{"text": "done"}])
            found.append(Tried(form, ending, number, ready, model))
    return found


def test_nothing_is_alive_after_the_end_of_a_run_whatever_its_commands_did(
    server: Server, tmp_path: Path
) -> None:
    """G10, T32; a part of the forms, or all of them with CRUSH_TRIO_ALL_ESCAPES."""
    tried = forms(server, tmp_path)[:: 1 if os.environ.get("CRUSH_TRIO_ALL_ESCAPES") else 4]
    workspace = server.workspace(tmp_path / "w")
    runs = {}
    for one in tried:
        receipt = server.prompt(
            workspace,
            server.session(workspace),
            one.form,
            model=one.model,
            permission_mode="allow",
        )
        runs[receipt["run_id"]] = one
    for run, one in runs.items():
        eventually(one.ready.exists, timeout=40)
        if one.ending == "cancel":
            server.post(f"/v1/workspaces/{workspace}/runs/{run}/cancel")
    for run, one in runs.items():
        record = server.ended(run)
        by_itself = one.ending == "end" or "kill -9" in ESCAPES[one.form].command
        assert by_itself or record["outcome"] == "cancelled", one
        assert record["processes"]["left"] == [], one
        assert record["processes"]["killed"] > 0, one
        assert alive_with(one.number) == [], one
    assert {one.ending for one in tried} == set(ENDINGS)

    by_hand = next(one for one in tried if one.ending == "end")
    again = server.cli("run", "-m", by_hand.model, "-y", "again", cwd=tmp_path / "w")
    assert (again.returncode, again.stdout) == (0, "done\n"), again.stderr
    assert alive_with(by_hand.number) == []
