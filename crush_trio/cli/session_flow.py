"""``crush-trio session`` at work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crush_trio.cli.brought import Brought
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import say, write_lines
from crush_trio.cli.render import flat_part, message_text, table, todos_text
from crush_trio.cli.sanitize import one_line
from crush_trio.client.errors import BadUsage
from crush_trio.client.shapes import JsonObject, children, number, required, text

_PREFIX_CHARS = 4  # a shorter prefix is too easily another session's


async def list_sessions(flags: ServerFlags, cwd: str, as_json: bool) -> int:
    """``session list``: an array of CW 9.1's objects, or a table."""
    async with linked(flags) as link:
        workspace = await workspace_id(link, cwd)
        sessions = await link.api.sessions(workspace)
    if as_json:
        await write_lines([[summary(session) for session in sessions]])
        return 0
    rows = [
        (
            text(session, "id"),
            _local(number(session, "updated_at")),
            str(number(session, "message_count")),
            one_line(text(session, "title"), 60),
        )
        for session in sessions
    ]
    if rows:
        say(table(rows, ("SESSION", "USED", "MESSAGES", "TITLE")))
    return 0


async def show_session(flags: ServerFlags, cwd: str, wanted: str, as_json: bool) -> int:
    """``session show``: ``{meta, messages}`` in CW 9.1's shape, or the conversation as text."""
    async with linked(flags) as link:
        workspace = await workspace_id(link, cwd)
        session = await find_session(link, workspace, wanted)
        messages = await link.api.messages(workspace, text(session, "id"))
    if as_json:
        await write_lines([{"meta": meta(session), "messages": [flat(item) for item in messages]}])
    else:
        say(f"{text(session, 'id')}  {text(session, 'title')}")
        for message in messages:
            say("\n" + message_text(message))
        todos = todos_text(session)
        if todos:
            say("\n" + todos)
    return 0


async def delete_session(flags: ServerFlags, cwd: str, wanted: str, as_json: bool) -> int:
    """``session delete``: its runs are cancelled first."""
    async with linked(flags) as link:
        workspace = await workspace_id(link, cwd)
        session = await find_session(link, workspace, wanted)
        await link.api.delete_session(workspace, text(session, "id"))
    answer = {"id": text(session, "id"), "uuid": text(session, "id"), "deleted": True}
    if as_json:
        await write_lines([answer | {"title": text(session, "title")}])
    else:
        say(f"deleted {text(session, 'id')}")
    return 0


async def workspace_id(link: Link, cwd: str, brought: Brought = Brought()) -> str:  # noqa: B008  # frozen
    """The id of the workspace of a directory; it is opened if need be, with what is brought."""
    opened = await link.api.open_workspace(cwd, brought.client_id, brought.env)
    return required(opened, "id", "the workspace")


async def find_session(link: Link, workspace: str, wanted: str) -> JsonObject:
    """A session by its id, a unique beginning of it, or ``latest``.

    Raises:
        BadUsage: There is none, or several.
        ServerRefused: The server knows no session of that id.
    """
    known = await link.api.sessions(workspace)
    if wanted == "latest":
        if not known:
            raise BadUsage("there is no session in this directory yet")
        return known[0]
    if len(wanted) >= _PREFIX_CHARS:
        found = [item for item in known if text(item, "id").startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise BadUsage(f"{wanted} begins the ids of {len(found)} sessions: write more of it")
    return await link.api.session(workspace, wanted)


def summary(session: JsonObject) -> dict[str, Any]:
    """A session as ``session list --json`` has it."""
    return {
        "id": text(session, "id"),
        "uuid": text(session, "id"),
        "title": text(session, "title"),
        "created": _rfc3339(number(session, "created_at")),
        "modified": _rfc3339(number(session, "updated_at")),
    }


def meta(session: JsonObject) -> dict[str, Any]:
    """A session as ``session show --json`` has it."""
    prompt, completion = number(session, "prompt_tokens"), number(session, "completion_tokens")
    cost = session.get("cost")
    return summary(session) | {
        "cost": cost if isinstance(cost, (int, float)) else 0.0,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def flat(message: JsonObject) -> dict[str, Any]:
    """A message as ``session show --json`` has it."""
    named = {key: message[key] for key in ("model", "provider") if text(message, key)}
    return {
        "id": text(message, "id"),
        "role": text(message, "role"),
        "created": _rfc3339(number(message, "created_at")),
        **named,
        "parts": [flat_part(part) for part in children(message, "parts")],
    }


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _local(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
