"""``POST …/doctor``: the checks of the model that a run would get, one line each as it is made."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

import attrs
import orjson
import trio
from quart import Blueprint
from quart.typing import ResponseReturnValue
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse

from crush_trio.protocol.checks import Check
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.services import Services, body_as, callers_env

if TYPE_CHECKING:
    from crush_trio.server.checkup import Checkup

CONTENT_TYPE = "application/x-ndjson"


@attrs.frozen
class DoctorRequest:
    """What to look at: a model as ``-m`` names it, and whether its provider may be asked.

    Without ``offline`` two tiny requests are made, which the provider may charge for.
    """

    model: str | None = None
    offline: bool = False


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the route of this file."""
    routes = Blueprint("doctor", __name__)
    host = services.host

    @routes.post("/v1/workspaces/<workspace_id>/doctor")
    async def doctor(workspace_id: str) -> ResponseReturnValue:
        body, _ = body_as(DoctorRequest)
        call = current_call()
        workspace = await host.open(workspace_id)
        call.at_end.enter_context(host.using(workspace))
        from crush_trio.server.checkup import Checkup  # what a server needs only here

        checkup = Checkup(
            services,
            workspace.path,
            body.model,
            callers_env(workspace),
            local=call.peer.is_unix or services.options.allow_script_models,
            offline=body.offline,
        )
        response = TrioResponse(CheckLines(checkup, services.stopping), content_type=CONTENT_TYPE)
        response.headers.pop("Content-Length", None)
        response.headers["X-Accel-Buffering"] = "no"  # or a proxy would collect the lines
        response.timeout = None
        return response

    app.register_blueprint(routes)


class CheckLines(ResponseBody):
    """The body: a line of JSON for each check, and a last one that says how many there were.

    A body without that last line was cut short. A server that stops makes no further check.
    """

    def __init__(self, checkup: Checkup, stopping: trio.Event) -> None:
        self._checkup = checkup
        self._stopping = stopping
        self._ready: deque[Check] = deque()
        self._told = 0
        self._failed = False
        self._ended = False

    async def __aenter__(self) -> CheckLines:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Nothing to leave: each check closes what it opens."""

    def __aiter__(self) -> CheckLines:
        return self

    async def __anext__(self) -> bytes:
        if self._ended or self._stopping.is_set():
            raise StopAsyncIteration
        while not self._ready:
            found = await self._checkup.next()
            if found is None:
                self._ended = True
                return _line({"done": True, "ok": not self._failed, "checks": self._told})
            self._ready.extend(found)
        check = self._ready.popleft()
        self._told += 1
        self._failed = self._failed or check.status == "fail"
        return _line(check.as_json())


def _line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"
