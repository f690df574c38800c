"""Which server is meant, whether it may be trusted, and how a missing one is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from crush_trio.client import autostart
from crush_trio.client.autostart import WrongVersion, ensure_server, wait_gone
from crush_trio.client.endpoint import BadServerUrl, TcpEndpoint, UnixEndpoint, parse_server_url
from crush_trio.client.errors import CannotStart, Unreachable
from crush_trio.client.http import open_http
from crush_trio.client.locate import Target, locate
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.version import PROTOCOL
from tests.client.peer import Request, unix_peer

TOKEN = "t" * 40


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("unix:///run/x.sock", UnixEndpoint(Path("/run/x.sock"))),
        ("tcp://127.0.0.1:8080", TcpEndpoint("127.0.0.1", 8080)),
        ("http://box:80/", TcpEndpoint("box", 80)),
        ("tcp://[::1]:9", TcpEndpoint("::1", 9)),
    ],
)
def test_a_server_url_names_a_place(text: str, endpoint: UnixEndpoint | TcpEndpoint) -> None:
    assert parse_server_url(text) == endpoint
    assert parse_server_url(endpoint.url) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", "box", "box:80", "tcp://box", "tcp://:80", "tcp://box:port", "tcp://box:99999",
     "unix://relative", "unix:", "https://box:1", "ftp://box:1", "http://box:1/v1", "http://[x"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(BadServerUrl, match="unix:///PATH or tcp://HOST:PORT"):
        parse_server_url(text)


def test_a_token_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadServerUrl) as caught:
        parse_server_url("tcp://:hunter2@box:1")
    assert "hunter2" not in str(caught.value)


def test_the_default_server_is_the_socket_of_the_data_directory(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    found = locate(
        server=None,
        data_dir=tmp_path / "data",
        token_file=None,
        environ={"XDG_RUNTIME_DIR": str(runtime)},
    )
    assert isinstance(found.endpoint, UnixEndpoint)
    assert found.endpoint.path.parent == runtime / "crush-trio"
    assert found.data_dir == tmp_path / "data"


def test_a_socket_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """T9: in such a directory anybody could have put a socket."""
    (tmp_path / "crush-trio").mkdir()
    (tmp_path / "crush-trio").chmod(0o755)
    with pytest.raises(ConfigError, match="open to others"):
        locate(
            server=None,
            data_dir=tmp_path,
            token_file=None,
            environ={"XDG_RUNTIME_DIR": str(tmp_path)},
        )


def test_a_named_server_is_never_one_that_a_client_starts(tmp_path: Path) -> None:
    found = locate(server="unix:///x", data_dir=tmp_path, token_file=None, environ={})
    assert found == Target(UnixEndpoint(Path("/x")))


def test_the_token_comes_from_the_file_then_the_environment_then_the_data_directory(
    tmp_path: Path,
) -> None:
    def token(file: Path | None, environ: dict[str, str]) -> str | None:
        return locate(
            server="tcp://box:1", data_dir=tmp_path, token_file=file, environ=environ
        ).token

    assert token(None, {}) is None
    private(tmp_path / "token", f"me:{TOKEN}0\n")
    private(tmp_path / "other", f"# mine\nana:{TOKEN}1\nbob:{TOKEN}2\n")
    assert token(None, {}) == TOKEN + "0"
    assert token(None, {"CRUSH_TRIO_TOKEN": "env"}) == "env"
    assert token(tmp_path / "other", {"CRUSH_TRIO_TOKEN": "env"}) == TOKEN + "1"
    (tmp_path / "other").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        token(tmp_path / "other", {})


def private(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


async def test_a_server_of_our_protocol_is_used_as_it_is(tmp_path: Path) -> None:
    async with unix_peer(tmp_path / "s") as peer:
        peer.routes["GET /v1/version"] = (200, {"version": "9", "protocol": PROTOCOL})
        async with open_http(peer.endpoint) as http:
            found = await ensure_server(Target(peer.endpoint, data_dir=tmp_path), http)
    assert found["version"] == "9"
    assert [request.method for request in peer.requests] == ["GET"]


async def test_a_busy_server_of_another_protocol_is_left_alone_and_named(tmp_path: Path) -> None:
    async with unix_peer(tmp_path / "s") as peer:
        peer.routes["GET /v1/version"] = (200, {"version": "9.9", "protocol": PROTOCOL + 1})
        peer.routes["POST /v1/control"] = (409, {"message": "in use", "code": "server_in_use"})
        async with open_http(peer.endpoint) as http:
            with pytest.raises(WrongVersion, match=r"9\.9 .*crush-trio stop") as caught:
                await ensure_server(Target(peer.endpoint, data_dir=tmp_path), http)
    from crush_trio import __version__

    assert __version__ in str(caught.value)
    assert peer.requests[1].json() == {"command": "shutdown_if_idle", "by": "crush-trio"}


async def test_an_idle_server_of_another_protocol_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    started = []
    async with trio.open_nursery() as nursery:
        old = trio.CancelScope()

        async def leave(_: Request) -> tuple[int, bytes]:
            path.unlink()
            old.cancel()
            return 200, b""

        async def serve_old(*, task_status: trio.TaskStatus[None]) -> None:
            with old:
                async with unix_peer(path) as peer:
                    peer.routes["GET /v1/version"] = (200, {"protocol": PROTOCOL + 1})
                    peer.routes["POST /v1/control"] = leave
                    task_status.started()
                    await trio.sleep_forever()

        async def start_new(http: object, data_dir: Path, notice: object) -> dict[str, str]:
            assert not path.exists()
            started.append(data_dir)
            return {"version": "new"}

        await nursery.start(serve_old)
        monkeypatch.setattr(autostart, "_start", start_new)
        async with open_http(UnixEndpoint(path)) as http:
            found = await ensure_server(Target(UnixEndpoint(path), data_dir=tmp_path), http)
        nursery.cancel_scope.cancel()
    assert found == {"version": "new"}
    assert started == [tmp_path]


async def test_a_named_server_that_is_away_is_reported_and_nothing_is_started(
    tmp_path: Path,
) -> None:
    endpoint = UnixEndpoint(tmp_path / "none")
    async with open_http(endpoint) as http:
        with pytest.raises(Unreachable):
            await ensure_server(Target(endpoint), http)
        with pytest.raises(Unreachable):
            await ensure_server(Target(endpoint, data_dir=tmp_path / "d"), http, autostart=False)
    assert os.listdir(tmp_path) == []


async def test_a_server_that_cannot_start_is_tried_three_times_and_its_own_sentence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho listening soon\necho 'the disk is on fire' >&2\nexit 4\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    endpoint, data_dir = UnixEndpoint(tmp_path / "s"), tmp_path / "data"
    told: list[str] = []
    async with open_http(endpoint) as http:
        with pytest.raises(CannotStart, match=r"the disk is on fire$"):
            await ensure_server(Target(endpoint, data_dir=data_dir), http, notice=told.append)
    assert told == ["starting a server"] * 3
    assert os.stat(data_dir).st_mode & 0o777 == 0o700


async def test_a_server_that_never_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(autostart, "AUTOSTART_READY_S", 0.2)
    endpoint = UnixEndpoint(tmp_path / "s")
    async with open_http(endpoint) as http:
        with pytest.raises(CannotStart):
            await ensure_server(Target(endpoint, data_dir=tmp_path / "data"), http)
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


async def test_an_unusable_data_directory_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    endpoint = UnixEndpoint(tmp_path / "s")
    async with open_http(endpoint) as http:
        with pytest.raises(CannotStart, match="cannot be made"):
            await ensure_server(Target(endpoint, data_dir=tmp_path / "file" / "data"), http)


async def test_waiting_for_a_server_to_go_is_bounded(tmp_path: Path) -> None:
    async with unix_peer(tmp_path / "s") as peer:
        peer.routes["GET /v1/version"] = (503, {"message": "stopping"})
        async with open_http(peer.endpoint) as http:
            assert not await wait_gone(http, timeout=0.2)
            (tmp_path / "s").unlink()
            assert await wait_gone(http, timeout=5)
