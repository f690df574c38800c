"""How a client comes to a workspace: made known if it is not, opened, and held for the client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crush_trio.host.host import Host
from crush_trio.host.workspace import Workspace


async def join_workspace(
    host: Host, path: Path, client_id: str | None, env: Mapping[str, str] | None = None
) -> Workspace:
    """The workspace of a directory (absolute, resolved), open, and held by a client that says so.

    Meanwhile the server is not idle (R22). A client that retires meanwhile gets no hold, or it
    would be left behind by nobody (R27). ``env`` is kept with the hold.

    Raises:
        Refused: ``client_retired``, ``server_stopping``.
        StoreError: It could not be stored or opened.
    """
    with host.clients.create():
        host.clients.check(client_id)
        workspace = await host.by_path(path)
        if client_id is not None:
            host.clients.check(client_id)
            workspace.presence.hold(client_id, env)
        return workspace
