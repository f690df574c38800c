"""Arguments of a tool call, checked; and problems of a call as results the model can act on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from crush_trio.agent.ports import (
    Decision,
    PermissionAsk,
    ToolCall,
    ToolContext,
    ToolResult,
)
from crush_trio.protocol.errors import CrushError

P = ParamSpec("P")
Run = Callable[P, Coroutine[Any, Any, ToolResult]]


class ToolProblem(CrushError):
    """Something the model can act on: its text becomes the error result of the call."""


class NotPermitted(ToolProblem):
    """The permission was refused; the text is the reason. ``stop_turn``: by a person (R70)."""

    def __init__(self, reason: str, *, stop_turn: bool = False) -> None:
        super().__init__(reason)
        self.stop_turn = stop_turn


def answered(run: Run[P]) -> Run[P]:
    """Make a tool's ``run`` answer problems instead of raising them.

    A `ToolProblem` becomes its text; an `OSError` becomes one sentence. Anything else is a bug
    and goes through.
    """

    @functools.wraps(run)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> ToolResult:
        try:
            return await run(*args, **kwargs)
        except NotPermitted as problem:
            return ToolResult(
                content=str(problem), is_error=True, denied=True, stop_turn=problem.stop_turn
            )
        except ToolProblem as problem:
            return ToolResult(content=str(problem), is_error=True)
        except OSError as problem:
            where = f": {problem.filename}" if isinstance(problem.filename, str) else ""
            return ToolResult(content=f"{problem.strerror or problem}{where}", is_error=True)

    return wrapper


def demand(decision: Decision) -> None:
    """Go on only if the permission was given.

    Raises:
        NotPermitted: It was not.
    """
    if not decision.allowed:
        raise NotPermitted(decision.reason or "Permission denied.", stop_turn=decision.stop_turn)


def demand_tool(call: ToolCall, context: ToolContext) -> None:
    """Go on unless a rule denies the tool by its name; for tools that ask for nothing.

    Raises:
        NotPermitted: One does.
    """
    ask = PermissionAsk(
        tool_name=call.name,
        action="use",
        description=f"Use {call.name}",
        path=str(context.workspace_path),
        params=dict(call.arguments),
        target=call.name,
    )
    demand(context.forbidden(ask))


def text(call: ToolCall, name: str, default: str | None = None) -> str:
    """A string argument; without ``default`` it must be there.

    Raises:
        ToolProblem: It is missing or no string.
    """
    value = call.arguments.get(name, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ToolProblem(f"{call.name}: the argument {name!r} must be a string")
    if "\0" in value and name not in {"content", "old_string", "new_string"}:
        raise ToolProblem(f"{call.name}: the argument {name!r} contains a NUL character")
    return value


def whole(call: ToolCall, name: str, default: int, *, most: int, least: int = 0) -> int:
    """A whole number argument, cut to at most ``most``; ``null`` and absence give ``default``.

    Raises:
        ToolProblem: It is no whole number, or below ``least``.
    """
    value = call.arguments.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ToolProblem(f"{call.name}: the argument {name!r} must be a whole number >= {least}")
    return min(value, most)


def flag(call: ToolCall, name: str) -> bool:
    """A boolean argument; ``null`` and absence are false.

    Raises:
        ToolProblem: It is something else.
    """
    value = call.arguments.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ToolProblem(f"{call.name}: the argument {name!r} must be true or false")
    return value


def schema(required: tuple[str, ...], /, **properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments object."""
    return {"type": "object", "properties": properties, "required": list(required)}


def string(description: str) -> dict[str, Any]:
    """The schema of a string argument."""
    return {"type": "string", "description": description}


def integer(description: str) -> dict[str, Any]:
    """The schema of a whole number argument."""
    return {"type": "integer", "description": description}


def boolean(description: str) -> dict[str, Any]:
    """The schema of a boolean argument."""
    return {"type": "boolean", "description": description}
