"""A recording is a script that streams the same again, and never overwrites anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio

from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StepEnd,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
)
from crush_trio.models.record import RecordingModel
from crush_trio.models.script import ScriptModel
from crush_trio.models.script_schema import load_script, parse_script
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId
from tests.models.kit import play, request, script, script_of, text_of, user


def replay(path: Path) -> ScriptModel:
    return ScriptModel(load_script(path), path)


async def timed(model: Any, asked: ModelRequest) -> list[tuple[float, ModelEvent]]:
    start, events = trio.current_time(), list[tuple[float, ModelEvent]]()
    await model.stream(asked, lambda event: events.append((trio.current_time() - start, event)))
    return events


async def test_a_recording_streams_the_same_pieces_at_the_same_times(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    original = script(
        {"wait_ms": 800},
        {"reasoning": "thinking", "signature": "s", "piece_chars": 4, "every_ms": 50},
        {"text": "ab", "tokens": 5, "every_ms": 10},
        {"wait_ms": 400},
        {"usage_so_far": {"input_tokens": 3}, "times": 2, "every_ms": 100},
        {"text": "after a pause"},
        {"reset": "status 500", "attempt": 1, "max_attempts": 3, "delay_ms": 2000},
        {"text": "again"},
        {"tool": "view", "input": {"file_path": "x"}, "piece_chars": 5, "every_ms": 20},
        {"tool": "bash", "raw_input": '{"comm'},
        usage={
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_tokens": 0,
            "cache_write_tokens": 4,
        },
        cost_usd=0.25,
    )
    path = tmp_path / "record.json"
    asked = request()
    first = await timed(RecordingModel(original, path), asked)
    second = await timed(replay(path), asked)
    ids = {
        event.id: number
        for events in (first, second)
        for number, event in enumerate(e for _, e in events if isinstance(e, ToolCallStart))
    }

    def plain(event: ModelEvent) -> ModelEvent | tuple[object, ...]:
        if isinstance(event, ToolCallStart):
            return ("start", ids[event.id], event.name)
        if isinstance(event, ToolInputDelta):
            return ("delta", ids[event.id], event.text)
        if isinstance(event, ToolCallEnd):
            return ("end", ids[event.id], event.input)
        return event

    assert [plain(event) for _, event in first] == [plain(event) for _, event in second]
    assert [at for at, _ in first] == pytest.approx([at for at, _ in second], abs=0.002)
    _, end = await play(replay(path), asked)
    assert end == (await play(original, asked))[1]


async def test_a_recorded_error_is_raised_again(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    original = script(
        {"text": "partial"},
        {"error": "Too busy.", "code": "overloaded", "retryable": True, "title": "Busy"},
    )
    with pytest.raises(ModelError):
        await play(RecordingModel(original, path), request())
    with pytest.raises(ModelError) as caught:
        await play(replay(path), request())
    assert (caught.value.code, caught.value.message) == ("overloaded", "Too busy.")
    assert (caught.value.retryable, caught.value.title) == (True, "Busy")


async def test_a_cancelled_step_is_recorded_up_to_there_and_then_silent(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "record.json"
    recording = RecordingModel(script({"text": "x"}, {"wait_ms": 60_000}, {"text": "y"}), path)
    with trio.move_on_after(1) as scope:
        await play(recording, request())
    assert scope.cancelled_caught
    events: list[ModelEvent] = []
    with trio.move_on_after(1_000) as scope:
        await replay(path).stream(request(), events.append)
    assert scope.cancelled_caught
    assert text_of(events) == "x"


async def test_each_run_of_a_recording_is_found_again_by_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    model = script_of(
        {"when": {"prompt_is": "b"}, "actions": [{"text": "B"}]}, {"actions": [{"text": "A"}]}
    )
    recording = RecordingModel(model, path)
    asked_a = request(user("a", RunId("1")), run_id=RunId("1"))
    asked_b = request(user("a", RunId("1")), user("b", RunId("2")), run_id=RunId("2"))
    await play(recording, asked_a)
    assert "when" not in orjson.loads(path.read_bytes())["steps"][0]
    await play(recording, asked_b)
    assert text_of((await play(replay(path), asked_a))[0]) == "A"
    assert text_of((await play(replay(path), asked_b))[0]) == "B"


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("mine")
    with pytest.raises(Refused, match="exists already") as caught:
        RecordingModel(script(), path)
    assert (caught.value.code, caught.value.status) == ("record_file", 400)
    assert path.read_text() == "mine"


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be created: No such file or directory"):
        RecordingModel(script(), tmp_path / "no" / "such.json")
    with pytest.raises(Refused, match="must be an absolute path"):
        RecordingModel(script(), Path("record.json"))


async def test_the_file_is_whole_from_the_start_and_after_every_step(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    recording = RecordingModel(script_of({"actions": [{"text": "x"}]}, then="repeat"), path)
    sizes = [len(load_script(path).steps)]
    for step in (1, 2, 3):
        await play(recording, request(step=step))
        sizes.append(len(load_script(path).steps))
    assert sizes == [0, 1, 2, 3]
    assert os.listdir(tmp_path) == [path.name]


async def test_a_recording_that_cannot_be_written_fails_the_run_and_says_why(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "there"
    directory.mkdir()
    recording = RecordingModel(script({"text": "x"}), directory / "record.json")
    (directory / "record.json").unlink()
    directory.rmdir()
    with pytest.raises(ModelError) as caught:
        await play(recording, request())
    assert caught.value.code == "record_failed"


class _Interleaved:
    """Streams two calls side by side, and leaves a third one open."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(provider="test", model="interleaved")

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.lowlevel.checkpoint()
        for event in (
            ToolCallStart("1", "view"),
            ToolCallStart("2", "ls"),
            ToolInputDelta("2", "{}"),
            ToolInputDelta("1", '{"a":1}'),
            ToolCallEnd("1", '{"a":1}'),
            ToolCallEnd("2", "{}"),
            ToolCallStart("3", "never"),
        ):
            emit(event)
        return StepEnd("tool_use")


async def test_calls_that_stream_side_by_side_are_recorded_one_after_the_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "record.json"
    await play(RecordingModel(_Interleaved(), path), request())
    step = orjson.loads(path.read_bytes())["steps"][0]
    assert [action["tool"] for action in step["actions"]] == ["view", "ls"]
    assert step["finish"] == "tool_use"


async def test_a_recorded_summary_is_played_again_as_one(tmp_path: Path) -> None:
    """R65: it takes no step away from the run."""
    original = script_of({"actions": [{"text": "a"}]}, summary=[{"actions": [{"text": "b"}]}])
    recording = RecordingModel(original, tmp_path / "made.json")
    summary = attrs.evolve(request(), summary=True)
    for asked in (summary, request()):
        await recording.stream(asked, lambda _event: None)
    again = replay(tmp_path / "made.json")
    assert text_of((await play(again, summary))[0]) == "b"
    assert text_of((await play(again, request()))[0]) == "a"


async def test_what_sub_agents_do_is_recorded_as_theirs_whichever_model_they_have(
    tmp_path: Path,
) -> None:
    """CW 7.5: a small model beside the recorded one writes into the same file."""

    class WithSmaller(ScriptModel):
        def smaller(self) -> Model | None:
            return script_of(sub_agents=[{"actions": [{"text": "by the small one"}]}])

    task = attrs.evolve(request(), sub_agent=True)
    raw = '{"steps":[{"actions":[{"text":"mine"}]}],"sub_agents":[{"actions":[{"text":"I"}]}]}'
    recording = RecordingModel(WithSmaller(parse_script(raw), tmp_path), tmp_path / "made.json")
    small = recording.smaller()
    assert small is not None
    assert small.info.provider == "script"
    for model, asked in ((recording, request()), (small, task), (recording, task)):
        await model.stream(asked, lambda _event: None)
    made = orjson.loads((tmp_path / "made.json").read_bytes())
    assert [len(made[where]) for where in ("steps", "sub_agents")] == [1, 2]
    again = replay(tmp_path / "made.json")
    assert text_of((await play(again, task))[0]) == "by the small one"
    assert text_of((await play(again, request()))[0]) == "mine"
    assert RecordingModel(script(), tmp_path / "other.json").smaller() is None


async def test_a_title_is_passed_through_and_not_recorded(tmp_path: Path) -> None:
    """CW 5.12: the large model may be asked for one, and it is no step of the conversation."""
    path = tmp_path / "r.json"
    recording = RecordingModel(script({"text": "Marmots"}), path)
    events, _ = await play(recording, attrs.evolve(request(), title=True))
    assert text_of(events) == "Marmots"
    assert orjson.loads(path.read_bytes())["steps"] == []
