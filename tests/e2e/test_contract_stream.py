"""Sentences of contract 4 on frames, held against a real server and a foreign client."""

from __future__ import annotations

import json
from pathlib import Path

from crush_trio import limits
from tests.e2e.kit import Server, eventually, script


def test_no_frame_is_larger_than_its_bound_whatever_is_streamed(
    server: Server, project: Path
) -> None:
    """Contract 4: events are cut and say so, deltas are split; the text arrives whole."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    text = "\x01ü" * 400_000
    model = script(
        project / "m.json",
        [{"tool": "bash", "input": {"command": "head -c 1000000 /dev/zero", "description": "d"}}],
        [{"text": text}],
    )
    with server.stream(workspace, "after=now") as stream:
        run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
        frames = stream.until_end_of(run["run_id"])
    sizes = [len(json.dumps(frame, ensure_ascii=False).encode()) for frame in frames]
    assert max(sizes) <= limits.FRAME_OUT_BYTES
    pieces = [f for f in frames if f["type"] == "message_delta" and f["part"] == "text"]
    assert "".join(piece["text"] for piece in pieces) == text
    end = frames[-1]
    assert end["truncated"] == {"payload.payload.text": f"runs/{run['run_id']}"}
    assert server.record(run["run_id"])["text"] == text


def test_who_joins_while_a_tool_writes_gets_its_output_in_frames_that_fit(
    server: Server, project: Path
) -> None:
    """Contract 4: also when every character of it has to be escaped."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    command = "head -c 120000 /dev/zero; touch done; sleep 60"
    model = script(
        project / "m.json", [{"tool": "bash", "input": {"command": command, "description": "d"}}]
    )
    run = server.prompt(workspace, session, "go", model=model, permission_mode="allow")
    eventually((project / "done").exists)
    with server.stream(workspace, "after=now") as stream:
        shown = 0
        while shown < 120_000:
            frame = stream.next()
            if frame["type"] == "tool_output":
                assert frame["offset"] == shown
                assert len(json.dumps(frame)) <= limits.FRAME_OUT_BYTES
                shown += len(frame["text"])
    server.post(f"/v1/runs/{run['run_id']}/cancel", {})
    assert server.ended(run["run_id"])["outcome"] == "cancelled"
