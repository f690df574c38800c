"""Routes about sessions: list, create, show, rename, delete, messages, files, snapshot."""

from __future__ import annotations

from datetime import UTC, datetime

from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from crush_trio import limits
from crush_trio.host.session_life import create_session, delete_session, rename_session
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import MessageId, SessionId, WorkspaceId
from crush_trio.protocol.messages import Message
from crush_trio.protocol.requests import CreateSession, Snapshot
from crush_trio.protocol.sessions import Session
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.pending import pending_permissions, pending_questions
from crush_trio.server.services import (
    Services,
    answer,
    answer_naming,
    body_as,
    by_caller,
    int_argument,
    seen,
)

BASE = "/v1/workspaces/<workspace_id>"
NEVER_READ = "0001-01-01T00:00:00Z"  # CW 2.4


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("sessions", __name__)
    host, store = services.host, services.store

    async def existing(workspace_id: str, session_id: str) -> tuple[WorkspaceId, Session]:
        row = host.row(workspace_id)
        found = await store.session(SessionId(session_id))
        if found is None or found[0] != row.id:
            raise Refused("session_not_found", f"There is no session {session_id!r} here.")
        return row.id, seen(host.find_open(row.id), [found[1]])[0]

    def with_live(workspace_id: WorkspaceId, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages, with the text that is being written now in the open one."""
        workspace = host.find_open(workspace_id)
        live = workspace.live_messages() if workspace is not None else {}
        return tuple(
            live.get(message.id, message) if message.finish() is None else message
            for message in messages
        )

    @routes.get(f"{BASE}/sessions")
    async def listing(workspace_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        sessions = await store.sessions(row.id)
        return answer(seen(host.find_open(row.id), sessions))

    @routes.post(f"{BASE}/sessions")
    async def create(workspace_id: str) -> ResponseReturnValue:
        body, ignored = body_as(CreateSession)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            return answer_naming(ignored, await create_session(workspace, body.title))

    @routes.get(f"{BASE}/sessions/<session_id>")
    @routes.get(f"{BASE}/agent/sessions/<session_id>")
    async def show(workspace_id: str, session_id: str) -> ResponseReturnValue:
        return answer((await existing(workspace_id, session_id))[1])

    @routes.put(f"{BASE}/sessions/<session_id>")
    async def rename(workspace_id: str, session_id: str) -> ResponseReturnValue:
        body, _ = body_as(CreateSession)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            return answer(await rename_session(workspace, SessionId(session_id), body.title))

    @routes.delete(f"{BASE}/sessions/<session_id>")
    async def delete(workspace_id: str, session_id: str) -> ResponseReturnValue:
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            await delete_session(workspace, SessionId(session_id), by_caller("session"))
        return empty_response()

    @routes.get(f"{BASE}/sessions/<session_id>/messages")
    async def messages(workspace_id: str, session_id: str) -> ResponseReturnValue:
        owner, session = await existing(workspace_id, session_id)
        return answer(with_live(owner, await store.messages(session.id)))

    @routes.get(f"{BASE}/sessions/<session_id>/messages/user")
    async def user_messages(workspace_id: str, session_id: str) -> ResponseReturnValue:
        owner, session = await existing(workspace_id, session_id)
        return answer(await store.user_messages(owner, session.id))

    @routes.get(f"{BASE}/messages/user")
    async def all_user_messages(workspace_id: str) -> ResponseReturnValue:
        return answer(await store.user_messages(host.row(workspace_id).id))

    @routes.get(f"{BASE}/sessions/<session_id>/history")
    async def history(workspace_id: str, session_id: str) -> ResponseReturnValue:
        _, session = await existing(workspace_id, session_id)
        return answer(await store.file_versions(session.id))

    @routes.get(f"{BASE}/sessions/<session_id>/filetracker/files")
    async def read_files(workspace_id: str, session_id: str) -> ResponseReturnValue:
        _, session = await existing(workspace_id, session_id)
        return answer(list(await store.reads(session.id)))

    @routes.get(f"{BASE}/filetracker/lastread")
    async def last_read(workspace_id: str) -> ResponseReturnValue:
        _, session = await existing(workspace_id, request.args.get("session_id", ""))
        at_ns = (await store.reads(session.id)).get(request.args.get("path", ""))
        return answer(NEVER_READ if at_ns is None else _rfc3339(at_ns))

    @routes.get(f"{BASE}/sessions/<session_id>/snapshot")
    async def snapshot(workspace_id: str, session_id: str) -> ResponseReturnValue:
        owner, session = await existing(workspace_id, session_id)
        count = int_argument(
            "messages", limits.SNAPSHOT_MESSAGES_DEFAULT, least=0, most=limits.SNAPSHOT_MESSAGES_MAX
        )
        before = request.args.get("before")
        rows = await store.snapshot(
            owner, session.id, messages=count, before=MessageId(before) if before else None
        )
        now = seen(host.find_open(owner), rows.sessions)
        return answer(
            Snapshot(
                seq=rows.seq,
                epoch=store.epoch,
                runs=rows.runs,
                jobs=tuple(job.record for job in rows.jobs),
                permissions=pending_permissions(rows.asks),
                questions=pending_questions(rows.asks),
                session=now[0] if now else None,
                messages=with_live(owner, rows.messages),
            )
        )

    app.register_blueprint(routes)


def _rfc3339(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")
