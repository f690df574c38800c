"""``crush-trio approvals`` at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crush_trio.cli import asked, exit_codes
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import say, warn, write_lines
from crush_trio.cli.render import table
from crush_trio.cli.sanitize import one_line
from crush_trio.cli.session_flow import workspace_id
from crush_trio.cli.watch_flow import until_interrupted
from crush_trio.client.errors import BadUsage
from crush_trio.client.follow import Subscription, follow
from crush_trio.client.shapes import JsonObject, child, children, text

_HEADER = ("REQUEST", "TOOL", "ACTION", "AGE", "LEFT", "WHAT")
_KINDS = (
    "permission_request",
    "permission_notification",
    "question_batch_request",
    "question_batch_notification",
)


async def list_approvals(flags: ServerFlags, cwd: str | None, as_json: bool) -> int:
    """``approvals``: what waits in a directory, or everywhere."""
    async with linked(flags) as link:
        workspace = None if cwd is None else await workspace_id(link, cwd)
        permissions = await link.api.permissions(workspace)
        questions = await link.api.questions(workspace)
    if as_json:
        await write_lines([[*permissions, *questions]])
        return 0
    rows = [
        *(asked.pending_row("permission", item) for item in permissions),
        *(asked.pending_row("question", item) for item in questions),
    ]
    if rows:
        say(table(rows, _HEADER))
    return 0


async def watch_approvals(flags: ServerFlags, cwd: str, as_json: bool) -> int:
    """``approvals --watch``: what waits, and then each that comes or ends, until a signal."""

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
                shown: dict[str, str] = {}
                for kind, items in (
                    ("permission", await link.api.permissions(workspace)),
                    ("question", await link.api.questions(workspace)),
                ):
                    for item in items:
                        _remember(child(item, "request"), shown)
                        await _show(kind, item, as_json)
                while True:
                    for frame in await stream.receive_batch():
                        await _show_frame(frame, shown, as_json)

    return await until_interrupted(show)


async def _show(kind: str, item: JsonObject, as_json: bool) -> None:
    if as_json:
        await write_lines([item])
        return
    request = child(item, "request")
    if kind == "permission":
        say(f"{text(request, 'id')}  {asked.permission_text(request)}")
    else:
        for question in children(request, "questions"):
            say(f"{text(request, 'id')}  {asked.question_text(question)}")


def _remember(request: JsonObject, shown: dict[str, str]) -> None:
    """By what its end will name it (a permission by its call): the id that it was shown with."""
    name = text(request, "id")
    shown[text(request, "tool_call_id") if "tool_name" in request else name] = name


async def _show_frame(frame: JsonObject, shown: dict[str, str], as_json: bool) -> None:
    payload = child(child(frame, "payload"), "payload")
    kind = text(frame, "type")
    if kind.endswith("_request"):
        if text(payload, "id") not in shown.values():
            _remember(payload, shown)
            await _show(kind.split("_")[0], {"request": payload}, as_json)
    elif kind in _KINDS:
        if as_json:
            await write_lines([payload])
        else:
            ended = text(payload, "tool_call_id") or text(payload, "batch_id")
            granted = "allowed" if payload.get("granted") is True else "ended"
            say(f"── {one_line(shown.pop(ended, ended), 100)} {granted}")


async def answer_permission(
    flags: ServerFlags, request_id: str, action: str, message: str, as_json: bool
) -> int:
    """``approvals allow``, ``allow-session`` and ``deny``."""
    async with linked(flags) as link:
        item = _find(await link.api.permissions(), request_id)
        if item is None:
            return await _not_waiting(request_id)
        workspace, request = text(item, "workspace_id"), child(item, "request")
        found = await link.api.grant(workspace, request, action, message)
    return await _tell(request_id, found, as_json)


async def answer_questions(
    flags: ServerFlags, request_id: str, answers: Sequence[str], as_json: bool
) -> int:
    """``approvals answer``."""
    async with linked(flags) as link:
        item = _find(await link.api.questions(), request_id)
        if item is None:
            return await _not_waiting(request_id)
        questions = children(child(item, "request"), "questions")
        wrong = asked.as_many(questions, answers)
        if wrong:
            raise BadUsage(wrong)
        responses: list[dict[str, Any]] = []
        for question, said in zip(questions, answers, strict=True):
            response = asked.response(question, said)
            if response is None:
                about = one_line(text(question, "question"), 80)
                raise BadUsage(f"{said!r} does not answer {about!r}: {asked.hint(question)}")
            responses.append(response)
        found = await link.api.answer_questions(text(item, "workspace_id"), request_id, responses)
    return await _tell(request_id, found, as_json)


async def cancel_questions(flags: ServerFlags, request_id: str, as_json: bool) -> int:
    """``approvals cancel``."""
    async with linked(flags) as link:
        item = _find(await link.api.questions(), request_id)
        if item is None:
            return await _not_waiting(request_id)
        found = await _cancel(link, item)
    return await _tell(request_id, found, as_json)


async def _cancel(link: Link, item: JsonObject) -> JsonObject:
    batch = text(child(item, "request"), "id")
    return await link.api.cancel_questions(text(item, "workspace_id"), batch)


def _find(items: Sequence[JsonObject], request_id: str) -> JsonObject | None:
    return next((i for i in items if text(child(i, "request"), "id") == request_id), None)


async def _not_waiting(request_id: str) -> int:
    warn(f"no request {one_line(request_id, 100)} waits; crush-trio approvals --all lists them")
    return exit_codes.USAGE


async def _tell(request_id: str, found: JsonObject, as_json: bool) -> int:
    if as_json:
        await write_lines([found])
    ending = text(found, "ending").replace("_", " ")
    if found.get("resolved") is True:
        if not as_json:
            say(f"{request_id} {ending}")
        return exit_codes.COMPLETED
    who = text(found, "decided_by")
    warn(f"too late: it was {ending or 'gone'} already" + (f", by {who}" if who else ""))
    return exit_codes.FAILED
