"""What a hostile or clumsy peer can do to a real server: end its own connection, nothing else."""

from __future__ import annotations

import contextlib
import itertools
import socket
from pathlib import Path

from tests.e2e.kit import Server

UPGRADE = (
    b"GET /v1/workspaces/w/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
TORN = {
    "method": b"GE",
    "request line": b"GET /v1/health HTTP/1.1\r\n",
    "headers": b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n",
    "body": b"POST /v1/workspaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    "chunk": b"POST /v1/workspaces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "handshake": UPGRADE,
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a frame too early": UPGRADE + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x81\xff",
}


def test_a_request_that_is_torn_off_ends_its_own_connection_only(server: Server) -> None:
    """G9: wherever it is torn, the server answers everybody else as before."""
    before = server.get("/v1/version")["server_id"]
    for how, half in itertools.product(TORN, (False, True)):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(5)
            peer.connect(server.socket_path)
            peer.sendall(TORN[how])
            if half:
                peer.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(65536):
                        pass
        assert server.get("/v1/version")["server_id"] == before, (how, half)


def test_a_torn_handshake_on_a_workspace_leaves_its_other_subscribers_alone(
    server: Server, project: Path
) -> None:
    """G9: who follows the stream meanwhile misses nothing."""
    workspace = server.workspace(project)
    session = server.session(workspace)
    with server.stream(workspace, "after=now") as stream:
        stream.until(lambda frame: frame["type"] == "replayed")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(server.socket_path)
            peer.sendall(UPGRADE.replace(b"/w/", f"/{workspace}/".encode()))
        run = server.prompt(workspace, session, "list")["run_id"]
        assert stream.until_end_of(run)[-1]["payload"]["payload"]["outcome"] == "completed"
