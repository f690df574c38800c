"""What the tests of models share: requests made of messages, and a list of what was streamed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from crush_trio.agent.ports import (
    Model,
    ModelEvent,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolSpec,
)
from crush_trio.models.script import ScriptModel
from crush_trio.models.script_schema import parse_script
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.messages import Message, Part, TextPart

RUN = RunId("run-1")
SESSION = SessionId("session-1")
PATH = Path("/scripts/demo.json")


def message(role: str, *parts: Part, run_id: RunId | None = RUN) -> Message:
    """A message of the session."""
    return Message(MessageId("m"), role, SESSION, parts, run_id=run_id)


def user(text: str, run_id: RunId | None = RUN) -> Message:
    """A prompt."""
    return message("user", TextPart(text), run_id=run_id)


def request(
    *messages: Message,
    step: int = 1,
    run_id: RunId = RUN,
    tools: Sequence[ToolSpec] = (),
    workspace: Path = Path("/workspace"),
) -> ModelRequest:
    """A request with these messages; one that only says ``go`` if there are none."""
    return ModelRequest(
        system="",
        messages=messages or (user("go", run_id),),
        tools=tuple(tools),
        session_id=SESSION,
        run_id=run_id,
        step=step,
        workspace_path=workspace,
    )


def script(*actions: dict[str, Any], **step: Any) -> ScriptModel:
    """A script of one step."""
    return script_of({"actions": list(actions), **step})


def script_of(*steps: dict[str, Any], **top: Any) -> ScriptModel:
    """A script of these steps."""
    return ScriptModel(parse_script(orjson.dumps({"steps": steps, **top})), PATH)


async def play(model: Model, asked: ModelRequest) -> tuple[list[ModelEvent], StepEnd]:
    """Everything one request streams, and how it ends."""
    events: list[ModelEvent] = []
    end = await model.stream(asked, events.append)
    return events, end


def text_of(events: Sequence[ModelEvent]) -> str:
    """The text among what was streamed."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))
