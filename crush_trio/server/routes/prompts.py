"""The prompt route: decode, check, find an earlier answer, accept, answer once it is durable."""

from __future__ import annotations

import binascii
import hashlib
from contextlib import suppress

import attrs
import trio
from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio import limits
from crush_trio.host.kit import Chosen
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.runs.summary_run import NO_LANGUAGE_MODEL
from crush_trio.host.session import Session
from crush_trio.host.workspace import Workspace
from crush_trio.protocol import codec
from crush_trio.protocol.errors import ConfigError, Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId, is_run_id, new_id
from crush_trio.protocol.requests import (
    IF_BUSY,
    ON_DISCONNECT,
    PERMISSION_MODES,
    SANDBOX_MODES,
    PromptRequest,
)
from crush_trio.protocol.runs import Receipt
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.services import Services, answer, body_as
from crush_trio.store.contract import DuplicateRunError, RunRow

BASE = "/v1/workspaces/<workspace_id>"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("prompts", __name__)
    host = services.host

    @routes.post(f"{BASE}/agent")
    async def submit(workspace_id: str) -> ResponseReturnValue:
        request, ignored = body_as(PromptRequest)
        check_prompt(request)
        services.kit.check_patterns((*request.allow_tools, *request.deny_tools))
        digest = digest_of(workspace_id, request)
        workspace = await host.open(workspace_id)
        current_call().run_id = request.run_id
        with host.using(workspace):
            receipt = await accepted(services, workspace, request, digest)
        return answer(attrs.evolve(receipt, ignored=ignored), 202)

    app.register_blueprint(routes)


async def accepted(
    services: Services,
    workspace: Workspace,
    request: PromptRequest,
    digest: str,
    *,
    kind: str = "prompt",
) -> Receipt:
    """The receipt of a run that is accepted now, or was by the same request before (G3).

    Raises:
        Refused: ``run_id_conflict``, as `Workspace.submit`, or as `host.kit.Kit.model`.
        StoreError: Nothing changed.
    """
    chosen: Chosen | None = None
    confinable = kind == "summarize"  # which starts nothing
    while True:
        endings = services.host.endings
        receipt = await _earlier(services, request.run_id, digest)
        if receipt is not None:
            return receipt
        if not confinable:
            await _check_sandbox(services, workspace, request)
            confinable = True
        if chosen is None and kind != "shell":  # a command has no model
            await workspace.session(SessionId(request.session_id))  # first what was named first
            chosen = await _choose(services, workspace, request, kind)
        # Looked up after the model, which may have taken a while: it may be gone by now.
        session = await workspace.session(SessionId(request.session_id))
        # A run of this id may have been accepted and have ended since the store was read.
        if request.run_id is None or services.host.endings == endings:
            return await _accept(services, workspace, session, request, digest, chosen, kind=kind)


async def _choose(
    services: Services, workspace: Workspace, request: PromptRequest, kind: str
) -> Chosen:
    env = workspace.presence.environment(request.client_id)
    chosen = await services.kit.model(
        request.model, workspace.path, local=_is_local(services), env=env
    )
    if kind == "summarize" and not chosen.model.info.is_language_model:
        raise Refused("no_language_model", NO_LANGUAGE_MODEL)
    return chosen


async def _check_sandbox(services: Services, workspace: Workspace, request: PromptRequest) -> None:
    """Refuse now what could not be run as confined as it is asked for.

    Raises:
        Refused: ``sandbox_unavailable``.
    """
    with suppress(ConfigError):  # the run fails with it, also if it comes about only later
        await trio.to_thread.run_sync(
            services.kit.sandbox, workspace.path, request.sandbox, abandon_on_cancel=True
        )


def _is_local(services: Services) -> bool:
    return current_call().peer.is_unix or services.options.allow_script_models


async def _accept(
    services: Services,
    workspace: Workspace,
    session: Session,
    request: PromptRequest,
    digest: str,
    chosen: Chosen | None,
    *,
    kind: str,
) -> Receipt:
    if request.record is not None:
        services.kit.check_record(request.record, local=_is_local(services))
    # Two requests with one id may have come this far together: `open_run` is looked at again,
    # with no await since the caller's look at the endings and none before the acceptance.
    twin = services.host.open_run(request.run_id) if request.run_id else None
    if twin is not None:
        return await _receipt_of(twin, digest)
    open_run = workspace.submit(
        session,
        request,
        run_id=RunId(request.run_id or new_id()),
        digest=digest,
        principal=current_call().principal,
        model=chosen.model if chosen is not None else None,
        kind=kind,
        env=workspace.presence.environment(request.client_id),
    )
    current_call().run_id = open_run.id
    try:
        receipt = (await open_run.accepted.wait()).value.receipt
        return attrs.evolve(receipt, notices=chosen.notices if chosen is not None else ())
    except DuplicateRunError:
        session.withdraw(open_run)
    except Exception:
        session.withdraw(open_run)
        raise
    earlier = await _earlier(services, request.run_id, digest)
    if earlier is None:
        raise StoreError("store_failed", "The run id is taken by a run that cannot be read.")
    return earlier


async def _earlier(services: Services, run_id: str | None, digest: str) -> Receipt | None:
    """The receipt of the same request, if it was answered before (G3).

    Raises:
        Refused: ``run_id_conflict``: the id belongs to another request.
    """
    if run_id is None:
        return None
    open_run = services.host.open_run(run_id)
    if open_run is not None:
        return await _receipt_of(open_run, digest)
    row = await services.store.run(RunId(run_id))
    return None if row is None else _same(row, digest)


async def _receipt_of(open_run: OpenRun, digest: str) -> Receipt:
    _same(open_run.row, digest)
    return (await open_run.accepted.wait()).value.receipt


def _same(row: RunRow, digest: str) -> Receipt:
    if row.digest != digest:
        raise Refused(
            "run_id_conflict",
            f"The run id {row.record.id!r} belongs to another request; choose a new one.",
        )
    return row.receipt


def digest_of(workspace_id: str, request: PromptRequest) -> str:
    """What two requests must share to be the same: the workspace and every known key.

    A key that a later version adds changes no digest of an earlier one. Who asks is no part of
    what is asked: the same command run again calls itself something else.
    """
    said = {key: value for key, value in codec.to_json(request).items() if value is not None}
    said.pop("client_id", None)
    raw = codec.encode([workspace_id, said])
    return hashlib.sha256(raw).hexdigest()


def check_prompt(request: PromptRequest) -> None:
    """Check what needs no state.

    Raises:
        Refused: 400, with the allowed values where there are any.
    """
    if not request.session_id:
        raise Refused("session_required", "`session_id` is required; create a session first.")
    has_text = any(item.mime_type.startswith("text/") for item in request.attachments)
    if not request.prompt.strip() and not has_text:
        raise Refused("prompt_empty", "The prompt is empty.")
    if request.run_id is not None and not is_run_id(request.run_id):
        raise Refused("bad_run_id", "`run_id` must be 1-128 of A-Z, a-z, 0-9 and ._:-")
    _one_of("if_busy", request.if_busy, IF_BUSY)
    _one_of("permission_mode", request.permission_mode, PERMISSION_MODES)
    _one_of("on_disconnect", request.on_disconnect, ON_DISCONNECT)
    _one_of("sandbox", request.sandbox, SANDBOX_MODES)
    if request.on_disconnect == "cancel" and not request.client_id:
        raise Refused("bad_request", "`on_disconnect` cancel needs the `client_id` of your stream.")
    for index, item in enumerate(request.attachments):
        _check_base64(f"attachments[{index}].content", item.content)
    if request.limits is not None:
        for name, value in attrs.asdict(request.limits).items():
            if value is not None and not value > 0:
                raise Refused("bad_request", f"`limits.{name}` must be greater than 0.")


def check_command(command: str) -> None:
    """Check a person's command.

    Raises:
        Refused: ``command_empty``, ``command_too_long``, ``bad_request``.
    """
    if not command.strip():
        raise Refused("command_empty", "The command is empty.")
    if "\0" in command:
        raise Refused("bad_request", "`command` must not contain a NUL character.")
    if len(command.encode("utf-8", "replace")) > limits.BASH_COMMAND_BYTES:
        raise Refused(
            "command_too_long",
            f"The command is longer than {limits.BASH_COMMAND_BYTES} bytes; put it into a file.",
        )


def _check_base64(name: str, text: str) -> None:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError as exc:
        raise Refused("bad_request", f"`{name}` must be base64 text.") from exc


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise Refused("bad_request", f"`{name}` must be one of {', '.join(allowed)}.")
