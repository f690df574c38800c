"""Permission requests: what is shown, what an answer must match, and what a tool is told."""

from __future__ import annotations

import os
from typing import Any

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import Decision, PermissionAsk
from crush_trio.dispatch.run import Run
from crush_trio.host.asks.asking import Verdict, Waiting
from crush_trio.host.asks.endings import ALLOWED
from crush_trio.host.asks.grants import covers, grant_of
from crush_trio.protocol import codec
from crush_trio.protocol.digests import request_digest
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant, Resolution
from crush_trio.protocol.runs import RunRecord
from crush_trio.store.contract import AskRow

DENIED = "User denied permission"
_GO_ON = "Do not repeat the call; go on without it and say in your answer what is missing."
_ENDINGS = {"allow": "allowed", "allow_session": "allowed_session", "deny": "denied"}
_SHOWN = ("session_id", "tool_call_id", "tool_name", "description", "action", "path")


@attrs.frozen
class AskRules:
    """What the user's configuration says about asking.

    ``deny_stops``: a denial ends the turn (R70), and so does a request that nobody answered: it
    would only be asked again. Else the model is told, and goes on without the call.
    """

    deadline_s: float = limits.ASK_DEADLINE_S
    deny_stops: bool = True

    def denied(self, reason: str) -> Decision:
        """A refusal with this reason."""
        told = reason if self.deny_stops else f"{reason}. {_GO_ON}"
        return Decision(False, told, stop_turn=self.deny_stops)


async def ask_person(
    waiting: Waiting,
    run: Run,
    record: RunRecord,
    call_id: str,
    ask: PermissionAsk,
    rules: AskRules,
) -> Decision:
    """Ask a person about a call, unless this session was granted it before (R67, R70).

    Raises:
        StoreError: The request or the decision is not durable; the call must not start.
        DecodeError: The call holds what no request can show, as text that is no text.
    """
    grant = grant_of(ask)
    granted = await waiting.store.grants(record.session_id)
    if grant in granted or grant_of(attrs.evolve(ask, sandboxed=False)) in granted:
        return Decision(True)
    shown = PermissionRequest(
        id=new_id(),
        session_id=record.session_id,
        tool_call_id=call_id,
        tool_name=ask.tool_name,
        description=ask.description,
        action=ask.action,
        params=ask.params,
        path=ask.path,
        why=ask.why,
        covers=covers(grant),
    )
    request = attrs.evolve(shown, digest=request_digest(codec.parse(codec.encode(shown))))
    row = AskRow(
        request.id,
        "permission",
        record.workspace_id,
        record.session_id,
        record.id,
        request,
        deadline_s=rules.deadline_s,
    )
    places = await _places(ask)
    verdict = await waiting.ask(row, run, ask.tool_name, grant)
    if verdict.ending in ALLOWED:
        if await _places(ask) != places:
            moved = "a link in its path was changed while the permission was waited for"
            return Decision(False, f"Not done: {moved}. Ask again")
        return Decision(True)
    if verdict.ending == "expired":
        return rules.denied(f"Permission denied: nobody answered within {spoken(row.deadline_s)}")
    return rules.denied(f"{DENIED}: {verdict.message}" if verdict.message else DENIED)


def spoken(deadline_s: float) -> str:
    """A deadline as a model reads it."""
    return f"{deadline_s / 60:g} minutes" if deadline_s >= 120 else f"{deadline_s:g} seconds"


async def _places(ask: PermissionAsk) -> tuple[str, ...]:
    """Where the paths of a call lead now: what was shown must not mean another place later."""
    named = [path for path in (ask.path, ask.target) if path.startswith("/") and "\0" not in path]
    if not named:
        return ()
    return await trio.to_thread.run_sync(
        lambda: tuple(map(os.path.realpath, named)), abandon_on_cancel=True
    )


async def answer_permission(waiting: Waiting, grant: PermissionGrant, by: str) -> Resolution:
    """Decide a request, if it still waits (R68).

    What is allowed is the request as the server has it. What the answer sends back of it, its
    digest above all, is only compared: an answer to something else decides nothing.

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
        different = differing(grant, pending.row.request)
        if different:
            raise Refused(
                "permission_changed",
                f"`{different}` is not what the request says; it still waits: answer with the "
                "request as it was shown.",
            )
    verdict = Verdict(ending, by, grant.message[: limits.DENIAL_MESSAGE_CHARS])
    return await waiting.answer(grant.permission.id, "permission", verdict)


def differing(grant: PermissionGrant, request: PermissionRequest) -> str:
    """The first field in which an answer differs from the stored request; empty if none."""
    if grant.digest not in (None, request.digest):
        return "digest"
    name = difference(grant.permission, request)
    return f"permission.{name}" if name else ""


def difference(echo: PermissionEcho, request: PermissionRequest) -> str:
    """The first field in which an echoed request differs from the stored one; empty if none.

    Fields that are left out are not compared. Crush's client decodes ``params`` into a structure
    per tool: keys with a zero value come and go, and what it cannot read it sends as nothing. Of
    a request too large for one frame, the shortened strings of its event count as well.
    """
    if echo.digest not in (None, request.digest):
        return "digest"
    cut = len(codec.encode(request)) > limits.FRAME_OUT_BYTES // 2
    for name in (*_SHOWN, "why", "covers"):
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
