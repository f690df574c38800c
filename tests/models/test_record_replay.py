"""Whatever a model streams: its recording, played, gives the same message, usage and ending."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crush_trio.agent.live import LiveMessage
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    StreamReset,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    UsageSoFar,
)
from crush_trio.models.masking import masked_actions, secrets_among
from crush_trio.models.record import RecordingModel
from crush_trio.models.script import ScriptModel
from crush_trio.models.script_schema import load_script
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.messages import Message, ToolCallPart
from crush_trio.protocol.runs import Usage
from tests.models.kit import message, play, request, user

INFO = ModelInfo(
    provider="p",
    model="m",
    name="M",
    context_window=9,
    max_output_tokens=3,
    cost_per_1m_in=1.0,
    cost_per_1m_out=2.0,
    cost_per_1m_in_cached=1.25,
    cost_per_1m_out_cached=0.1,
    can_reason=True,
    reasoning_levels=("low", "high"),
    default_reasoning_effort="low",
    supports_attachments=False,
    supports_tools=True,
)


@attrs.frozen
class _Streams:
    """Streams what it is given, and ends as it is told."""

    events: tuple[ModelEvent, ...]
    end: StepEnd | ModelError
    info: ModelInfo = INFO

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        await trio.lowlevel.checkpoint()
        for event in self.events:
            emit(event)
        if isinstance(self.end, ModelError):
            raise self.end
        return self.end


KINDS = ("text", "think", "sign", "call", "part", "done", "usage", "reset")
texts = st.text(st.characters(codec="utf-8"), max_size=6)
counts = st.integers(0, 10**6)
usages = st.builds(Usage, counts, counts, counts, counts, st.booleans())
inputs = st.one_of(
    texts, st.dictionaries(texts, counts, max_size=2).map(lambda each: orjson.dumps(each).decode())
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[ModelEvent, ...]:
    """Events as a provider may send them: calls side by side, resets, thoughts left open."""
    events: list[ModelEvent] = []
    calls: dict[str, str] = {}
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(KINDS))
        if kind == "text":
            events.append(TextDelta(draw(texts.filter(bool))))
        elif kind == "think":
            events.append(ReasoningDelta(draw(texts)))
        elif kind == "sign":
            events.append(ReasoningEnd(draw(texts)))
        elif kind == "usage":
            events.append(UsageSoFar(draw(usages)))
        elif kind == "reset":
            events.append(StreamReset(draw(st.integers(1, 3)), 3, 0.0, draw(texts)))
            calls.clear()
        elif kind == "call":
            calls[f"c{number}"] = ""
            events.append(ToolCallStart(f"c{number}", draw(st.sampled_from(["view", "bash"]))))
        elif calls:
            call = draw(st.sampled_from(sorted(calls)))
            if kind == "part":
                piece = draw(texts)
                calls[call] += piece
                events.append(ToolInputDelta(call, piece))
            else:
                raw = calls.pop(call) + draw(inputs)
                events.append(ToolCallEnd(call, raw, draw(texts)))
    events += [ToolCallEnd(call, raw, "") for call, raw in calls.items()]
    return tuple(events)


errors = st.builds(
    ModelError, st.sampled_from(["a", "b"]), texts, retryable=st.booleans(), title=texts
)
endings = st.builds(
    StepEnd,
    st.sampled_from(["end_turn", "tool_use", "max_tokens"]),
    st.none() | usages,
    st.none() | st.floats(0, 9),
)


async def outcome(model: Model) -> tuple[Message, list[ModelEvent], object]:
    """The message it writes with its calls numbered, what else it reports, and how it ends."""
    live = LiveMessage(message("assistant"), lambda *_: None, lambda: 0)
    others: list[ModelEvent] = []

    def take(event: ModelEvent) -> None:
        live.apply(event)
        if isinstance(event, UsageSoFar | StreamReset):
            others.append(event)

    end: object
    try:
        end = await model.stream(request(), take)
    except ModelError as exc:
        end = (exc.code, exc.message, exc.retryable, exc.title)
    parts = [
        attrs.evolve(part, id=str(place)) if isinstance(part, ToolCallPart) else part
        for place, part in enumerate(live.finish("x").parts)
    ]
    return attrs.evolve(live.base, parts=tuple(parts)), others, end


@given(streams(), endings | errors)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_recording_plays_what_was_streamed(
    events: tuple[ModelEvent, ...], end: StepEnd | ModelError
) -> None:
    """G13 for recordings: text, thoughts, calls, signatures, resets, usage and errors alike."""

    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made.json"
            first = await outcome(RecordingModel(_Streams(events, end), path))
            again = ScriptModel(load_script(path), path)
            assert await outcome(again) == first
            told = attrs.evolve(again.info, provider="p", model="m", reports_cost=False)
            assert told == INFO

    trio.run(check)


async def test_a_key_that_the_model_repeats_is_not_recorded(tmp_path: Path) -> None:
    key = "sk-ant-0123456789"
    events = (
        TextDelta(f"the key is {key[:9]}"),
        UsageSoFar(Usage(1)),
        TextDelta(f"{key[9:]}, or so"),
        ReasoningDelta(key),
        ToolCallStart("1", "bash"),
        ToolCallEnd("1", orjson.dumps({"command": f"echo {key}", key: [key]}).decode()),
        ToolCallStart("2", "bash"),
        ToolCallEnd("2", f'{{"broken {key}', f"sig {key}"),
    )
    failed = ModelError("provider_auth", f"wrong key {key}")
    path = tmp_path / "made.json"
    recording = RecordingModel(_Streams(events, failed), path, lambda: (f"Bearer {key}", "low"))
    with pytest.raises(ModelError):
        await play(recording, request())
    raw = path.read_text()
    assert "sk-ant" not in raw
    assert "0123" not in raw  # where it was cut in two
    said, _others, end = await outcome(ScriptModel(load_script(path), path))
    assert said.parts[0].text == "the key is ***, or so"  # type: ignore[union-attr]
    assert end == ("provider_auth", "wrong key ***", False, "Provider Error")


async def test_a_key_in_a_prompt_is_not_recorded(tmp_path: Path) -> None:
    key, path = "sk-ant-0123456789", tmp_path / "made.json"
    recording = RecordingModel(_Streams((), StepEnd("end_turn")), path, lambda: (key,))
    for run in (RunId("1"), RunId("2")):  # of several runs each is found again by its prompt
        await play(recording, request(user(f"use {key}", run), run_id=run))
    assert "use ***" in path.read_text()
    assert key not in path.read_text()


def test_what_is_too_short_to_be_a_key_is_left_alone() -> None:
    actions: list[dict[str, Any]] = [{"text": "low"}]
    assert masked_actions(actions, secrets_among(["low", "", "Bearer "])) == actions
