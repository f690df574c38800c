"""The tool `todos`: replace the session's to-do list (CW 7.1, 7.5, 13.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.protocol.sessions import TODO_STATUS, Todo
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered

_TODO = arguments.schema(
    ("content", "status", "active_form"),
    content=arguments.string("What is to be done, as in 'Write the test'"),
    status={"type": "string", "enum": list(TODO_STATUS)},
    active_form=arguments.string("The same while it is being done, as in 'Writing the test'"),
)
_SPEC = ToolSpec(
    name="todos",
    description=(
        "Keep a list of what is to be done, which the user sees. Use it for work of three steps or "
        "more: write the list first, set one entry to in_progress when you begin it, and to "
        "completed as soon as it is done. Each call replaces the whole list: give all entries. "
        "An empty list clears it."
    ),
    parameters=arguments.schema(("todos",), todos={"type": "array", "items": _TODO}),
)


class TodosTool:
    """Replaces the to-do list; it is stored with the result, in one commit."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Check the list, and say what has changed."""
        arguments.demand_tool(call, context)
        todos = read_todos(call)
        before = await context.todos()
        return ToolResult(said_of(todos), metadata=metadata_of(before, todos), todos=todos)


def read_todos(call: ToolCall) -> tuple[Todo, ...]:
    """The list of a call.

    Raises:
        ToolProblem: An entry is wrong or too long, or there are too many; it says which.
    """
    items = call.arguments.get("todos")
    if not isinstance(items, list):
        raise ToolProblem("todos: `todos` must be a list of entries")
    if len(items) > limits.TODOS_MAX:
        raise ToolProblem(
            f"todos: `todos` has {len(items)} entries; at most {limits.TODOS_MAX} are kept. "
            "Join some, and leave out what is done"
        )
    return tuple(_todo(item, f"todos[{index}]") for index, item in enumerate(items))


def _todo(item: Any, where: str) -> Todo:
    if not isinstance(item, dict):
        raise ToolProblem(f"todos: `{where}` must be an object")
    status = item.get("status")
    if status not in TODO_STATUS:
        raise ToolProblem(f"todos: `{where}.status` must be one of {', '.join(TODO_STATUS)}")
    content = _text(item, "content", where)
    return Todo(content, status, _text(item, "active_form", where, content))


def _text(item: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = item.get(key)
    if value in (None, "") and default is not None:
        return default
    if not isinstance(value, str) or not value.strip():
        raise ToolProblem(f"todos: `{where}.{key}` must be a text")
    if len(value.encode("utf-8", "replace")) > limits.TODO_BYTES:
        raise ToolProblem(f"todos: `{where}.{key}` is longer than {limits.TODO_BYTES} bytes")
    return value


def said_of(todos: Sequence[Todo]) -> str:
    """What the model reads: that the list is as it wanted, and how it stands."""
    if not todos:
        return "The to-do list is empty now."
    count = Counter(todo.status for todo in todos)
    numbers = ", ".join(f"{count[status]} {status}" for status in TODO_STATUS if count[status])
    sentence = f"The to-do list is updated: {numbers}."
    return sentence + (" Go on with it." if count["completed"] < len(todos) else "")


def metadata_of(before: Sequence[Todo], todos: Sequence[Todo]) -> dict[str, Any]:
    """What clients show of the change (CW 7.5). Entries are told apart by their content."""
    was = {todo.content: todo.status for todo in before}
    changed = [todo for todo in todos if was.get(todo.content) != todo.status]
    started = [todo.active_form for todo in changed if todo.status == "in_progress"]
    completed = [todo.content for todo in changed if todo.status == "completed"]
    return {
        "is_new": not before,
        "todos": [attrs.asdict(todo) for todo in todos],
        **({"just_completed": completed} if completed and before else {}),
        **({"just_started": started[0]} if started else {}),
        "completed": sum(todo.status == "completed" for todo in todos),
        "total": len(todos),
    }
