"""A hundred subscribers, some of whom do not read (G8, G9); a thousand are in `scripts/bench`."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.crowd import Member, crowd, raise_file_limit, read_until
from tests.e2e.kit import Server, script
from tests.e2e.streams import is_event

TOKENS = 120


def check(member: Member, text: str) -> None:
    """Every event once and in order, and the text piece by piece without a hole."""
    seqs = [item["seq"] for item in member.objects if is_event(item)]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    shown = ""
    for item in member.objects:
        if item["type"] == "message_delta":
            assert item["offset"] == len(shown)
            shown += item["text"]
    assert shown == text


def test_a_hundred_subscribers_miss_nothing_beside_two_that_stopped_reading(
    server: Server, project: Path
) -> None:
    """G9: who stops reading delays nobody and leaves no gap for anyone."""
    raise_file_limit(1_024)
    workspace = server.workspace(project)
    session = server.session(workspace)
    model = script(project / "m.json", [{"text": "word ", "tokens": TOKENS, "every_ms": 10}])
    with (
        crowd(server, workspace, 100, "after=now") as members,
        crowd(server, workspace, 2, "after=start"),
    ):
        read_until(members, "replayed")
        run = server.prompt(workspace, session, "go", model=model)["run_id"]
        read_until(members, "run_complete")
    text = server.record(run)["text"]
    assert text == "word " * TOKENS
    for member in members:
        check(member, text)
