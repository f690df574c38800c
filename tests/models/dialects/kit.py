"""What the tests of dialects share: targets, requests, and recorded answers played to a reader.

A fixture is the text of a server-sent event stream, as a server wrote it. `split` is a plain
splitter for whole texts: how bytes are cut is the business of the network's tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from crush_trio.agent.ports import (
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningEnd,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolInputDelta,
    ToolSpec,
)
from crush_trio.models.dialects.port import AnswerReader, Dialect
from crush_trio.models.provider import Access, Choice, Provider, Target
from crush_trio.protocol.models import ModelInfo
from tests.models.kit import request as request  # part of this kit
from tests.models.kit import user as user

FIXTURES = Path(__file__).parent / "fixtures"
ACCESS = Access("https://api.example.test/v1", "sk-test")


def tool(name: str, *required: str) -> ToolSpec:
    """A tool whose required parameters are strings."""
    properties = {key: {"type": "string"} for key in required}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return ToolSpec(name, f"Does {name}.", schema)


VIEW = tool("view", "file_path")
BASH = tool("bash", "command")
_CHOICE = Choice()


def target(
    dialect: str = "openai-chat",
    *,
    provider: str = "acme",
    model: str = "m-1",
    access: Access = ACCESS,
    quirks: Sequence[str] = (),
    choice: Choice = _CHOICE,
    is_local: bool = False,
    extra_body: Mapping[str, Any] | None = None,
    system_prompt_prefix: str = "",
    **info: Any,
) -> Target:
    """A model of a provider; ``info`` are further fields of its `ModelInfo`."""
    return Target(
        Provider(
            id=provider,
            name=provider.title(),
            dialect=dialect,
            access=lambda: access,
            extra_body=extra_body or {},
            system_prompt_prefix=system_prompt_prefix,
            quirks=frozenset(quirks),
            is_local=is_local,
        ),
        ModelInfo(provider, model, **info),
        choice,
    )


def fixture(name: str) -> str:
    """The text of a recorded answer."""
    return (FIXTURES / name).read_text()


def split(text: str) -> Iterator[tuple[str, str]]:
    """The events of a whole stream as ``(event, data)``; comments and empty events are left out."""
    event = "message"
    data: list[str] = []
    for line in [*text.splitlines(), ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield event, "\n".join(data)
            event, data = "message", []
        elif field == "event":
            event = value
        elif field == "data":
            data.append(value)


def sse(*objects: Any, done: bool = True) -> str:
    """A stream of these JSON values, ended by ``[DONE]`` if ``done``."""
    lines = [f"data: {orjson.dumps(value).decode()}\n\n" for value in objects]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines)


@attrs.define
class Heard:
    """What a reader made of an answer; ``end`` is ``None`` if it was not asked for one."""

    events: list[ModelEvent] = attrs.field(factory=list)
    end: StepEnd | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))

    @property
    def reasoning(self) -> str:
        """What the model thought."""
        return "".join(e.text for e in self.events if isinstance(e, ReasoningDelta))

    @property
    def signatures(self) -> list[str]:
        """Of the thoughts that have ended, in order."""
        return [e.signature for e in self.events if isinstance(e, ReasoningEnd)]

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Id, name and input of each complete call, in the order in which they began.

        Checks on the way that a call's pieces add up to its input, that no id is used twice, and
        that nothing comes for a call that has not begun or has ended.
        """
        names: dict[str, str] = {}
        pieces: dict[str, str] = {}
        inputs: dict[str, str] = {}
        for event in self.events:
            match event:
                case ToolCallStart(call, name):
                    assert call not in names, f"call {call} begins twice"
                    names[call], pieces[call] = name, ""
                case ToolInputDelta(call, text):
                    assert call in set(names) - set(inputs), f"piece for {call}, not open"
                    pieces[call] += text
                case ToolCallEnd(call, text):
                    assert call in set(names) - set(inputs), f"end of {call}, not open"
                    assert pieces[call] in ("", text), f"pieces of {call} do not add up"
                    inputs[call] = text
                case _:
                    pass
        return [(call, names[call], inputs[call]) for call in names if call in inputs]


def play(
    dialect: Dialect,
    stream: str | Sequence[tuple[str, str]],
    *,
    asked: ModelRequest | None = None,
    at: Target | None = None,
    heard: Heard | None = None,
) -> Heard:
    """Play a whole stream (its text, or events) to a reader, to its end.

    What came before a failure is in ``heard``, if one is given.

    Raises:
        Failure: As the reader does.
    """
    heard = Heard() if heard is None else heard
    reader: AnswerReader = dialect.reader(
        asked or request(tools=(VIEW, BASH)), at or target(), heard.events.append
    )
    for event, data in split(stream) if isinstance(stream, str) else stream:
        reader.feed(event, data)
        heard.done = reader.is_done
        if reader.is_done:
            break
    heard.end = reader.end()
    return heard
