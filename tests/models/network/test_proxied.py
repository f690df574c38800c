"""Through a real proxy on loopback: tunnels, forwarding, and every way in which it says no."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from crush_trio.agent.ports import ModelError, ModelEvent
from crush_trio.cli.exit_codes import CONFIGURATION, exit_code
from crush_trio.http.connections import Connections
from tests.models.kit import request
from tests.models.network.kit import HELLO, model_at, text_of
from tests.models.network.provider import FakeProvider, fake_provider, sending, streaming, whole
from tests.models.network.test_tls import secured

NAME = "api.x.test"


@attrs.define
class Tunnels:
    """A proxy that connects everybody to one port, whatever they ask for."""

    to_port: int
    answer: bytes = b"HTTP/1.1 200 Connection established\r\nX-By: proxy\r\n\r\n"
    heads: list[bytes] = attrs.field(factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                more = await stream.receive_some(65_536)
                if not more:
                    return
                head += more
            self.heads.append(head)
            if head.startswith(b"CONNECT"):
                if self.answer:
                    await stream.send_all(self.answer)
                if b" 200 " not in self.answer:
                    return
                head = b""
            other = await trio.open_tcp_stream("127.0.0.1", self.to_port)
            await other.send_all(head)
            async with other, trio.open_nursery() as nursery:
                nursery.start_soon(_copy, stream, other, nursery.cancel_scope)
                nursery.start_soon(_copy, other, stream, nursery.cancel_scope)


async def _copy(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope
) -> None:
    try:
        while data := await source.receive_some(65_536):
            await sink.send_all(data)
    except trio.BrokenResourceError:  # one side has gone: both have
        pass
    scope.cancel()


@asynccontextmanager
async def proxying(
    to_port: int,
    *,
    tls: Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]] | None = None,
    answer: bytes | None = None,
) -> AsyncIterator[tuple[Tunnels, str]]:
    """A running proxy, and where it is."""
    proxy = Tunnels(to_port) if answer is None else Tunnels(to_port, answer)

    async def handle(stream: trio.SocketStream) -> None:
        await proxy.serve(stream if tls is None else await tls(stream))

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield proxy, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "company.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@asynccontextmanager
async def provider(authority: trustme.CA | None) -> AsyncIterator[FakeProvider]:
    """One that is called ``api.x.test``, with TLS if there is an authority."""
    tls = None if authority is None else secured(authority.issue_cert(NAME))
    async with fake_provider(streaming(*HELLO), tls=tls, name=NAME) as running:
        yield running


async def hello(running: FakeProvider, connections: Connections, *, is_local: bool = False) -> str:
    events: list[ModelEvent] = []
    model = model_at(running.url, connections, is_local=is_local)
    await model.stream(request(), events.append)
    return text_of(events)


async def test_https_goes_through_a_tunnel_that_sees_no_key(
    authority: trustme.CA, authority_file: Path
) -> None:
    async with provider(authority) as running, proxying(running.port) as (proxy, where):
        environ = {"HTTPS_PROXY": f"http://me:secret@{where}"}
        async with Connections(authority_file, environ) as connections:
            assert await hello(running, connections) == "Hello."
            assert await hello(running, connections) == "Hello."
            assert connections.open_connections == (0, 1)
        (head,) = proxy.heads  # the tunnel is kept for the second request
        assert head.startswith(f"CONNECT {NAME}:{running.port} HTTP/1.1\r\n".encode())
        assert b"proxy-authorization: Basic bWU6c2VjcmV0" in head
        assert b"sk-" not in head
        for exchange in running.exchanges:
            assert "proxy-authorization" not in exchange.headers
            assert exchange.target == "/v1/chat/completions"


async def test_http_is_forwarded_with_the_whole_address() -> None:
    async with provider(None) as running, proxying(running.port) as (proxy, where):
        async with Connections(environ={"http_proxy": f"me:secret@{where}"}) as connections:
            assert await hello(running, connections) == "Hello."
        (head,) = proxy.heads
        assert head.startswith(f"POST {running.url}/v1/chat/completions HTTP/1.1\r\n".encode())
        assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in head
        assert f"host: {NAME}".encode() in head.lower()


async def test_a_proxy_may_speak_tls_itself(authority: trustme.CA, authority_file: Path) -> None:
    tls = secured(authority.issue_cert("127.0.0.1"))
    async with provider(authority) as running, proxying(running.port, tls=tls) as (_, where):
        environ = {"ALL_PROXY": f"https://{where}"}
        async with Connections(authority_file, environ) as connections:
            assert await hello(running, connections) == "Hello."


async def test_what_runs_on_this_machine_is_asked_without_a_proxy() -> None:
    environ = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "socks5://127.0.0.1:1"}
    async with (
        fake_provider(streaming(*HELLO)) as running,
        Connections(environ=environ) as connections,
    ):
        assert await hello(running, connections) == "Hello."
        assert await hello(running, connections, is_local=True) == "Hello."


async def test_a_local_provider_is_asked_directly_whatever_its_name_is() -> None:
    async with (
        fake_provider(streaming(*HELLO), host="0.0.0.0") as running,
        Connections(environ={"HTTP_PROXY": "http://127.0.0.1:1"}) as connections,
    ):
        assert await hello(running, connections, is_local=True) == "Hello."


async def test_a_proxy_that_refuses_to_pass_a_request_on_says_on_whose_way_it_is() -> None:
    refuses = sending(whole(407, b""))
    async with fake_provider(refuses) as proxy:
        environ = {"HTTP_PROXY": f"http://me:pw@127.0.0.1:{proxy.port}"}
        async with Connections(environ=environ) as connections:
            model = model_at(f"http://{NAME}", connections)
            with pytest.raises(ModelError, match=f"on the way to {NAME} .* HTTP_PROXY") as caught:
                await model.stream(request(), lambda _: None)
    assert (caught.value.code, caught.value.retryable) == ("provider_proxy", False)
    assert "pw" not in caught.value.message
    assert len(proxy.exchanges) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Auth\r\n\r\n", "wants a name and password, or others than these."),
        (b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno", "refuses connections to api.x.test:"),
        (b"", "closed the connection."),
        (b"HTTP/1.1 4", "closed the connection."),
        (b"220 smtp.x.test ESMTP\r\n\r\n", "does not speak HTTP."),
    ],
    ids=["407", "403", "closed", "cut", "garbage"],
)
async def test_a_proxy_that_refuses_is_named(answer: bytes, words: str) -> None:
    """One sentence, exit 4, asked once."""
    async with proxying(1, answer=answer) as (proxy, where):
        async with Connections(environ={"HTTPS_PROXY": f"http://me:pw@{where}"}) as connections:
            model = model_at(f"https://{NAME}", connections)
            with pytest.raises(ModelError) as caught:
                await model.stream(request(), lambda _: None)
            assert connections.open_connections == (0, 0)
        assert len(proxy.heads) == 1
    error = caught.value
    assert (error.code, error.retryable) == ("provider_proxy", False)
    assert error.message.startswith(f"The proxy http://{where} (HTTPS_PROXY) {words}")
    assert exit_code({"outcome": "failed", "error": {"code": error.code}}) == CONFIGURATION


async def test_a_proxy_that_cannot_get_through_may_later() -> None:
    async with proxying(1, answer=b"HTTP/1.1 503 Later\r\n\r\n") as (_, where):
        async with (
            Connections(environ={"HTTPS_PROXY": where}) as connections,
            trio.open_nursery() as nursery,
        ):
            causes: list[ModelEvent] = []

            def emit(event: ModelEvent) -> None:
                causes.append(event)
                nursery.cancel_scope.cancel()

            await model_at(f"https://{NAME}", connections).stream(request(), emit)
        assert f"cannot reach {NAME}:443: status 503." in str(causes[0])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://127.0.0.1:1", r"No connection to the proxy http://127\.0\.0\.1:1 \(HTTPS_PROXY\)"),
        ("http://no.such.host.invalid:1", r"The address of the proxy .* cannot be found"),
        ("socks5://127.0.0.1:1", "HTTPS_PROXY names a SOCKS proxy"),
        ("ftp://127.0.0.1:1", "HTTPS_PROXY is not the address of a proxy"),
    ],
)
async def test_a_proxy_that_is_not_there_is_named(value: str, words: str) -> None:
    async with Connections(environ={"HTTPS_PROXY": value}) as connections:
        with pytest.raises(ModelError, match=words) as caught:
            await model_at(f"https://{NAME}", connections).stream(request(), lambda _: None)
        assert caught.value.code == "provider_proxy"


async def test_a_tunnel_ends_where_nobody_is_trusted(authority: trustme.CA) -> None:
    async with (
        provider(authority) as running,
        proxying(running.port) as (_, where),
        Connections(environ={"HTTPS_PROXY": where}) as connections,
    ):
        with pytest.raises(ModelError, match=r"api\.x\.test cannot be trusted") as caught:
            await hello(running, connections)
        assert caught.value.code == "provider_tls"
        assert connections.open_connections == (0, 0)
