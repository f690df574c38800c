"""One small request to a model, made once, with the times at which its pieces came."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolSpec,
)
from crush_trio.http.connections import Connections
from crush_trio.models.dialects import dialect
from crush_trio.models.dialects.port import AnswerReader
from crush_trio.models.failures import Failure
from crush_trio.models.network.attempt import TimeLimits, attempt
from crush_trio.models.provider import Access, Target
from crush_trio.protocol.ids import MessageId, RunId, SessionId
from crush_trio.protocol.messages import Message, TextPart

TOOL: Final = ToolSpec(
    "report_word",
    "Reports a word to the user.",
    {
        "type": "object",
        "properties": {"word": {"type": "string", "description": "The word."}},
        "required": ["word"],
    },
)
"""What a model is offered to see whether it can call a tool; it is never run."""

COUNT: Final = "Write the numbers from one to ten as words, separated by spaces."
CALL: Final = f"Call the tool {TOOL.name} with the word marmot."

_SYSTEM: Final = "This is a test of the connection. Do what is asked, and nothing else."
NATIVE_CALL: Final = re.compile(
    r'"tool_calls"\s*:\s*\[\s*\{|"function_call"\s*:\s*\{|"functionCall"\s*:\s*\{'
    r'|"type"\s*:\s*"(?:tool_use|function_call)"'
)
"""A tool call in any of the protocols; inside a text its quotation marks would be escaped."""


@attrs.define(eq=False)
class Heard:
    """What came of one request; times are in seconds since it was made.

    ``calls`` are the names of the complete tool calls, ``is_native`` says that the protocol itself
    had one. Either ``end`` or ``failure`` is set at the end.
    """

    began: float
    at: list[float] = attrs.field(factory=list)
    text: str = ""
    thought: bool = False
    calls: list[str] = attrs.field(factory=list)
    is_native: bool = False
    end: StepEnd | None = None
    failure: Failure | None = None
    took_s: float = 0.0

    @property
    def first_s(self) -> float:
        """When the first piece came; 0 if none did."""
        return self.at[0] if self.at else 0.0

    @property
    def span_s(self) -> float:
        """From the first piece to the last."""
        return self.at[-1] - self.at[0] if self.at else 0.0

    def note(self, event: ModelEvent) -> None:
        """Take one event of the answer."""
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, ReasoningDelta):
            self.thought = True
        elif isinstance(event, ToolCallStart):
            self._begun = event.name
        elif isinstance(event, ToolCallEnd):
            self.calls.append(self._begun)
            return
        else:
            return
        self.at.append(trio.current_time() - self.began)

    _begun: str = attrs.field(default="", init=False)


@attrs.define(eq=False)
class _Listening:
    """A reader that also looks for tool calls of the protocol's own."""

    reader: AnswerReader
    heard: Heard

    def feed(self, event: str, data: str) -> None:
        """See `AnswerReader.feed`."""
        self.heard.is_native = self.heard.is_native or NATIVE_CALL.search(data) is not None
        self.reader.feed(event, data)

    @property
    def is_done(self) -> bool:
        """See `AnswerReader.is_done`."""
        return self.reader.is_done

    def end(self) -> StepEnd:
        """See `AnswerReader.end`."""
        return self.reader.end()


def request(prompt: str, *tools: ToolSpec, most_tokens: int) -> ModelRequest:
    """A request of its own: it belongs to no session."""
    session, run = SessionId("doctor"), RunId("doctor")
    message = Message(MessageId("doctor"), "user", session, (TextPart(prompt),), run_id=run)
    return ModelRequest(
        system=_SYSTEM,
        messages=(message,),
        tools=tools,
        session_id=session,
        run_id=run,
        step=1,
        workspace_path=Path("/"),
        max_output_tokens=most_tokens,
    )


async def ask(
    target: Target, connections: Connections, access: Access, wanted: ModelRequest
) -> Heard:
    """Make a request once, whatever comes of it; bounded by `limits.DOCTOR_ANSWER_S`."""
    await connections.ready()
    speaks = dialect(target.provider.dialect)
    heard = Heard(trio.current_time())
    most_s = limits.DOCTOR_ANSWER_S
    times = TimeLimits(limits.DOCTOR_CONNECT_S, most_s, most_s, most_s)

    def reader(emit: Emit) -> AnswerReader:
        return _Listening(speaks.reader(wanted, target, emit), heard)

    try:
        call = speaks.call(wanted, target, access)
        http = connections.client(is_local=target.provider.is_local)
        heard.end = await attempt(http, speaks, call, reader, target, heard.note, times)
    except Failure as exc:
        heard.failure = exc
    heard.took_s = trio.current_time() - heard.began
    return heard
