"""``GET …/outputs/{id}``: the whole output of a command, where it was too long to be shown."""

from __future__ import annotations

import os
import stat
from types import TracebackType

import attrs
import trio
from quart import Blueprint, request
from quart.typing import ResponseReturnValue
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse
from werkzeug.http import parse_range_header

from crush_trio.limits import OUTPUT_PIECE_BYTES
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.server.edge.answers import empty_response
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import current_call
from crush_trio.server.services import Services

CONTENT_TYPE = "application/octet-stream"  # bytes of whatever program it was; never to be shown


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the route of this file."""
    routes = Blueprint("outputs", __name__)
    host, store, kit = services.host, services.store, services.kit

    @routes.get("/v1/workspaces/<workspace_id>/sessions/<session_id>/outputs/<output_id>")
    async def output(workspace_id: str, session_id: str, output_id: str) -> ResponseReturnValue:
        row = host.row(workspace_id)
        found = await store.session(SessionId(session_id))
        if found is None or found[0] != row.id:
            raise Refused("session_not_found", f"There is no session {session_id!r} here.")
        folder = f"{row.id}/{found[1].id}"
        fd = await trio.to_thread.run_sync(kit.open_output, folder, output_id)
        if fd is None:
            raise Refused("output_not_found", f"There is no output {output_id!r} in this session.")
        current_call().at_end.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("output_not_found", f"There is no output {output_id!r} in this session.")
        return _answer(fd, status.st_size)

    app.register_blueprint(routes)


def _answer(fd: int, size: int) -> TrioResponse:
    """The file, or the one range of it that is asked for (RFC 9110, 14)."""
    wanted = parse_range_header(request.headers.get("Range"))
    start, end, code = 0, size, 200
    if wanted is not None and wanted.units == "bytes" and len(wanted.ranges) == 1:
        first, behind = wanted.ranges[0]
        start = max(0, size + first) if first < 0 else first  # so many bytes at the end
        end, code = size if behind is None else min(behind, size), 206
        if start >= size:
            refused = empty_response(416)
            refused.headers["Content-Range"] = f"bytes */{size}"
            return refused
    response = TrioResponse(FilePiece(fd, start, end), code, content_type=CONTENT_TYPE)
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Content-Length"] = str(end - start)
    if code == 206:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response.timeout = None
    return response


@attrs.define(eq=False)
class FilePiece(ResponseBody):
    """A body of the bytes from ``start`` to ``end`` of a file, never more than a piece in memory.

    The descriptor is the request's.
    """

    fd: int
    start: int
    end: int

    async def __aenter__(self) -> FilePiece:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Nothing to leave."""

    def __aiter__(self) -> FilePiece:
        return self

    async def __anext__(self) -> bytes:
        size = min(OUTPUT_PIECE_BYTES, self.end - self.start)
        # Cancelled, it waits for the read: the descriptor is closed right after.
        data = await trio.to_thread.run_sync(os.pread, self.fd, size, self.start) if size else b""
        if not data:  # at the end, or the file is shorter by now: the client sees it cut short
            raise StopAsyncIteration
        self.start += len(data)
        return data
