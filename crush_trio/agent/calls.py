"""From what a model asked for to a call that may be run, or the error result it gets instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from crush_trio.agent.ports import Tool, ToolCall, ToolResult
from crush_trio.protocol.messages import Message, ToolCallPart, ToolResultPart

BAD_ARGUMENTS = (
    "Tool call failed: arguments were not valid JSON. "
    "Please check your tool call format and try again."
)


def prepare(part: ToolCallPart, tools: Mapping[str, Tool]) -> tuple[Tool, ToolCall] | ToolResult:
    """The tool and the checked call, or an error result for the model (CW 5.6)."""
    tool = tools.get(part.name)
    if tool is None:
        names = ", ".join(sorted(tools)) or "none"
        return ToolResult(f"Unknown tool {part.name!r}; the tools are: {names}", is_error=True)
    arguments = parse_arguments(part.input)
    if arguments is None or not part.finished:  # what broke off in the middle is not run
        return ToolResult(BAD_ARGUMENTS, is_error=True)
    call = checked(tool, part.id, arguments)
    return call if isinstance(call, ToolResult) else (tool, call)


def checked(tool: Tool, call_id: str, arguments: Mapping[str, Any]) -> ToolCall | ToolResult:
    """The call with these arguments, or an error result: a required one is missing, or wrong."""
    name = tool.spec.name
    missing = [key for key in tool.spec.parameters.get("required", ()) if key not in arguments]
    if missing:
        return ToolResult(
            f"Missing required parameter: {', '.join(missing)} (tool {name})", is_error=True
        )
    wrong = _wrong_types(arguments, tool.spec.parameters.get("properties", {}))
    if wrong:
        return ToolResult(f"Wrong parameter type: {wrong} (tool {name})", is_error=True)
    return ToolCall(call_id, name, arguments)


def cut_off(asked: Sequence[ToolCallPart]) -> ToolCallPart | None:
    """Of an answer that ended at its output limit, the call that was being written, if there is
    one: the last, if its provider did not complete it or it has no arguments yet. Arguments that
    broke off in the middle are no JSON, and not run either."""
    last = asked[-1] if asked else None
    if last is None or (last.finished and last.input.strip()):
        return None
    return last


def parse_arguments(text: str) -> dict[str, Any] | None:
    """The arguments as an object; ``None`` if the text is not one. Empty text is ``{}``."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if type(value) is dict else None


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _wrong_types(arguments: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    wrong = []
    for key, value in arguments.items():
        expected = properties.get(key, {}).get("type")
        allowed = _JSON_TYPES.get(expected) if isinstance(expected, str) else None
        if allowed is not None and value is not None and type(value) not in allowed:
            wrong.append(f"{key} must be {expected}")
    return ", ".join(wrong)


def sanitised(message: Message) -> Message:
    """The message with every tool call finished, its input a JSON object (R51)."""
    parts = tuple(
        sanitised_call(part) if isinstance(part, ToolCallPart) else part for part in message.parts
    )
    return attrs.evolve(message, parts=parts)


def sanitised_call(part: ToolCallPart) -> ToolCallPart:
    """A finished call; input that is broken, cut off or missing becomes ``{}``."""
    whole = part.finished and part.input.strip() and parse_arguments(part.input) is not None
    return attrs.evolve(part, input=part.input if whole else "{}", finished=True)


def result_part(call: ToolCallPart, result: ToolResult) -> ToolResultPart:
    """A tool's answer as it is stored."""
    metadata = ""
    if result.metadata:
        plain = json.dumps(dict(result.metadata), ensure_ascii=False, separators=(",", ":"))
        metadata = encodable(plain)
    return ToolResultPart(
        tool_call_id=call.id,
        name=call.name,
        content=encodable(result.content),
        metadata=metadata,
        is_error=result.is_error,
        data=result.data,
        mime_type=result.mime_type,
    )


def encodable(text: str) -> str:
    """The text with lone surrogates replaced; a file name that is no UTF-8 brings them along."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def signature(calls: Sequence[ToolCallPart], results: Sequence[ToolResultPart]) -> int:
    """What the loop breaker compares: names, inputs and outputs of one step (R66)."""
    return hash(
        (
            tuple((call.name, call.input) for call in calls),
            tuple(sorted((part.name, part.content) for part in results)),
        )
    )
