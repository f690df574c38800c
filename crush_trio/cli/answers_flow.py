"""``crush-trio approvals`` at work: the answers, and what was allowed for a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from crush_trio.cli import asked, exit_codes, shown
from crush_trio.cli.escaped import escaped
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import note, say, warn, write_lines
from crush_trio.cli.render import table
from crush_trio.cli.sanitize import one_line
from crush_trio.cli.session_flow import find_session, workspace_id
from crush_trio.client.errors import BadUsage, ServerRefused
from crush_trio.client.shapes import JsonObject, child, children, text
from crush_trio.protocol.errors import CrushError

_PREFIX_CHARS = 4  # a shorter prefix is too easily another request's


async def answer_permission(
    flags: ServerFlags, wanted: str, action: str, message: str, as_json: bool
) -> int:
    """``approvals allow``, ``allow-session`` and ``deny``."""
    async with linked(flags) as link:
        _, item = await find_one(link, wanted, ("permission",))
        workspace, request = text(item, "workspace_id"), child(item, "request")
        found = await link.api.grant(workspace, request, action, message)
    if not as_json and found.get("resolved") is True and action == "allow_session":
        note(f"for the rest of the session: {shown.for_session(request)}")
    return await _tell(text(request, "id"), found, as_json)


async def answer_questions(
    flags: ServerFlags, wanted: str, answers: Sequence[str], as_json: bool
) -> int:
    """``approvals answer``."""
    async with linked(flags) as link:
        _, item = await find_one(link, wanted, ("question",))
        batch = child(item, "request")
        questions = children(batch, "questions")
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
        name = text(batch, "id")
        found = await link.api.answer_questions(text(item, "workspace_id"), name, responses)
    return await _tell(name, found, as_json)


async def cancel_questions(flags: ServerFlags, wanted: str, as_json: bool) -> int:
    """``approvals cancel``."""
    async with linked(flags) as link:
        _, item = await find_one(link, wanted, ("question",))
        name = text(child(item, "request"), "id")
        found = await link.api.cancel_questions(text(item, "workspace_id"), name)
    return await _tell(name, found, as_json)


async def session_grants(
    flags: ServerFlags, cwd: str, session: str, forget: str | None, as_json: bool
) -> int:
    """``approvals grants``: what was allowed for a session, or what is left of it."""
    async with linked(flags) as link:
        workspace = await workspace_id(link, cwd)
        owner = text(await find_session(link, workspace, session), "id")
        if forget is None:
            found = await link.api.grants(workspace, owner)
        else:
            wanted = None if forget == "all" else forget
            found = await link.api.forget_grants(workspace, owner, wanted)
    if as_json:
        await write_lines([found])
    elif found:
        say(table([_grant_row(grant) for grant in found], ("GRANT", "BY", "COVERS")))
    return 0


def _grant_row(grant: JsonObject) -> tuple[str, str, str]:
    _, _, command = text(grant, "scope").partition(":")
    covers = escaped(text(grant, "covers"))
    if text(grant, "scope").startswith(("command:", "background:")):
        covers = f"{covers}: {escaped(command)}"
    return text(grant, "id"), escaped(text(grant, "granted_by")), covers


async def find_one(link: Link, wanted: str, kinds: Sequence[str]) -> tuple[str, JsonObject]:
    """The request that ``wanted`` names, or begins the name of; with its kind.

    Raises:
        BadUsage: None that is known, several, or one of another kind.
        CrushError: It has ended; the sentence says how.
    """
    items = {
        "permission": await link.api.permissions(),
        "question": await link.api.questions(),
    }
    found = [
        (kind, item)
        for kind, listed in items.items()
        for item in listed
        if _is_meant(wanted, text(child(item, "request"), "id"))
    ]
    if not found:
        await _refuse(link, wanted)
    exact = [(kind, item) for kind, item in found if text(child(item, "request"), "id") == wanted]
    if len(exact or found) > 1:
        names = ", ".join(text(child(item, "request"), "id") for _, item in found)
        raise BadUsage(f"{wanted!r} may be {names}; write more of it")
    kind, item = (exact or found)[0]
    if kind not in kinds:
        words = "answer and cancel" if kind == "question" else "allow and deny"
        name = text(child(item, "request"), "id")
        raise BadUsage(f"{name} is a {kind}: use {words}")
    return kind, item


def _is_meant(wanted: str, name: str) -> bool:
    return name == wanted or (len(wanted) >= _PREFIX_CHARS and name.startswith(wanted))


async def _refuse(link: Link, wanted: str) -> NoReturn:
    """Say why nothing can be answered: how the request ended, if that is known."""
    if len(wanted) < _PREFIX_CHARS:
        least = f"write {_PREFIX_CHARS} characters of the ID at least"
        raise BadUsage(f"{one_line(wanted, 100)!r} is too short: {least}")
    for workspace in await link.api.workspaces():
        try:
            await link.api.permission(text(workspace, "id"), wanted)
        except ServerRefused as exc:
            if exc.message.startswith("It has ended"):
                raise CrushError(f"too late: {exc.message}") from None
    name = one_line(wanted, 100)
    raise BadUsage(f"no request {name} waits; crush-trio approvals --all lists them")


async def _tell(request_id: str, found: JsonObject, as_json: bool) -> int:
    if as_json:
        await write_lines([found])
    ending = text(found, "ending").replace("_", " ")
    if found.get("resolved") is True:
        if not as_json:
            say(f"{request_id} {ending}")
        return exit_codes.COMPLETED
    who = text(found, "decided_by")
    warn(f"too late: it was {ending or 'gone'} already" + (f" by {who}" if who else ""))
    return exit_codes.FAILED
