"""Which frames are a run's own, and when it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.cli.result import result_line
from crush_trio.cli.run_watch import RunWatch


def frame(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "seq": 1, "payload": {"type": "updated", "payload": payload}}


def run(run_id: str, **more: Any) -> dict[str, Any]:
    return frame("run", id=run_id, state="running", outcome=None, steps=3, error=None, **more)


def complete(run_id: str, outcome: str, **more: Any) -> dict[str, Any]:
    return frame("run_complete", run_id=run_id, session_id="s", outcome=outcome, **more)


def test_the_record_is_the_last_run_event_with_the_ending_over_it() -> None:
    watch = RunWatch("a")
    assert watch.take(run("a"))
    detail = {"code": "x", "message": "why", "retryable": False}
    assert watch.take(complete("a", "failed", text="partial", error="why", error_detail=detail))
    assert watch.ended
    assert watch.record is not None
    found = {key: watch.record[key] for key in ("outcome", "text", "error", "steps", "state")}
    assert found == {
        "outcome": "failed", "text": "partial", "error": detail, "steps": 3, "state": "finished",
    }  # fmt: skip


def test_frames_of_another_run_of_the_session_are_not_ours() -> None:
    watch = RunWatch("a")
    assert not watch.take(run("b"))
    assert not watch.take({"type": "message_delta", "run_id": "b", "text": "x"})
    assert not watch.take(frame("message", id="m", run_id="b"))
    assert not watch.take(complete("b", "completed"))
    assert not watch.ended
    assert watch.take(frame("session", id="s"))
    assert watch.take({"type": "message_delta", "run_id": "a", "text": "x"})


def test_a_child_of_our_run_is_ours_but_its_ending_is_not() -> None:
    watch = RunWatch("a")
    assert watch.take(run("child", parent_run="a"))
    assert watch.take(complete("child", "failed"))
    assert not watch.ended


def test_a_steered_run_is_followed_into_the_run_it_joined() -> None:
    watch = RunWatch("a")
    watch.take(run("a"))
    assert watch.take(complete("a", "steered", steered_into="b"))
    assert not watch.ended
    assert watch.current == watch.steered_into == "b"
    assert watch.take(run("b"))
    watch.take(complete("b", "completed", text="done"))
    assert watch.record is not None
    assert watch.record["text"] == "done"


def test_the_joined_run_may_have_ended_before_we_knew_that_we_joined_it() -> None:
    watch = RunWatch("a")
    watch.take(run("b"))
    watch.take(complete("b", "completed", text="done"))
    watch.take(run("a"))
    watch.take(complete("a", "steered", steered_into="b"))
    assert watch.record is not None
    assert watch.record["text"] == "done"


@pytest.mark.parametrize("joined", ["", "a"])
def test_a_steering_that_leads_nowhere_ends_the_watch(joined: str) -> None:
    watch = RunWatch("a")
    watch.take(complete("a", "steered", steered_into=joined))
    assert watch.ended


def test_a_whole_record_from_the_server_ends_the_watch_when_it_is_finished() -> None:
    watch = RunWatch("a")
    watch.adopt({"id": "a", "state": "running", "outcome": None})
    assert not watch.ended
    error = {"code": "lost", "message": "gone", "retryable": True}
    watch.adopt({"id": "a", "state": "finished", "outcome": "lost", "error": error, "text": ""})
    assert watch.record is not None
    assert (watch.record["outcome"], watch.record["error"]) == ("lost", error)


def test_the_result_without_a_record_says_why_there_is_none() -> None:
    line = result_line(
        run_id="a", session_id=None, record=None, exit_code=124, reason="wait_timeout"
    )
    assert line == {
        "type": "result", "schema_version": 1, "run_id": "a", "session_id": None,
        "outcome": None, "exit_code": 124, "text": "", "error": None, "steered_into": None,
        "reason": "wait_timeout",
    }  # fmt: skip
