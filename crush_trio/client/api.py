"""Typed calls to a server: parsed JSON out, `ServerRefused` or `Unreachable` raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from crush_trio.client.errors import ServerRefused
from crush_trio.client.http import Http
from crush_trio.client.shapes import (
    JsonObject,
    children,
    objects,
    parse_object,
    parse_objects,
    text,
)
from crush_trio.limits import (
    CATALOGUE_FETCH_S,
    CLIENT_OUTPUT_PIECE_BYTES,
    REQUEST_TIMEOUT_S,
)
from crush_trio.protocol.digests import request_digest

RANGE_NOT_SATISFIABLE = 416
OUR_NAME = "crush-trio"
"""The ``by`` of a control request: marks our own command line (contract 3)."""


def refusal(status: int, body: bytes) -> ServerRefused:
    """The error an answer of status 400 or more stands for, whatever its body is."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    message = text(value, "message") or f"the server answered {status} without a reason"
    retryable = type(value) is dict and value.get("retryable") is True
    return ServerRefused(
        status, text(value, "code") or f"http_{status}", message, retryable=retryable
    )


class Api:
    """The routes of contract 3 as calls. All of them raise what `Http.exchange` raises.

    Besides, every call raises `ServerRefused` for a status of 400 or more, and `BadAnswer` for
    an answer of the wrong shape.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    # --- server -------------------------------------------------------------------------

    async def version(self, timeout: float = REQUEST_TIMEOUT_S) -> JsonObject:
        """``VersionInfo``: version, protocol, server_id, pid."""
        return parse_object(await self._get("/v1/version", timeout=timeout), "the version")

    async def health(self) -> JsonObject:
        """``Health``: what the server does now."""
        return parse_object(await self._get("/v1/health"), "the health answer")

    async def control(self, command: str) -> None:
        """``shutdown``, or ``shutdown_if_idle`` (409 while it is in use)."""
        await self._call("POST", "/v1/control", {"command": command, "by": OUR_NAME})

    async def models(
        self, workspace: str | None = None, client_id: str | None = None
    ) -> list[JsonObject]:
        """Every model the server knows, as ``ModelInfo`` objects with ``available``, ``chosen``.

        The configuration of ``workspace`` counts, and the keys that ``client_id`` has sent there.
        """
        given = {"all": "true", "workspace_id": workspace, "client_id": client_id}
        query = urlencode({key: value for key, value in given.items() if value is not None})
        return parse_objects(await self._get(f"/v1/models?{query}"), "the list of models")

    async def refresh_models(self, url: str | None = None) -> JsonObject:
        """Have a newer catalogue fetched, from ``url`` or where the configuration says."""
        body = {} if url is None else {"url": url}
        timeout = CATALOGUE_FETCH_S + REQUEST_TIMEOUT_S
        raw = await self._call("POST", "/v1/models/refresh", body, timeout=timeout)
        return parse_object(raw, "the refreshed catalogue")

    # --- workspaces and sessions --------------------------------------------------------

    async def open_workspace(
        self, path: str, client_id: str | None = None, env: Sequence[str] = ()
    ) -> JsonObject:
        """The workspace of an absolute directory; opened if need be.

        ``env`` holds ``NAME=value``, for the runs of ``client_id``, which holds the workspace then.
        """
        body: dict[str, Any] = {"path": path}
        if client_id is not None:
            body |= {"client_id": client_id, "env": list(env)}
        raw = await self._call("POST", "/v1/workspaces", body, repeatable=True)
        return parse_object(raw, "the workspace")

    async def release(self, workspace: str, client_id: str) -> None:
        """Let go of a workspace that was opened with a ``client_id``; harmless if it was not."""
        path = f"{_w(workspace)}?{urlencode({'client_id': client_id})}"
        await self._call("DELETE", path, None, repeatable=True)

    async def agent(self, workspace: str, client_id: str | None = None) -> JsonObject:
        """Whether the agent of a workspace is ready, and the model it would ask."""
        query = "" if client_id is None else f"?{urlencode({'client_id': client_id})}"
        return parse_object(await self._get(f"{_w(workspace)}/agent{query}"), "the agent")

    async def workspaces(self) -> list[JsonObject]:
        """Every workspace the server's store knows, open or not."""
        return parse_objects(await self._get("/v1/workspaces?known=true"), "the workspaces")

    async def create_session(self, workspace: str, title: str) -> JsonObject:
        """A new session."""
        raw = await self._call("POST", f"{_w(workspace)}/sessions", {"title": title})
        return parse_object(raw, "the session")

    async def sessions(self, workspace: str) -> list[JsonObject]:
        """Top-level sessions, the most recently used first."""
        return parse_objects(await self._get(f"{_w(workspace)}/sessions"), "the sessions")

    async def session(self, workspace: str, session: str) -> JsonObject:
        """One session."""
        raw = await self._get(f"{_w(workspace)}/sessions/{_q(session)}")
        return parse_object(raw, "the session")

    async def messages(self, workspace: str, session: str) -> list[JsonObject]:
        """The messages of a session, oldest first."""
        raw = await self._get(f"{_w(workspace)}/sessions/{_q(session)}/messages")
        return parse_objects(raw, "the messages")

    async def output_piece(self, workspace: str, session: str, output: str, at: int) -> bytes:
        """The bytes of a kept output from position ``at`` on, at most a piece; none at its end."""
        target = f"{_w(workspace)}/sessions/{_q(session)}/outputs/{_q(output)}"
        answer = await self._http.exchange(
            "GET", target, byte_range=f"{at}-{at + CLIENT_OUTPUT_PIECE_BYTES - 1}"
        )
        if answer.status == RANGE_NOT_SATISFIABLE:
            return b""
        if answer.status >= 400:
            raise refusal(answer.status, answer.body)
        return answer.body

    async def delete_session(self, workspace: str, session: str) -> None:
        """Cancel the session's runs and delete what it holds; twice is fine."""
        path = f"{_w(workspace)}/sessions/{_q(session)}"
        await self._call("DELETE", path, None, repeatable=True)

    async def snapshot(self, workspace: str, session: str | None = None) -> JsonObject:
        """The present state of a workspace or of one session, consistent at its ``seq``."""
        scope = f"/sessions/{_q(session)}" if session else ""
        return parse_object(await self._get(f"{_w(workspace)}{scope}/snapshot"), "the snapshot")

    async def running_jobs(self) -> list[JsonObject]:
        """The background jobs that run, of all open workspaces."""
        found: list[JsonObject] = []
        for workspace in parse_objects(await self._get("/v1/workspaces"), "the workspaces"):
            raw = await self._get(f"{_w(text(workspace, 'id'))}/jobs")
            jobs = children(parse_object(raw, "the list of jobs"), "jobs")
            found += [job for job in jobs if text(job, "state") == "running"]
        return found

    # --- a person's answers ---------------------------------------------------------------

    async def permissions(self, workspace: str | None = None) -> list[JsonObject]:
        """Permission requests that wait, of one workspace or of all, with age and deadline."""
        path = "/v1/permissions" if workspace is None else f"{_w(workspace)}/permissions"
        return parse_objects(await self._get(path), "the list of permissions")

    async def permission(self, workspace: str, request_id: str) -> JsonObject:
        """One of them, whole.

        Raises:
            ServerRefused: ``request_not_found``: it does not wait; the sentence says how it ended.
        """
        raw = await self._get(f"{_w(workspace)}/permissions/{_q(request_id)}")
        return parse_object(raw, "the permission request")

    async def grants(self, workspace: str, session: str) -> list[JsonObject]:
        """What was allowed for a session."""
        raw = await self._get(f"{_w(workspace)}/sessions/{_q(session)}/grants")
        return children(parse_object(raw, "the grants"), "grants")

    async def forget_grants(
        self, workspace: str, session: str, wanted: str | None
    ) -> list[JsonObject]:
        """Take one of them back, or all; what is left."""
        one = "" if wanted is None else f"/{_q(wanted)}"
        path = f"{_w(workspace)}/sessions/{_q(session)}/grants{one}"
        return children(
            parse_object(await self._call("DELETE", path, None), "the grants"), "grants"
        )

    async def questions(self, workspace: str | None = None) -> list[JsonObject]:
        """Batches of questions that wait, as `permissions`."""
        path = "/v1/questions" if workspace is None else f"{_w(workspace)}/questions"
        return parse_objects(await self._get(path), "the list of questions")

    async def grant(
        self, workspace: str, request: JsonObject, action: str, message: str = ""
    ) -> JsonObject:
        """``{"resolved": …}``: whether this answer decided.

        ``request`` is as it was shown, and the answer goes with its digest, made here.
        """
        body = {
            "permission": request,
            "action": action,
            "message": message,
            "digest": request_digest(request),
        }
        raw = await self._call("POST", f"{_w(workspace)}/permissions/grant", body)
        return parse_object(raw, "the resolution")

    async def answer_questions(
        self, workspace: str, batch: str, responses: list[dict[str, Any]]
    ) -> JsonObject:
        """``{"resolved": …}``: whether this answer decided."""
        body = {"batch_request_id": batch, "responses": responses}
        raw = await self._call("POST", f"{_w(workspace)}/questions/answer", body)
        return parse_object(raw, "the resolution")

    async def cancel_questions(self, workspace: str, batch: str) -> JsonObject:
        """``{"resolved": …}``: whether this cancelled them."""
        body = {"batch_request_id": batch}
        raw = await self._call("POST", f"{_w(workspace)}/questions/cancel", body)
        return parse_object(raw, "the resolution")

    # --- runs ---------------------------------------------------------------------------

    async def submit(self, workspace: str, prompt: Mapping[str, Any]) -> JsonObject:
        """The receipt of a ``PromptRequest``: run_id, session_id, seq, disposition, position.

        Sending the same ``run_id`` and body again is harmless (G3).
        """
        repeatable = "run_id" in prompt
        raw = await self._call("POST", f"{_w(workspace)}/agent", prompt, repeatable=repeatable)
        return parse_object(raw, "the receipt")

    async def start(
        self, workspace: str, session: str, kind: str, body: Mapping[str, Any]
    ) -> JsonObject:
        """The receipt of a run that is no prompt: ``kind`` is summarize or shell.

        ``body`` must have a ``run_id`` and ``wait: false``; sending it again is harmless (G3).
        """
        path = f"{_w(workspace)}/agent/sessions/{_q(session)}/{kind}"
        return parse_object(await self._call("POST", path, body, repeatable=True), "the receipt")

    async def run(self, run_id: str, wait: float | None = None) -> JsonObject:
        """A run's record; with ``wait`` after its end or that many seconds."""
        query = "" if wait is None else f"?wait={wait:g}"
        raw = await self._get(
            f"/v1/runs/{_q(run_id)}{query}", timeout=REQUEST_TIMEOUT_S + (wait or 0)
        )
        return parse_object(raw, "the run")

    async def runs(self, **filters: str | int | None) -> list[JsonObject]:
        """Records, newest first; filters are workspace_id, session_id, state, limit, before."""
        query = urlencode({key: value for key, value in filters.items() if value is not None})
        raw = await self._get("/v1/runs" + (f"?{query}" if query else ""))
        return objects(parse_object(raw, "the list of runs").get("runs"), "the list of runs")

    async def cancel_run(self, run_id: str) -> JsonObject:
        """What the cancel covered: watermark, runs, too_late."""
        raw = await self._call("POST", f"/v1/runs/{_q(run_id)}/cancel", {}, repeatable=True)
        return parse_object(raw, "the cancel receipt")

    async def cancel_session(self, workspace: str, session: str) -> JsonObject:
        """What the cancel covered: watermark, runs, too_late."""
        path = f"{_w(workspace)}/agent/sessions/{_q(session)}/cancel"
        return parse_object(
            await self._call("POST", path, {}, repeatable=True), "the cancel receipt"
        )

    # --- one exchange -------------------------------------------------------------------

    async def _get(self, target: str, timeout: float = REQUEST_TIMEOUT_S) -> bytes:
        answer = await self._http.exchange("GET", target, timeout=timeout)
        if answer.status >= 400:
            raise refusal(answer.status, answer.body)
        return answer.body

    async def _call(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None,
        *,
        repeatable: bool = False,
        timeout: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        raw = None if body is None else orjson.dumps(body)
        answer = await self._http.exchange(
            method, target, raw, repeatable=repeatable, timeout=timeout
        )
        if answer.status >= 400:
            raise refusal(answer.status, answer.body)
        return answer.body


def _q(text_: str) -> str:
    return quote(text_, safe="")


def _w(workspace: str) -> str:
    return f"/v1/workspaces/{quote(workspace, safe='')}"
