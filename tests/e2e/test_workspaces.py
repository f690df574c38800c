"""Workspaces: one directory is one workspace, known for good, open while somebody uses it."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from tests.e2e.kit import Server, eventually


def test_one_directory_is_one_workspace_under_every_name(server: Server, project: Path) -> None:
    """R20, R21: identity is the symlink-resolved path; a second create gives the same one."""
    link = project.parent / "link"
    link.symlink_to(project)
    names = (project, link, project.parent / "." / "project")
    found = [server.post("/v1/workspaces", {"path": str(name)}) for name in names]
    assert len({workspace["id"] for workspace in found}) == 1
    assert {workspace["path"] for workspace in found} == {str(project)}
    status, error = server.call("POST", "/v1/workspaces", {"path": "project"})
    assert (status, error["code"]) == (400, "path_relative")


def test_many_who_create_at_once_get_one(server: Server, project: Path) -> None:
    """R22: and a create that fails leaves nothing behind."""
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        jobs = [
            pool.submit(server.post, "/v1/workspaces", {"path": str(project)}) for _ in range(12)
        ]
        ids = {job.result()["id"] for job in jobs}
    assert len(ids) == 1
    assert server.call("POST", "/v1/workspaces", {"path": str(project / "no")})[0] == 400
    assert [w["id"] for w in server.get("/v1/workspaces?known=true")] == list(ids)


def test_an_unused_workspace_closes_stays_known_and_opens_for_the_next_prompt(
    home: Path, project: Path
) -> None:
    """Contract 3, G6: its id is the same after that, and after a restart."""
    server = Server(home, "--idle-timeout", "0.2").start()
    workspace = server.workspace(project)
    session = server.session(workspace)
    eventually(lambda: server.get("/v1/workspaces") == [])
    assert [w["id"] for w in server.get("/v1/workspaces?known=true")] == [workspace]
    assert server.ended(server.prompt(workspace, session, "list")["run_id"])["text"]
    assert server.stop() == 0
    server.start()
    assert server.workspace(project) == workspace
    assert server.ended(server.prompt(workspace, session, "list")["run_id"])["text"]
    assert server.stop() == 0
