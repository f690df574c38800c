"""Kept outputs over HTTP, from a command that writes too much to their end with the session."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Json, Server, UnixHTTP, script

LINES = 12_000
WHOLE = b"".join(b"%05d \xff\0\x1b[31m|\n" % n for n in range(LINES))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


def fetch(
    server: Server, path: str, ranges: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = UnixHTTP(server.socket_path)
    connection.request(method, path, headers={} if ranges is None else {"Range": ranges})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def play(server: Server, workspace: str, session: str, name: str, command: str) -> Json:
    call = {"tool": "bash", "input": {"command": command, "description": "much"}}
    model = script(server.home / f"{name}.json", [call], [{"text": "done"}])
    run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
    assert server.ended(run["run_id"])["outcome"] == "completed"
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    parts = [part["data"] for message in messages for part in message["parts"]]
    result: Json = [part for part in parts if "tool_call_id" in part][-1]
    return result


def test_the_whole_of_a_long_output_is_fetched_by_its_id_in_any_range(server: Server) -> None:
    workspace, other = server.workspace(server.home / "p"), server.workspace(server.home / "q")
    session = server.session(workspace)
    (server.home / "p" / "much").write_bytes(WHOLE)
    result = play(server, workspace, session, "much", "cat much")
    kept: dict[str, Any] = json.loads(result["metadata"])
    assert (kept["output_bytes"], kept["output_dropped"]) == (len(WHOLE), 0)
    assert f"the whole output is output {kept['output_id']}, in " in result["content"]
    assert "00000 \ufffd\u2400|\n00001 " in result["content"]
    assert not (set(map(chr, range(32))) - {"\n"}) & set(result["content"])

    path = f"/v1/workspaces/{workspace}/sessions/{session}/outputs/{kept['output_id']}"
    status, headers, body = fetch(server, path)
    assert (status, body) == (200, WHOLE)
    assert headers["content-type"] == "application/octet-stream"
    assert (headers["x-content-type-options"], headers["accept-ranges"]) == ("nosniff", "bytes")
    size = len(WHOLE)
    for ranges, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size * 2}", 0, size),
        (f"bytes=170000-{size * 9}", 170_000, size),
    ):
        status, headers, body = fetch(server, path, ranges)
        assert (status, body) == (206, WHOLE[start:end]), ranges
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for ranges in (f"bytes={size}-", f"bytes={size}-{size + 9}"):
        status, headers, body = fetch(server, path, ranges)
        assert (status, headers["content-range"], body) == (416, f"bytes */{size}", b"")
    for ranges in ("lines=1-2", "bytes=5-2", "bytes=a-b", "bytes=0-1,5-6", "x"):
        assert fetch(server, path, ranges)[::2] == (200, WHOLE), ranges
    status, headers, body = fetch(server, path, method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(size), b"")

    outputs = server.data / "outputs"
    file = outputs / workspace / session / f"{kept['output_id']}.txt"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (file, file.parent, outputs)] == [
        0o600,
        0o700,
        0o700,
    ]
    (file.parent / "link.txt").symlink_to("/etc/passwd")
    wrong = f"/v1/workspaces/{other}/sessions/{session}/outputs/{kept['output_id']}"
    assert b'"session_not_found"' in fetch(server, wrong)[2]
    for name in ("", ".", "..", "%2e%2e%2f%2e%2e", "..%2fx", "%00", "x%0a", "link", "missing"):
        status, _, body = fetch(server, f"{path.rpartition('/')[0]}/{name}")
        assert status == 404, name
        assert json.loads(body)["code"] in ("output_not_found", "not_found")

    asked = ("session", "output", session, kept["output_id"])
    shown = server.cli(*asked, cwd=server.home / "p", errors="surrogateescape")
    assert (shown.returncode, shown.stdout.encode(errors="surrogateescape")) == (0, WHOLE)
    assert server.call("DELETE", f"/v1/workspaces/{workspace}/sessions/{session}")[0] == 200
    assert fetch(server, path)[0] == 404
    assert not file.exists()


def test_what_a_run_wrote_can_be_read_by_its_model_without_permission(server: Server) -> None:
    workspace = server.workspace(server.home / "r")
    session = server.session(workspace)
    result = play(server, workspace, session, "a", "seq 100000")
    path = result["content"].rpartition(", in ")[2].partition(")")[0]
    assert Path(path).read_text().endswith("\n100000\n")
    steps: list[Json] = [{"tool": "view", "input": {"file_path": path, "offset": 99_998}}]
    steps += [{"tool": "view", "input": {"file_path": str(server.data / "server.log")}}]
    model = script(server.home / "b.json", *[[step] for step in steps], [{"text": "done"}])
    run = server.prompt(workspace, session, "go", model=model, permission_mode="deny")
    assert server.ended(run["run_id"])["outcome"] == "denied"
    messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    parts = [part["data"] for message in messages for part in message["parts"]]
    own, foreign = [part for part in parts if "tool_call_id" in part][-2:]
    assert " 99999|99999\n100000|100000\n" in own["content"]
    assert foreign["is_error"]


def test_what_tools_did_to_a_file_is_known_across_a_restart(server: Server) -> None:
    workspace, path = server.workspace(server.home / "t"), server.home / "t" / "a.txt"
    session, at = server.session(workspace), f"/v1/workspaces/{workspace}/sessions"
    path.write_text("one\n")

    def edit(old: str, new: str, *, view: bool = False) -> Json:
        look = [{"tool": "view", "input": {"file_path": "a.txt"}}] if view else []
        change = {"file_path": "a.txt", "old_string": old, "new_string": new}
        steps = [[step] for step in (*look, {"tool": "edit", "input": change})]
        model = script(server.home / "edit.json", *steps, [{"text": "done"}])
        run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
        assert server.ended(run["run_id"])["outcome"] == "completed"
        messages = server.get(f"{at}/{session}/messages")
        parts = [part["data"] for message in messages for part in message["parts"]]
        result: Json = [part for part in parts if "tool_call_id" in part][-1]
        return result

    assert "you must read the file" in edit("one", "two")["content"]
    done = edit("one", "two", view=True)
    assert json.loads(done["metadata"])["diff"].endswith("@@ -1 +1 @@\n-one\n+two\n"), done
    path.write_text("somebody else\n")
    assert "has been modified since" in edit("two", "three")["content"]
    assert not edit("else", "three", view=True)["is_error"]
    assert server.stop() == 0
    server.start()
    assert not edit("three", "four")["is_error"], "it was read before the restart"
    history = server.get(f"{at}/{session}/history")
    contents = ["one\n", "two\n", "somebody else\n", "somebody three\n", "somebody four\n"]
    assert [(each["version"], each["content"]) for each in history] == list(enumerate(contents))
    events = server.events(workspace, "after=start&kinds=file")
    assert [event["payload"]["payload"] for event in events] == history
    assert server.get(f"{at}/{session}/filetracker/files") == [str(path)]
    query = f"session_id={session}&path={path}"
    read = server.get(f"/v1/workspaces/{workspace}/filetracker/lastread?{query}")
    assert read > "2020"
    path.write_text("changed while nobody looked\n")
    assert "has been modified since" in edit("changed", "x")["content"]
    assert path.read_text() == "changed while nobody looked\n"


def test_nothing_that_the_server_keeps_can_be_read_by_others(server: Server) -> None:
    """T41: after all of the above."""
    found = [server.data, *server.data.rglob("*")]
    assert {"outputs", "access.log"} < {path.name for path in found}
    for path in found:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
