"""Permission requests: what is shown, what an answer must match, and what a tool is told."""

from __future__ import annotations

from typing import Any

from crush_trio import limits
from crush_trio.agent.ports import Decision, PermissionAsk
from crush_trio.dispatch.run import Run
from crush_trio.host.asks.asking import Verdict, Waiting
from crush_trio.host.asks.endings import ALLOWED
from crush_trio.protocol import codec
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant, Resolution
from crush_trio.protocol.runs import RunRecord
from crush_trio.store.contract import AskRow, Grant

DENIED = "User denied permission"
_ENDINGS = {"allow": "allowed", "allow_session": "allowed_session", "deny": "denied"}
_SHOWN = ("session_id", "tool_call_id", "tool_name", "description", "action", "path")


async def ask_person(
    waiting: Waiting, run: Run, record: RunRecord, call_id: str, ask: PermissionAsk
) -> Decision:
    """Ask a person about a call, unless this session was granted it before (R67, R70).

    A denial ends the turn, and so does a request that nobody answered: it would only be asked
    again.

    Raises:
        StoreError: The request or the decision is not durable; the call must not start.
    """
    grant = Grant(ask.tool_name, ask.action, ask.path)
    if grant in await waiting.store.grants(record.session_id):
        return Decision(True)
    request = PermissionRequest(
        id=new_id(),
        session_id=record.session_id,
        tool_call_id=call_id,
        tool_name=ask.tool_name,
        description=ask.description,
        action=ask.action,
        params=ask.params,
        path=ask.path,
    )
    row = AskRow(
        request.id, "permission", record.workspace_id, record.session_id, record.id, request
    )
    verdict = await waiting.ask(row, run, "permission", "permission_request")
    if verdict.ending in ALLOWED:
        return Decision(True)
    if verdict.ending == "expired":
        waited = f"{waiting.deadline_s / 60:g} minutes"
        reason = f"Permission denied: nobody answered within {waited}"
    else:
        reason = f"{DENIED}: {verdict.message}" if verdict.message else DENIED
    return Decision(False, reason, stop_turn=True)


async def answer_permission(waiting: Waiting, grant: PermissionGrant, by: str) -> Resolution:
    """Decide a request, if it still waits (R68).

    What is allowed is the request as the server has it. What the answer sends back of it is only
    compared: an answer to something else decides nothing.

    Raises:
        Refused: ``bad_request``, ``permission_changed``; it still waits.
        StoreError: The decision is not durable; the tool does not start.
    """
    ending = _ENDINGS.get(grant.action)
    if ending is None:
        raise Refused("bad_request", f"`action` must be one of {', '.join(_ENDINGS)}.")
    if not grant.permission.id:
        raise Refused("bad_request", "`permission.id` is required; it names the request.")
    pending = waiting.find(grant.permission.id, "permission")
    if pending is not None and isinstance(pending.row.request, PermissionRequest):
        different = difference(grant.permission, pending.row.request)
        if different:
            raise Refused(
                "permission_changed",
                f"`permission.{different}` is not what the request says; it still waits: answer "
                "with the request as it was shown.",
            )
    verdict = Verdict(ending, by, grant.message[: limits.DENIAL_MESSAGE_CHARS])
    return await waiting.answer(grant.permission.id, "permission", verdict)


def difference(echo: PermissionEcho, request: PermissionRequest) -> str:
    """The first field in which an echoed request differs from the stored one; empty if none.

    Fields that are left out are not compared. Crush's client decodes ``params`` into a structure
    per tool: keys with a zero value come and go, and what it cannot read it sends as nothing. Of
    a request too large for one frame, the shortened strings of its event count as well.
    """
    cut = len(codec.encode(request)) > limits.FRAME_OUT_BYTES // 2
    for name in _SHOWN:
        said = getattr(echo, name)
        if said is not None and not _same(said, getattr(request, name), cut):
            return name
    if not echo.params or _same(echo.params, request.params, cut):
        return ""
    return "params"


def _same(said: Any, stored: Any, cut: bool) -> bool:
    if isinstance(said, dict) and isinstance(stored, dict):
        keys = said.keys() | stored.keys()
        return all(_same(said.get(key), stored.get(key), cut) for key in keys)
    if isinstance(said, list) and isinstance(stored, list):
        pairs = zip(said, stored, strict=False)
        return len(said) == len(stored) and all(_same(a, b, cut) for a, b in pairs)
    if not said and not stored:  # "", 0, false, null, [] and {} are one to Go's omitempty
        return True
    if cut and isinstance(said, str) and isinstance(stored, str):
        return (len(said) >= limits.TRUNCATED_CHARS and stored.startswith(said)) or said == stored
    return type(said) is type(stored) and bool(said == stored)
