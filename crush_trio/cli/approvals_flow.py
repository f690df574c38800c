"""``crush-trio approvals`` at work: listing, showing and watching what waits for a person."""

from __future__ import annotations

import os

from crush_trio.cli import asked, shown
from crush_trio.cli.answers_flow import find_one
from crush_trio.cli.escaped import escaped, shortened
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import note, say, stdout_is_terminal, write_lines
from crush_trio.cli.render import seconds, table
from crush_trio.cli.session_flow import workspace_id
from crush_trio.cli.watch_flow import until_interrupted
from crush_trio.client.errors import ServerRefused
from crush_trio.client.follow import Subscription, follow
from crush_trio.client.shapes import JsonObject, child, children, text

_HEADER = ("REQUEST", "AGE", "LEFT", "SESSION", "RUN", "WHAT")
_KINDS = (
    "permission_request",
    "permission_notification",
    "question_batch_request",
    "question_batch_notification",
)
_PIPE_WIDTH = 500
_WHAT_LEAST = 40


async def list_approvals(flags: ServerFlags, cwd: str | None, as_json: bool) -> int:
    """``approvals``: what waits in a directory, or everywhere."""
    async with linked(flags) as link:
        workspace = None if cwd is None else await workspace_id(link, cwd)
        permissions = await link.api.permissions(workspace)
        questions = await link.api.questions(workspace)
    if as_json:
        await write_lines([[*permissions, *questions]])
        return 0
    rows = [_row(item) for item in (*permissions, *questions)]
    if rows:
        say(_fitting(rows))
        if any(row[-1].endswith("(show it)") for row in rows):
            note("crush-trio approvals show ID shows one whole")
    return 0


async def show_approval(flags: ServerFlags, wanted: str, as_json: bool) -> int:
    """``approvals show``: a request whole, with what an answer would do."""
    async with linked(flags) as link:
        kind, item = await find_one(link, wanted, ("permission", "question"))
    if as_json:
        await write_lines([item])
        return 0
    request = child(item, "request")
    left = _span(item, "deadline_s")
    head = f"{escaped(text(request, 'id'))}  of run {escaped(text(item, 'run_id'))}, {left} left"
    if kind == "question":
        lines = [head]
        for question in children(request, "questions"):
            lines += [asked.question_text(question), f"  ({asked.hint(question)})"]
        say("\n".join(lines))
        return 0
    covers = f"for the session it would cover {shown.for_session(request)}"
    say("\n".join((head, *shown.permission_lines(request), covers)))
    return 0


async def watch_approvals(flags: ServerFlags, cwd: str, as_json: bool) -> int:
    """``approvals watch``: what waits, and then each that comes or ends, until a signal."""

    async def show() -> None:
        async with linked(flags) as link:
            workspace = await workspace_id(link, cwd)
            wanted = Subscription(
                endpoint=link.target.endpoint,
                token=link.target.token,
                workspace=workspace,
                kinds=_KINDS,
                snapshot=lambda: link.api.snapshot(workspace),
            )
            async with follow(wanted) as stream:
                watching = _Watching(link, workspace, as_json)
                await watching.take_waiting()
                while True:
                    for frame in await stream.receive_batch():
                        await watching.take(frame)

    return await until_interrupted(show)


class _Watching:
    """Shows each request once, whole, and how it ended."""

    def __init__(self, link: Link, workspace: str, as_json: bool) -> None:
        self._link = link
        self._workspace = workspace
        self._as_json = as_json
        self._shown: set[str] = set()

    async def take_waiting(self) -> None:
        """What waits already; also what a lost stream may have missed."""
        for items in (
            await self._link.api.permissions(self._workspace),
            await self._link.api.questions(self._workspace),
        ):
            for item in items:
                await self._show(item)

    async def take(self, frame: JsonObject) -> None:
        """One frame of the stream."""
        payload = child(child(frame, "payload"), "payload")
        kind = text(frame, "type")
        if kind == "resync":
            await self.take_waiting()
        elif kind.endswith("_request"):
            if "truncated" not in frame:
                await self._show({"request": payload})
            elif kind == "permission_request":
                await self._show_whole(text(payload, "id"))
        elif kind in _KINDS:
            await self._ended(payload)

    async def _show_whole(self, request_id: str) -> None:
        try:
            await self._show(await self._link.api.permission(self._workspace, request_id))
        except ServerRefused as exc:
            if exc.code != "request_not_found":  # it has ended, and that is shown next
                raise

    async def _show(self, item: JsonObject) -> None:
        request = child(item, "request")
        name = text(request, "id")
        if name in self._shown:
            return
        self._shown.add(name)
        if self._as_json:
            await write_lines([item])
        elif "questions" in request:
            for question in children(request, "questions"):
                say(f"{escaped(name)}  {asked.question_text(question)}")
        else:
            say(f"{escaped(name)}  {shown.permission_text(request)}")

    async def _ended(self, payload: JsonObject) -> None:
        if self._as_json:
            await write_lines([payload])
            return
        name = text(payload, "request_id") or text(payload, "batch_id")
        ending = text(payload, "ending").replace("_", " ") or "ended"
        who = text(payload, "decided_by")
        say(escaped(f"── {name} {ending}" + (f" by {who}" if who else "")))


def _row(item: JsonObject) -> tuple[str, ...]:
    request = child(item, "request")
    if "questions" in request:
        said = "; ".join(text(each, "question") for each in children(request, "questions"))
        what = shortened(f"question: {said}", _PIPE_WIDTH, " … (show it)")
    else:
        what = shown.brief(request, _PIPE_WIDTH)
    names = (text(request, "session_id"), text(item, "run_id"))
    return (
        escaped(text(request, "id")),
        _span(item, "age_s"),
        _span(item, "deadline_s"),
        *(shortened(name, 24, "…") for name in names),
        what,
    )


def _span(item: JsonObject, key: str) -> str:
    value = item.get(key)
    return seconds(value) if isinstance(value, (int, float)) else ""


def _fitting(rows: list[tuple[str, ...]]) -> str:
    """The table, its last column cut to the terminal; in a pipe as it is."""
    if stdout_is_terminal():
        columns = os.get_terminal_size(1).columns or 80
        beside = sum(max(len(row[i]) for row in (*rows, _HEADER)) + 2 for i in range(5))
        width = max(_WHAT_LEAST, columns - beside)
        more = " … (show it)"
        rows = [
            (*row[:-1], row[-1] if len(row[-1]) <= width else row[-1][: width - len(more)] + more)
            for row in rows
        ]
    return table(rows, _HEADER)
