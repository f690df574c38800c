"""Routes about questions that a model asks a person."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

from crush_trio.host.asks.questions import answer_questions, cancel_questions
from crush_trio.protocol.questions import QuestionAnswer, QuestionCancel
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.pending import pending_questions
from crush_trio.server.services import Services, answer, body_as

BASE = "/v1/workspaces/<workspace_id>/questions"


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the routes of this file."""
    routes = Blueprint("questions", __name__)
    host, store = services.host, services.store

    @routes.get("/v1/questions")
    async def everywhere() -> ResponseReturnValue:
        return answer(pending_questions(await store.pending_asks()))

    @routes.get(BASE)
    async def listing(workspace_id: str) -> ResponseReturnValue:
        return answer(pending_questions(await store.pending_asks(host.row(workspace_id).id)))

    @routes.post(f"{BASE}/answer")
    async def give(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(QuestionAnswer)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            by = current_call().principal
            return answer(await answer_questions(workspace.home.waiting, body, by))

    @routes.post(f"{BASE}/cancel")
    async def cancel(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(QuestionCancel)
        workspace = await host.open(workspace_id)
        with host.using(workspace):
            by, batch_id = current_call().principal, body.batch_request_id
            return answer(await cancel_questions(workspace.home.waiting, batch_id, by))

    app.register_blueprint(routes)
