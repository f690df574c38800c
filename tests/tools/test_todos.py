"""The tool `todos`: what it takes, what it stores with its result, and what clients are told."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from crush_trio import limits
from crush_trio.agent.ports import ToolResult
from crush_trio.protocol.sessions import Todo
from crush_trio.tools.todos import TodosTool
from tests.tools.desk import Desk


def entry(content: str, status: str = "pending", **more: Any) -> dict[str, Any]:
    return {"content": content, "status": status, "active_form": f"{content} now"} | more


async def called(desk: Desk, *todos: Any) -> ToolResult:
    """Replace the list; the next call finds it so."""
    result = await desk.call(TodosTool(), todos=list(todos))
    if result.todos is not None:
        desk.todos = result.todos
    return result


async def test_each_call_replaces_the_list_and_tells_what_has_changed(desk: Desk) -> None:
    """CW 7.5: `just_completed` and `just_started` speak of this call's changes alone."""
    first = await called(desk, entry("write", "in_progress"), entry("test"))
    assert first.metadata == {
        "is_new": True,
        "todos": [entry("write", "in_progress"), entry("test")],
        "just_started": "write now",
        "completed": 0,
        "total": 2,
    }
    assert (first.content, first.is_error) == (
        "The to-do list is updated: 1 pending, 1 in_progress. Go on with it.",
        False,
    )
    second = await called(desk, entry("write", "completed"), entry("test", "in_progress"))
    assert second.todos == (
        Todo("write", "completed", "write now"),
        Todo("test", "in_progress", "test now"),
    )
    assert second.metadata is not None
    assert second.metadata["just_completed"] == ["write"]
    assert (second.metadata["just_started"], second.metadata["is_new"]) == ("test now", False)
    third = await called(desk, entry("write", "completed"), entry("test", "completed"))
    assert third.content == "The to-do list is updated: 2 completed."
    assert third.metadata is not None
    assert (third.metadata["just_completed"], third.metadata["completed"]) == (["test"], 2)
    assert "just_started" not in third.metadata
    empty = await called(desk)
    assert (empty.content, empty.todos) == ("The to-do list is empty now.", ())


async def test_an_entry_without_an_active_form_is_called_as_it_is(desk: Desk) -> None:
    result = await called(desk, {"content": "write", "status": "pending"})
    assert result.todos == (Todo("write", "pending", "write"),)


@pytest.mark.parametrize(
    ("todos", "sentence"),
    [
        ("write", "`todos` must be a list"),
        (["write"], "`todos[0]` must be an object"),
        ([entry("a"), entry("b", "done")], "`todos[1].status` must be one of pending, in_progress"),
        ([entry("a", "")], "`todos[0].status` must be one of"),
        ([entry("  ")], "`todos[0].content` must be a text"),
        ([entry("a", active_form=7)], "`todos[0].active_form` must be a text"),
        ([entry("é" * limits.TODO_BYTES)], f"is longer than {limits.TODO_BYTES} bytes"),
        ([entry("a")] * (limits.TODOS_MAX + 1), f"at most {limits.TODOS_MAX} are kept"),
    ],
)
async def test_a_wrong_list_is_refused_in_a_sentence_and_nothing_is_stored(
    desk: Desk, todos: Any, sentence: str
) -> None:
    """G14: it names the entry."""
    result = await desk.call(TodosTool(), todos=todos)
    assert (result.is_error, result.todos, result.metadata) == (True, None, None)
    assert sentence in result.content
    assert len(result.content) < 300


async def test_a_list_at_its_bounds_is_taken(desk: Desk) -> None:
    largest = entry("x" * limits.TODO_BYTES, active_form="y" * limits.TODO_BYTES)
    result = await called(desk, *[largest] * limits.TODOS_MAX)
    assert result.todos is not None
    assert len(result.todos) == limits.TODOS_MAX
    assert attrs.asdict(result.todos[-1]) == largest
