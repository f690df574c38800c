"""Reading tool calls that a model wrote as text, in the ways that model families write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from crush_trio.agent.ports import ToolSpec
from crush_trio.models.dialects.halves import encodable

_BLANKS: Final = re.compile(r"\s*")
_DECODER: Final = json.JSONDecoder(strict=False)  # models put raw line ends into strings
_OPEN: Final = re.compile(
    r"<tool_calls?>|<function_call>|<\|python_tag\|>|\[TOOL_CALLS\]|^[ \t]*```[^\n]*\n",
    re.MULTILINE,
)
_CLOSE: Final = re.compile(
    r"\s*(?:</tool_calls?>|</function_call>|<\|e(?:om|ot)_id\|>|</s>|^[ \t]*```[ \t]*$|[;,])",
    re.MULTILINE,
)
_FUNCTION: Final = re.compile(r"<function=([^>\s]{1,64})\s*>")
_FUNCTION_END: Final = re.compile(r"</function>|</tool_call>")
_PARAMETER: Final = re.compile(r"<parameter=([^>\s]{1,100})\s*>")
_PARAMETER_ENDS: Final = re.compile(r"</parameter>|(?=<parameter=)|\Z")
_NAMED: Final = re.compile(
    r"([A-Za-z0-9_.:/-]{1,64})\s*(?:\[CALL_ID\][^\[{]{0,64})?(?:\[ARGS\])?\s*(?=\{)", re.ASCII
)
_PAIRS_NAME: Final = re.compile(r"([A-Za-z0-9_.:/-]{1,64})\s*(?=<arg_key>|</tool_call>)", re.ASCII)
_PAIR: Final = re.compile(
    r"\s*<arg_key>([^<]{1,100})</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)


@attrs.frozen
class TextCall:
    """A call that was written as text; ``input`` is the JSON text of an object."""

    name: str
    input: str


def parse_block(
    text: str, tools: Sequence[ToolSpec], *, may_have_text: bool
) -> tuple[tuple[TextCall, ...], str] | None:
    """The calls in ``text``, at least one, and the text beside them; ``None`` if it has none.

    With ``may_have_text`` words may stand between and after the calls; without, they make it
    something else than calls.
    """
    schemas = {tool.name: tool.parameters for tool in tools}
    calls: list[TextCall] = []
    beside: list[str] = []
    place = 0
    while place < len(text):
        body = place
        while opened := _OPEN.match(text, body):
            body = _blanks(text, opened.end())
        found = _read(text, body, schemas)
        if found is not None:
            calls += found[0]
            place = _past_ends(text, found[1])
        elif body > place or not calls:
            return None
        else:
            later = _next_open(text, place)
            beside.append(text[place:later])
            place = later
    words = "".join(beside).strip()
    if not calls or (words and not may_have_text):
        return None
    return tuple(calls), words


def _next_open(text: str, place: int) -> int:
    places = [found.start() for p in (_OPEN, _FUNCTION) if (found := p.search(text, place + 1))]
    return min(places, default=len(text))


def _past_ends(text: str, place: int) -> int:
    while found := _CLOSE.match(text, place):
        place = found.end()
    return _blanks(text, place)


def _blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place


def _read(
    text: str, place: int, schemas: Mapping[str, Mapping[str, Any]]
) -> tuple[list[TextCall], int] | None:
    """The calls that begin at ``place``, after blanks, and where they end."""
    place = _blanks(text, place)
    if text.startswith(("{", "["), place):
        value, end = _json(text, place)
        calls = _calls_in(value)
        return (calls, end) if calls else None
    if found := _FUNCTION.match(text, place):
        return _function(text, found, schemas)
    if found := _NAMED.match(text, place):
        value, end = _json(text, found.end())
        return ([_call(found[1], value)], end) if type(value) is dict else None
    if found := _PAIRS_NAME.match(text, place):
        end = found.end()
        arguments: dict[str, Any] = {}
        while pair := _PAIR.match(text, end):
            key = pair[1].strip()
            arguments[key] = _typed(pair[2], key, schemas.get(found[1], {}))
            end = pair.end()
        return [_call(found[1], arguments)], end
    return None


def _function(
    text: str, found: re.Match[str], schemas: Mapping[str, Mapping[str, Any]]
) -> tuple[list[TextCall], int] | None:
    end = _FUNCTION_END.search(text, found.end())
    if end is None:
        return None  # it was cut off: what is missing is not known
    stop, past = end.span()
    inner = text[found.end() : stop]
    if inner.lstrip().startswith("{"):
        value, _ = _json(inner, len(inner) - len(inner.lstrip()))
        return ([_call(found[1], value)], past) if type(value) is dict else None
    arguments: dict[str, Any] = {}
    for opened in _PARAMETER.finditer(inner):
        closed = _PARAMETER_ENDS.search(inner, opened.end())
        value = inner[opened.end() : closed.start() if closed else len(inner)]
        if closed is None or not closed[0]:
            value = value.rstrip("\n")  # nothing says where it ends
        arguments[opened[1]] = _typed(value, opened[1], schemas.get(found[1], {}))
    return [_call(found[1], arguments)], past


def _json(text: str, place: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, place


def _calls_in(value: Any) -> list[TextCall]:
    """The calls in a parsed value; none if one thing in it is no call."""
    if type(value) is dict and type(value.get("tool_calls")) is list:
        value = value["tool_calls"]
    calls = [_call_in(item) for item in (value if type(value) is list else [value])]
    whole = [call for call in calls if call is not None]
    return whole if len(whole) == len(calls) else []


def _call_in(item: Any) -> TextCall | None:
    if type(item) is not dict:
        return None
    inner = item.get("function")
    if type(inner) is dict:
        item, inner = inner | {k: v for k, v in item.items() if k != "function"}, None
    names = (item.get("name"), inner, item.get("tool"), item.get("tool_name"))
    name = next((found for found in names if found), None)
    keys = ("arguments", "parameters", "args", "input")
    arguments: Any = next((item[key] for key in keys if item.get(key) is not None), {})
    if type(arguments) is str:
        arguments, _ = _json(arguments, 0) if arguments.strip() else ({}, 0)
    if type(name) is not str or type(arguments) is not dict:
        return None
    return _call(name, arguments)


def _call(name: str, arguments: Mapping[str, Any]) -> TextCall:
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return TextCall(encodable(name), encodable(text))


def _typed(value: str, key: str, schema: Mapping[str, Any]) -> Any:
    """A value between tags as the tool's schema wants it; text if that does not say."""
    text = value.removeprefix("\n").removesuffix("\n")
    properties = schema.get("properties")
    wanted = properties.get(key) if isinstance(properties, Mapping) else None
    if not isinstance(wanted, Mapping) or wanted.get("type", "string") == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
