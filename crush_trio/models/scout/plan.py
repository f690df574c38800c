"""What a command is made of: calls it wants made, answers it gets, and the text it ends with."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeAlias

import attrs


@attrs.frozen
class Call:
    """A tool call a command wants made."""

    tool: str
    input: Mapping[str, Any]


@attrs.frozen
class Answer:
    """What came of a call; with ``ok`` false, ``text`` is the reason. ``root``: the workspace."""

    ok: bool
    text: str
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    root: str = ""


Plan: TypeAlias = Generator[tuple[Call, ...], tuple[Answer, ...], str]
"""A command: yields the calls of a step, is sent their answers in order, returns its text.

It must be deterministic: each request to the model runs it again from its start, with the answers
the conversation already holds.
"""


def view(path: str, limit: int, offset: int = 0) -> Call:
    """Read some lines of a file."""
    return Call("view", {"file_path": path, "limit": limit, "offset": offset})


def bash(command: str, description: str) -> Call:
    """Run a command; the git forms used here need no permission."""
    return Call("bash", {"command": command, "description": description})


def fenced(text: str) -> str:
    """``text`` as a Markdown code block, with a fence that it cannot close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
