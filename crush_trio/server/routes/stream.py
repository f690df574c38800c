"""The websockets: one workspace's event stream, or several on one socket (contract 4)."""

from __future__ import annotations

import trio
from quart import Blueprint, websocket

from crush_trio.host.workspace import Workspace
from crush_trio.protocol.errors import Refused
from crush_trio.server.edge.app_base import EdgeApp
from crush_trio.server.edge.call import accept_websocket, websocket_sender
from crush_trio.server.services import Services
from crush_trio.server.streams import carry
from crush_trio.server.streams.many import serve_many
from crush_trio.server.streams.request import StreamRequest, check_session, parse_stream_request


def add_routes(app: EdgeApp, services: Services) -> None:
    """Add the websocket of one workspace, and the one that carries several."""
    routes = Blueprint("stream", __name__)

    @routes.websocket("/v1/workspaces/<workspace_id>/ws")
    async def stream(workspace_id: str) -> None:
        wanted = parse_stream_request(websocket.args)
        workspace = await services.host.open(workspace_id)
        with services.host.subscribing(workspace, wanted.client_id):
            await check_session(workspace, wanted)
            await _serve(services, workspace, wanted)

    @routes.websocket("/v1/ws")
    async def many() -> None:
        if websocket.args:
            raise Refused("bad_request", "This stream takes its parameters in `subscribe`.")
        await serve_many(services)

    app.register_blueprint(routes)


async def _serve(services: Services, workspace: Workspace, wanted: StreamRequest) -> None:
    """One subscriber, from the upgrade to the close frame."""
    feed = workspace.feed
    with wanted.reader(services.store, feed) as reader:
        await accept_websocket()
        send = websocket_sender()
        await carry.send_control(send, carry.hello(services, feed.last_seq))
        peer = carry.PeerLife(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, peer)
            await carry.write_stream(reader, send, peer)
            nursery.cancel_scope.cancel()
        if peer.silent:
            await websocket.close(carry.SILENT, "silent")
        else:
            await carry.say_bye(send, feed.closed or "closed")


async def _listen(peer: carry.PeerLife) -> None:
    """Take in whatever the peer sends; without this its disconnect would go unnoticed."""
    while True:
        for item in carry.objects_of(await websocket.receive()) or ():
            await peer.take(item["type"])
