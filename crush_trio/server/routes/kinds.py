"""Routes of runs that are no prompts: summarise a session, run a person's command in it (CW 2.5).

Such a run belongs to the workspace like any other. The request only waits for its end, and losing
it changes nothing (G6).
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import attrs
from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio import limits
from crush_trio.protocol import codec
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId, is_run_id
from crush_trio.protocol.messages import ShellCommandPart
from crush_trio.protocol.requests import (
    PromptRequest,
    ShellAnswer,
    ShellRequest,
    SummarizeRequest,
)
from crush_trio.protocol.runs import Limits, Outcome, Receipt, RunRecord, RunState
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.routes.prompts import accepted, check_command
from crush_trio.server.routes.runs import wait_for_end
from crush_trio.server.services import Services, answer, answer_naming, body_as

T = TypeVar("T", SummarizeRequest, ShellRequest)
BASE = "/v1/workspaces/<workspace_id>/agent/sessions/<session_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("kinds", __name__)

    @routes.post(f"{BASE}/summarize")
    async def summarize(workspace_id: str, session_id: str) -> ResponseReturnValue:
        asked, ignored = _read(SummarizeRequest)
        wanted = PromptRequest(session_id=session_id, model=asked.model)
        receipt = await _submit(services, workspace_id, asked, wanted, "summarize")
        record = await _ended(services, receipt, asked)
        if record is None:
            return answer(attrs.evolve(receipt, ignored=ignored), 202)
        _refuse_unless_completed(record)
        return answer_naming(ignored, {"run": record})

    @routes.post(f"{BASE}/shell")
    async def shell(workspace_id: str, session_id: str) -> ResponseReturnValue:
        asked, ignored = _read(ShellRequest)
        check_command(asked.command)
        wanted = PromptRequest(session_id=session_id, prompt=asked.command)
        receipt = await _submit(services, workspace_id, asked, wanted, "shell")
        record = await _ended(services, receipt, asked)
        if record is None:
            return answer(attrs.evolve(receipt, ignored=ignored), 202)
        return answer_naming(ignored, await _shell_answer(services, record))

    app.register_blueprint(routes)


def _read(cls: type[T]) -> tuple[T, tuple[str, ...]]:
    """The body, which may be empty, and ``?wait=0`` in it.

    Raises:
        DecodeError, Refused: 400.
    """
    asked, ignored = body_as(cls) if current_call().body.strip() else (cls(), ())
    if asked.run_id is not None and not is_run_id(asked.run_id):
        raise Refused("bad_run_id", "`run_id` must be 1-128 of A-Z, a-z, 0-9 and ._:-")
    if asked.on_disconnect == "cancel" and not asked.client_id:
        raise Refused("bad_request", "`on_disconnect` cancel needs the `client_id` of your stream.")
    for name, value in attrs.asdict(asked.limits or Limits()).items():
        if value is not None and not value > 0:
            raise Refused("bad_request", f"`limits.{name}` must be greater than 0.")
    wait = request.args.get("wait")
    if wait not in (None, "0", "1"):
        raise Refused("bad_request", "`wait` must be 0 or 1.")
    return (asked if wait is None else attrs.evolve(asked, wait=wait == "1")), ignored


async def _submit(
    services: Services,
    workspace_id: str,
    asked: SummarizeRequest | ShellRequest,
    wanted: PromptRequest,
    kind: str,
) -> Receipt:
    wanted = attrs.evolve(
        wanted,
        run_id=asked.run_id,
        if_busy=asked.if_busy or "enqueue",
        limits=asked.limits,
        client_id=asked.client_id,
        on_disconnect=asked.on_disconnect,
    )
    said = {key: value for key, value in codec.to_json(wanted).items() if value is not None}
    said.pop("client_id", None)  # as for prompts
    digest = hashlib.sha256(codec.encode([workspace_id, kind, said])).hexdigest()
    workspace = await services.host.open(workspace_id)
    current_call().run_id = asked.run_id
    with services.host.using(workspace):
        receipt = await accepted(services, workspace, wanted, digest, kind=kind)
    current_call().run_id = receipt.run_id
    return receipt


async def _ended(
    services: Services, receipt: Receipt, asked: SummarizeRequest | ShellRequest
) -> RunRecord | None:
    """The finished record; ``None`` if it is not waited for, or not any longer."""
    if not asked.wait:
        return None
    open_run = services.host.open_run(receipt.run_id)
    if open_run is not None:
        await wait_for_end(open_run, limits.KIND_WAIT_S, services.stopping)
    row = await services.store.run(RunId(receipt.run_id))
    return row.record if row is not None and row.record.state is RunState.FINISHED else None


async def _shell_answer(services: Services, record: RunRecord) -> ShellAnswer:
    """How the command ended; also when it was stopped, as long as it had begun.

    Raises:
        Refused: ``run_cancelled``, ``run_failed``: there is no output, or it is not all of it.
    """
    if record.outcome in (Outcome.FAILED, Outcome.LOST) or record.started_at_ms is None:
        _refuse_unless_completed(record)
    for message in await services.store.messages(record.session_id):
        if message.id == record.message_id:
            part = next(p for p in message.parts if isinstance(p, ShellCommandPart))
            outcome = str(record.outcome)
            return ShellAnswer(part.output, part.exit_code, record.id, outcome)
    raise Refused("session_not_found", "The session was deleted while the command ran.")


def _refuse_unless_completed(record: RunRecord) -> None:
    """A run that did not complete, as an error answer: 409 if somebody cancelled it, else 500."""
    if record.outcome is Outcome.COMPLETED:
        return
    if record.outcome is Outcome.CANCELLED:
        raise Refused("run_cancelled", f"Run {record.id} was cancelled.")
    sentence = record.error.message if record.error is not None else f"It ended {record.outcome}."
    raise Refused("run_failed", sentence)
